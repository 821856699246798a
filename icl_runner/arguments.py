"""The arguments of `spae-icl run TASK`: a table of the tasks, and of each what can be asked for."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

TASKS = {
    "classify": "few-shot classification of images by their words",
    "caption": "captions, after a few examples",
    "vqa": "questions about images, after a few examples",
    "interpret": "what the words alone say to the model",
    "generate": "images from text, drawn in words",
    "transform": "clean images from corrupted ones, drawn in words",
}
DRAWN = ("generate", "transform")
DATA = {
    "classify": "a folder of a folder for each class, tar shards, mini-ImageNet, mnist.npz, ..",
    "caption": "COCO captions, images beside texts, tar shards; or photographs",
    "vqa": "a folder of VQAv2, or easy-vqa",
    "interpret": "images with classes or captions, or photographs",
    "generate": "as for classify, such as mnist.npz; for --condition caption as for caption",
    "transform": "any images",
}
DEFAULT_DATA = {
    "caption": "photographs",
    "vqa": "easy-vqa",
    "interpret": "photographs",
}
EXAMPLES = {
    "classify": "spae-icl run classify --model spae-lm/default --data tiny-imagenet-64 --split novel --ways 2 5",
    "caption": "spae-icl run caption --model openai/gpt-4o --data coco --split val2017 --shots 4",
    "vqa": "spae-icl run vqa --model completions/llama -M dialect=vllm --model-base-url http://localhost:8000/v1",
    "interpret": "spae-icl run interpret --model google/gemini-2.5-flash --layers 2 3 --dry-run",
    "generate": "spae-icl run generate --model spae-lm/default --data mnist.npz --condition sum",
    "transform": "spae-icl run transform --model spae-lm/default --data images --kind inpainting",
}


def add_tasks(runs: argparse.ArgumentParser) -> None:
    """Add a command for each task to `spae-icl run`; it leaves the task's name in `task`."""
    tasks = runs.add_subparsers(title="tasks", metavar="TASK", required=True)
    for task, purpose in TASKS.items():
        command = tasks.add_parser(
            task,
            help=purpose,
            description=purpose[0].upper() + purpose[1:] + ".",
            epilog=f"example: {EXAMPLES[task]}",
            allow_abbrev=False,  # "--episodes 5" is not short for --episodes-file
        )
        command.set_defaults(task=task)
        _add_data(command, task)
        if task == "classify":
            _add_classify(command)
        elif task in ("caption", "vqa"):
            _add_numbers(command, "--shots", 1, [4], "examples in context (4)")
            _add_count(command)
        elif task == "interpret":
            _add_count(command)
        elif task == "generate":
            _add_generate(command)
        else:
            _add_transform(command)
        if task not in DRAWN:
            _add_control(command)
        _add_model(command)


def _whole(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise ValueError
        return value

    number.__name__ = f"whole number from {least}"  # argparse: "invalid whole number from 1 value: '0'"
    return number


def model_name(text: str) -> str:
    provider, slash, name = text.partition("/")
    if not (provider and slash and name):
        raise argparse.ArgumentTypeError(
            f"wanted PROVIDER/NAME, such as spae-lm/default, completions/llama or openai/gpt-4o; got {text!r}"
        )
    return text


def _pair(text: str) -> tuple[str, Any]:
    """key=value; a value that is JSON (a number, true, ..) is read as such."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"wanted KEY=VALUE, such as dialect=vllm; got {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _add_data(command: argparse.ArgumentParser, task: str) -> None:
    default = DEFAULT_DATA.get(task)
    command.add_argument(
        "--data",
        required=default is None,
        default=default,
        metavar="NAME_OR_PATH",
        help=f"{DATA[task]}" + (f" ({default})" if default else ""),
    )
    command.add_argument("--split", metavar="NAME", help="of the data")
    drawn = task in DRAWN
    command.add_argument(
        "--layers",
        type=_whole(1),
        nargs="+",
        default=[4 if drawn else 2],
        metavar="N",
        help="layers of the pyramid "
        + (
            "that are written, each number a row (4: 85 words)"
            if drawn
            else "in the prompt, each number a row (2: five words)"
        ),
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the choice of images (0)")
    add_bundle(command)


def _add_classify(command: argparse.ArgumentParser) -> None:
    _add_numbers(command, "--ways", 2, [2], "classes to choose from (2)")
    _add_numbers(command, "--shots", 1, [1], "different images of each class in context (1)")
    _add_numbers(command, "--repeats", 0, [0], "extra copies of the context (0)")
    command.add_argument(
        "--no-induction", dest="induction", action="store_false", help="do not name the classes first"
    )
    command.add_argument(
        "--columns",
        choices=("paper",),
        help="the seven columns of the published table, in place of shots, repeats, induction",
    )
    command.add_argument(
        "--names", choices=("real", "nonsense"), default="real", help="what the classes are called (real)"
    )
    command.add_argument(
        "--words",
        choices=("image", "class-name"),
        default="image",
        help="class-name: the true name in place of each image's words, the ceiling (image)",
    )
    _add_count(command, 200, "episodes of each column")
    command.add_argument(
        "--episodes-file",
        metavar="FILE",
        help="episodes written by a run, Frozen's JSON or V2L's CSV, in place of drawn ones",
    )


def _add_numbers(
    command: argparse.ArgumentParser, name: str, least: int, default: list[int], help: str
) -> None:
    command.add_argument(name, type=_whole(least), nargs="+", default=default, metavar="N", help=help)


def _add_count(command: argparse.ArgumentParser, default: int = 100, what: str = "to ask about") -> None:
    command.add_argument(
        "--examples",
        dest="count",
        type=_whole(1),
        default=default,
        metavar="N",
        help=f"{what} ({default})",
    )


def _add_control(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--control",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask everything again with another image's words (yes)",
    )


def _add_generate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--condition",
        choices=("class", "sum", "caption"),
        default="class",
        help='what a picture is asked for by: "an image of 7", "an image of 1+6", or a caption (class)',
    )
    _add_numbers(command, "--shots", 1, [5], "pictures of each class in context; of captions, in all (5)")
    command.add_argument(
        "--classes", type=_whole(1), metavar="N", help="how many classes (all), or captions (10)"
    )
    _add_drawing(command)


def _add_transform(command: argparse.ArgumentParser) -> None:
    from icl_runner.pictures.corruptions import CORRUPTIONS

    command.add_argument(
        "--kind",
        choices=(*CORRUPTIONS, "words"),
        default="denoise",
        help="what was done to the images (denoise)",
    )
    command.add_argument(
        "--context",
        choices=("leak-free", "published-leaking"),
        default="leak-free",
        help="published-leaking: the examples are made of the query itself (leak-free)",
    )
    command.add_argument(
        "--first", type=float, default=0.5, metavar="X", help="strength of the first example (0.5)"
    )
    command.add_argument("--last", type=float, default=0.2, metavar="X", help="strength of the query (0.2)")
    _add_numbers(command, "--shots", 1, [10], "examples in context (10)")
    _add_count(command, 20)
    _add_drawing(command)


def _add_drawing(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--rounds", type=_whole(1), default=1, metavar="N", help="each with another context (1)"
    )
    command.add_argument(
        "--autoregressive",
        type=_whole(0),
        default=3,
        metavar="N",
        help="layers whose words are written one after the other; those of the rest stand alone (3)",
    )
    command.add_argument(
        "--segment-words", type=_whole(1), default=16, metavar="N", help="words of one call, at most (16)"
    )
    command.add_argument(
        "--samples",
        type=_whole(1),
        default=1,
        metavar="N",
        help="answers of which the likeliest is taken (1)",
    )
    command.add_argument("--temperature", type=float, default=0.0, metavar="X", help="0 is greedy (0)")
    command.add_argument(
        "--context-tokens", type=_whole(1), default=8192, metavar="N", help="what the model can read (8192)"
    )


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model",
        type=model_name,
        required=True,
        metavar="PROVIDER/NAME",
        help="spae-lm/default (embedded), completions/NAME, or any of inspect-ai's: openai/.., google/.., vllm/..",
    )
    command.add_argument("--model-base-url", dest="base_url", metavar="URL", help="of the model's endpoint")
    command.add_argument(
        "-M",
        dest="model_args",
        action="append",
        type=_pair,
        default=[],
        metavar="KEY=VALUE",
        help="an argument of the provider, such as dialect=vllm",
    )
    command.add_argument("--log-dir", type=Path, metavar="DIR", help="of one run's logs (logs/TASK)")
    command.add_argument(
        "--max-connections", type=_whole(1), metavar="N", help="calls at the same time (the provider's)"
    )
    command.add_argument("--max-retries", type=_whole(0), default=8, metavar="N", help="of a failed call (8)")
    command.add_argument(
        "--dry-run", action="store_true", help="print prompts, tokens and cost, and ask nothing"
    )
    add_prices(command)


def add_prices(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--prices",
        metavar="FILE",
        help='JSON: {"currency": "USD", "provider/name": {"input": 0.5, "output": 1.5}}, per million tokens',
    )


def add_bundle(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--bundle", default="default", metavar="NAME_OR_PATH", help="the trained tokenizer (default)"
    )
