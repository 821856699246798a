"""`spae`: images to words and back, from the command line.

Exit status: 0 done, 1 failed (one line on stderr), 2 bad usage, 130 interrupted.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spae.errors import BundleError, InputError

# JAX takes a second to import: whatever needs it is imported where it is used, so that --help is instant.
if TYPE_CHECKING:
    from PIL import Image

    from spae.tokenizer import Tokenizer

BATCH = 32
PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    return run_command(_parser(), arguments)


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Run the command that `parser` leaves in `run`; errors in one line behind the program's name. The exit status."""
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (InputError, BundleError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            # The reader left (`spae encode .. | head`); what is still buffered has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _encode(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from spae.images import open_image

    tokenizer = _tokenizer(options)
    failed = False
    several = len(options.images) > 1
    # On stderr, and only on a terminal.
    with tqdm(total=len(options.images), unit="image", disable=None if several else True) as progress:
        for start in range(0, len(options.images), BATCH):
            opened = []
            for path in options.images[start : start + BATCH]:
                try:
                    opened.append((path, open_image(path, tokenizer.image_size)))
                except InputError as error:
                    failed = True
                    progress.write(f"spae: {error}", file=sys.stderr)
            pyramids = tokenizer.encode([image for _, image in opened]) if opened else []
            for (path, _), pyramid in zip(opened, pyramids, strict=True):
                pyramid = pyramid.prefix(options.layers or pyramid.layers)
                if options.json:
                    record = {"image": path, "model": _model(options), "layers": pyramid.json()}
                    progress.write(json.dumps(record, ensure_ascii=False))
                else:
                    heading = f"{path}:\n" if several else ""
                    progress.write(heading + "\n".join(" ".join(words) for words in pyramid.words()))
            progress.update(len(options.images[start : start + BATCH]))
    return 1 if failed else 0


def _decode(options: argparse.Namespace) -> int:
    from PIL import Image

    text = _text(options.text)
    form = _picture_format(options.output)
    tokenizer = _tokenizer(options)
    parsed = tokenizer.parse(text, options.layers)
    _save(Image.fromarray(tokenizer.decode(parsed.pyramid)), options.output, form)
    repairs: list[dict[str, Any]] = [
        {"kind": repair.kind, "position": repair.position, "found": repair.found, "used": repair.used}
        for repair in parsed.repairs
    ]
    if options.json:
        record = {
            "output": str(options.output),
            "model": _model(options),
            "layers": parsed.pyramid.json(),
            "repairs": repairs,
        }
        print(json.dumps(record, ensure_ascii=False))
    else:
        for repair in repairs:
            instead = f", used {repair['used']!r}" if repair["used"] else ""
            line = (
                f"spae: repaired word {repair['position'] + 1}: {repair['kind']} {repair['found']!r}{instead}"
            )
            print(line, file=sys.stderr)
    return 0


def _draw(options: argparse.Namespace) -> int:
    from spae.draw import draw_pyramid
    from spae.images import open_image

    form = _picture_format(options.output)
    image = open_image(options.image)
    tokenizer = _tokenizer(options)
    pyramid = tokenizer.encode(image)
    pyramid = pyramid.prefix(options.layers or pyramid.layers)
    reconstructions = [tokenizer.decode(pyramid, layers) for layers in range(1, pyramid.layers + 1)]
    _save(draw_pyramid(image, pyramid, reconstructions), options.output, form)
    return 0


def _vocab_build(options: argparse.Namespace) -> int:
    from spae.vocabulary import build

    if options.output.is_file():
        raise InputError(f"cannot write the folder {options.output}: it is a file")
    vocabulary = build(
        options.model,
        matrix=options.matrix,
        min_length=options.min_length,
        min_zipf=options.min_zipf if options.min_zipf > 0 else None,
        max_size=options.max_size,
        view=options.view,
        appearance_components=options.components,
    )
    vocabulary.save(options.output)
    if options.json:
        print(json.dumps({"output": str(options.output), **vocabulary.header()}, ensure_ascii=False))
    else:
        for step in vocabulary.provenance["filters"]:
            print(f"{step['left']:>8,}  {step['filter']}")
        print(f"{options.output}: {len(vocabulary):,} words of {vocabulary.width} dimensions")
    return 0


def _serve(options: argparse.Namespace) -> int:
    try:
        from spae.service.serve import serve
        from spae.service.settings import Settings
    except ModuleNotFoundError as error:
        raise InputError(f"no module {error.name}: the service needs pip install 'spae[serve]'") from error
    serve(
        Settings(
            host=options.host,
            port=options.port,
            bundle=options.bundle,
            upstream=options.upstream,
            upstream_model=options.upstream_model,
            lm=options.lm,
            preamble=options.preamble,
            api_keys_file=options.api_keys,
            no_auth=options.no_auth,
            allow_hosts=tuple(options.allow_host),
            queue=options.queue,
            timeout_s=options.timeout,
            cors_origins=tuple(options.cors_origin),
        )
    )
    return 0


def _demo(options: argparse.Namespace) -> int:
    from spae.demo import write_demo

    write_demo(_tokenizer(options), _model(options), options.output)
    return 0


def _tokenizer(options: argparse.Namespace) -> "Tokenizer":
    import spae

    return spae.load(options.bundle)


def _model(options: argparse.Namespace) -> str:
    return options.bundle.rstrip("/").rpartition("/")[2]


def _text(argument: str) -> str:
    """The words: the argument itself, or of a file (text, or JSON of `spae encode --json`), or of stdin."""
    if argument == "-" or os.path.isfile(argument):
        try:
            text = sys.stdin.read() if argument == "-" else Path(argument).read_text("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{argument} is not text in UTF-8: wanted words, or JSON of spae encode"
            ) from error
    elif len(argument.split()) == 1 and ("/" in argument or argument.endswith((".txt", ".json"))):
        raise InputError(f"no file at {argument}: give words, a file of words, or - for standard input")
    else:
        text = argument
    if not text.lstrip().startswith("{"):
        # Line breaks are how encode prints layers; they are nothing to repair.
        return " ".join(text.split())
    try:
        record = json.loads(text)
        return " ".join(word for layer in record["layers"] for word in layer["words"])
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            "the JSON is not one record of spae encode --json: wanted layers with words"
        ) from error


def _picture_format(output: Path) -> str:
    """Checked before the work is done, not after it."""
    form = PICTURE_FORMATS.get(output.suffix.lower())
    if form is None:
        raise InputError(f"wanted an output file ending {', '.join(PICTURE_FORMATS)}, got {output}")
    if not output.parent.is_dir():
        raise InputError(f"cannot write {output}: there is no folder {output.parent}")
    return form


def _save(image: "Image.Image", output: Path, form: str) -> None:
    from spae.files import write_file

    buffer = io.BytesIO()
    image.save(buffer, form)
    write_file(output, buffer.getvalue())


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_positive.__name__ = "whole number from 1"  # argparse: "invalid whole number from 1 value: '0'"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spae",
        description="Images as pyramids of words of a frozen language model, and back.",
        epilog="example: spae encode cat.jpg --layers 2",
    )
    parser.add_argument("--version", action="version", version=f"spae {version('spae')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    encode = _command(
        commands,
        "encode",
        "an image to words, one line for each layer",
        "spae encode cat.jpg --layers 3",
        _encode,
    )
    encode.add_argument("images", nargs="+", metavar="IMAGE", help="JPEG, PNG or WebP")
    _add_layers(encode)
    _add_json(encode, "one JSON object a line: image, model, and of each layer height, width, words, ids")
    _add_bundle(encode)

    decode = _command(
        commands, "decode", "words to an image", "spae encode cat.jpg | spae decode - -o back.png", _decode
    )
    decode.add_argument(
        "text", metavar="TEXT_OR_FILE", help="words, a file of words or of JSON, or - for stdin"
    )
    _add_output(decode, "OUT.png", "the image to write (.png, .jpg, .webp)")
    _add_layers(decode)
    _add_json(decode, "print the words used, and the repairs, as JSON")
    _add_bundle(decode)

    draw = _command(
        commands,
        "draw",
        "the pyramid as a picture: words in place, and what every prefix decodes to",
        "spae draw cat.jpg -o pyramid.png",
        _draw,
    )
    draw.add_argument("image", metavar="IMAGE", help="JPEG, PNG or WebP")
    _add_output(draw, "OUT.png", "the picture to write (.png, .jpg, .webp)")
    _add_layers(draw)
    _add_bundle(draw)

    vocab = commands.add_parser("vocab", help="vocabularies of frozen language models")
    build = _command(
        vocab.add_subparsers(metavar="COMMAND", required=True),
        "build",
        "a vocabulary of whole words from a frozen model",
        "spae vocab build --from model.gguf -o vocabulary",
        _vocab_build,
    )
    build.add_argument(
        "--from",
        dest="model",
        metavar="MODEL",
        help="a GGUF file, a Hugging Face folder, or a tiktoken encoding's name with --matrix (SmolLM2-135M)",
    )
    _add_output(build, "DIR", "the folder to write")
    build.add_argument(
        "--matrix", metavar="FILE", help="embeddings (.npy, .safetensors) of a tiktoken encoding"
    )
    build.add_argument("--min-length", type=_positive, default=3, metavar="N", help="letters, at least (3)")
    build.add_argument(
        "--min-zipf", type=float, default=2.5, metavar="X", help="frequency of a word, at least; 0: all (2.5)"
    )
    build.add_argument(
        "--max-size", type=_positive, default=16_384, metavar="N", help="words, at most (16384)"
    )
    build.add_argument(
        "--view",
        choices=("two", "raw", "centred", "normalised", "whitened"),
        default="two",
        help="two: centred for meaning and whitened for appearance; else one for both (two)",
    )
    build.add_argument(
        "--components", type=_positive, default=16, metavar="N", help="dimensions of a whitened view (16)"
    )
    _add_json(build, "print what was built as JSON")

    serve = _command(
        commands,
        "serve",
        "the HTTP service: images to words and back, and chat with images for text-only models",
        "spae serve --port 8000 --upstream http://localhost:8080/v1",
        _serve,
    )
    serve.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="0: any that is free (8000)")
    serve.add_argument(
        "--upstream", metavar="URL", help="an OpenAI-compatible server, with /v1 (none: the model of --lm)"
    )
    serve.add_argument("--upstream-model", metavar="NAME", help="its model (what each request names)")
    serve.add_argument(
        "--lm", default="default", metavar="NAME_OR_PATH", help="the embedded language model (SmolLM2-135M)"
    )
    serve.add_argument(
        "--preamble",
        metavar="TEXT",
        help="what the model is told of pictures in words; '' for nothing (some lines)",
    )
    serve.add_argument("--api-keys", metavar="FILE", help="keys that may call, one a line; or sha256:DIGEST")
    serve.add_argument("--no-auth", action="store_true", help="no keys, though others can reach the address")
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="images may be fetched from there; may be repeated (nowhere)",
    )
    serve.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="URL",
        help="web pages of this origin may call; may be repeated (none)",
    )
    serve.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds a request may take (60)"
    )
    serve.add_argument(
        "--queue", type=_positive, default=80, metavar="N", help="images at once; more get 429 (80)"
    )
    _add_bundle(serve)

    demo = _command(
        commands,
        "demo",
        "photographs, their words and every reconstruction on one HTML page",
        "spae demo --output demo",
        _demo,
    )
    demo.add_argument(
        "--output", type=Path, default=Path("demo"), metavar="DIR", help="where to write (./demo)"
    )
    _add_bundle(demo)
    return parser


def _command(commands: Any, name: str, purpose: str, example: str, run: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".", epilog=f"example: {example}"
    )
    command.set_defaults(run=run)
    return command


def _add_layers(command: argparse.ArgumentParser) -> None:
    command.add_argument("--layers", type=_positive, metavar="N", help="only the first N layers")


def _add_json(command: argparse.ArgumentParser, purpose: str) -> None:
    command.add_argument("--json", action="store_true", help=purpose)


def _add_output(command: argparse.ArgumentParser, metavar: str, purpose: str) -> None:
    command.add_argument("-o", "--output", type=Path, required=True, metavar=metavar, help=purpose)


def _add_bundle(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--bundle", default="default", metavar="NAME_OR_PATH", help="the trained tokenizer (default)"
    )
