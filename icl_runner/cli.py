"""`spae-icl`: in-context experiments with language models, from the command line.

Exit status: 0 done, 1 failed (one line on stderr), 2 bad usage, 130 interrupted.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spae.errors import BundleError, InputError

# inspect-ai and JAX take seconds to import: whatever needs them is imported where it is used.

TASKS = {
    "classify": "few-shot classification of images by their words",
    "caption": "captions, after a few examples",
    "vqa": "questions about images, after a few examples",
    "interpret": "what the words alone say to the model",
}
DATA = {
    "classify": "a folder of a folder for each class, tar shards, mini-ImageNet, mnist.npz, ..",
    "caption": "COCO captions, images beside texts, tar shards; or photographs",
    "vqa": "a folder of VQAv2, or easy-vqa",
    "interpret": "images with classes or captions, or photographs",
}
DEFAULT_DATA = {"caption": "photographs", "vqa": "easy-vqa", "interpret": "photographs"}
EXAMPLES = {
    "classify": "spae-icl run classify --model spae-lm/default --data tiny-imagenet-64 --split novel --ways 2 5",
    "caption": "spae-icl run caption --model openai/gpt-4o --data coco --split val2017 --shots 4",
    "vqa": "spae-icl run vqa --model completions/llama -M dialect=vllm --model-base-url http://localhost:8000/v1",
    "interpret": "spae-icl run interpret --model google/gemini-2.5-flash --layers 2 3 --dry-run",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (InputError, BundleError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            # The reader left (`spae-icl report .. | head`); what is still buffered has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        print(f"spae-icl: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    from icl_runner.plan import Plan

    prices = _prices(options)
    plan = Plan(_settings(options))
    if options.dry_run:
        from icl_runner.estimate import describe

        for line in describe(plan.cells, options.model, prices):
            print(line)
        return 0

    from icl_runner.cells import collect
    from icl_runner.report import markdown
    from icl_runner.run import run

    log_dir = options.log_dir or Path("logs") / options.task
    done = run(plan, log_dir, max_connections=options.max_connections, max_retries=options.max_retries)
    print(markdown(collect([log_dir]), prices))
    if not done:
        again = "the same command tries what failed or is missing again"
        print(f"spae-icl: not every sample has a score (see {log_dir}): {again}", file=sys.stderr)
    return 0 if done else 1


def _settings(options: argparse.Namespace) -> Any:
    """The fields of `Settings` that the task's options hold."""
    from dataclasses import fields

    from icl_runner.plan import Settings

    given = vars(options) | {"model_args": dict(options.model_args)}
    values: dict[str, Any] = {}
    for field in fields(Settings):
        if field.name in given:
            value = given[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return Settings(**values)


def _report(options: argparse.Namespace) -> int:
    from icl_runner.report import as_json, collect, markdown, write_html

    prices = _prices(options)
    cells = collect(options.logs)
    if options.html is not None:
        write_html(cells, options.html, prices, options.published)
    if options.json:
        print(json.dumps(as_json(cells, prices), ensure_ascii=False))
    else:
        print(markdown(cells, prices, options.published))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from icl_runner.demo import write_demo

    write_demo(options.output, options.bundle, options.model)
    return 0


def _prices(options: argparse.Namespace) -> Any:
    if options.prices is None:
        return None
    from icl_runner.report import read_prices

    return read_prices(options.prices)


def _whole(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise ValueError
        return value

    number.__name__ = f"whole number from {least}"  # argparse: "invalid whole number from 1 value: '0'"
    return number


def _model_name(text: str) -> str:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spae-icl",
        description="In-context experiments: language models see, name and draw images through words.",
        epilog="example: spae-icl demo",
    )
    parser.add_argument("--version", action="version", version=f"spae {version('spae')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    runs = commands.add_parser(
        "run",
        help="an experiment; run again, it goes on where it was broken off",
        epilog=f"example: {EXAMPLES['classify']}",
    )
    tasks = runs.add_subparsers(title="tasks", metavar="TASK", required=True)
    for task, purpose in TASKS.items():
        command = _command(tasks, task, purpose, EXAMPLES[task], _run)
        command.set_defaults(task=task)
        _add_data(command, task)
        if task == "classify":
            _add_classify(command)
        elif task in ("caption", "vqa"):
            _add_numbers(command, "--shots", 1, [4], "examples in context (4)")
            _add_examples(command)
        else:
            _add_examples(command)
        _add_model(command)

    report = _command(
        commands,
        "report",
        "tables, JSON or a page of finished runs",
        "spae-icl report logs --html report.html",
        _report,
    )
    report.add_argument("logs", nargs="+", metavar="LOGS", help="log files, or folders of them")
    report.add_argument("--html", type=Path, metavar="FILE", help="write a self-contained page, too")
    report.add_argument("--json", action="store_true", help="print the figures as JSON")
    report.add_argument("--published", action="store_true", help="set reported figures of others beside ours")
    _add_prices(report)

    demo = _command(
        commands,
        "demo",
        "a few-shot episode and an image drawn in context, by the embedded model, on one page",
        "spae-icl demo --output demo",
        _demo,
    )
    demo.add_argument(
        "--output", type=Path, default=Path("demo"), metavar="DIR", help="where to write (./demo)"
    )
    demo.add_argument(
        "--model",
        type=_model_name,
        default="spae-lm/default",
        metavar="PROVIDER/NAME",
        help="who answers (spae-lm/default)",
    )
    _add_bundle(demo)
    return parser


def _command(commands: Any, name: str, purpose: str, example: str, run: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".", epilog=f"example: {example}"
    )
    command.set_defaults(run=run)
    return command


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
    command.add_argument(
        "--layers",
        type=_whole(1),
        nargs="+",
        default=[2],
        metavar="N",
        help="layers of the pyramid that stand in the prompt, each number a column (2: five words)",
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the choice of images (0)")
    _add_bundle(command)


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
    command.add_argument(
        "--episodes", dest="count", type=_whole(1), default=200, metavar="N", help="of each column (200)"
    )
    command.add_argument(
        "--episodes-file",
        metavar="FILE",
        help="episodes written by a run, Frozen's JSON or V2L's CSV, in place of drawn ones",
    )


def _add_numbers(
    command: argparse.ArgumentParser, name: str, least: int, default: list[int], help: str
) -> None:
    command.add_argument(name, type=_whole(least), nargs="+", default=default, metavar="N", help=help)


def _add_examples(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--examples",
        dest="count",
        type=_whole(1),
        default=100,
        metavar="N",
        help="to ask about, at most (100)",
    )


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model",
        type=_model_name,
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
    command.add_argument(
        "--control",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask everything again with another image's words (yes)",
    )
    command.add_argument("--log-dir", type=Path, metavar="DIR", help="of one run's logs (logs/TASK)")
    command.add_argument(
        "--max-connections", type=_whole(1), metavar="N", help="calls at the same time (the provider's)"
    )
    command.add_argument("--max-retries", type=_whole(0), default=8, metavar="N", help="of a failed call (8)")
    command.add_argument(
        "--dry-run", action="store_true", help="print prompts, tokens and cost, and ask nothing"
    )
    _add_prices(command)


def _add_prices(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--prices",
        metavar="FILE",
        help='JSON: {"provider/name": {"input": 0.5, "output": 1.5}}, per million tokens',
    )


def _add_bundle(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--bundle", default="default", metavar="NAME_OR_PATH", help="the trained tokenizer (default)"
    )
