"""`spae encode`, `decode` and `draw`: one picture or clip, or some, and their words."""

import argparse
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spae.commands.options import (
    add_bundle,
    add_command,
    add_json,
    add_layers,
    add_output,
    model_name,
    tokenizer_of,
)
from spae.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

    from spae.text import Parsed
    from spae.tokenizer import Tokenizer

BATCH = 32
CLIP_BATCH = 4
CLIP_RATE = (
    8.0  # frames a second of a written clip, where the bundle does not say how fast it was trained to read
)
PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def add(commands: Any) -> None:
    encode = add_command(
        commands,
        "encode",
        "an image to words, one line for each layer",
        "spae encode cat.jpg --layers 3",
        _encode,
    )
    encode.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="JPEG, PNG or WebP; for a bundle of clips a video file or a folder of frames, read in the middle",
    )
    add_layers(encode)
    add_json(
        encode, "one JSON object a line: image, model, and of each layer height, width (or grid), words, ids"
    )
    add_bundle(encode)

    decode = add_command(
        commands, "decode", "words to an image", "spae encode cat.jpg | spae decode - -o back.png", _decode
    )
    decode.add_argument(
        "text", metavar="TEXT_OR_FILE", help="words, a file of words or of JSON, or - for stdin"
    )
    add_output(
        decode,
        "OUT.png",
        "the image to write (.png, .jpg, .webp); a clip as .gif, .mp4 or a folder of frames",
    )
    add_layers(decode)
    decode.add_argument(
        "--strict", action="store_true", help="refuse words that are missing, unknown or too many"
    )
    add_json(decode, "print the words used, and the repairs, as JSON")
    add_bundle(decode)

    draw = add_command(
        commands,
        "draw",
        "the pyramid as a picture: words in place, and what every prefix decodes to",
        "spae draw cat.jpg -o pyramid.png",
        _draw,
    )
    draw.add_argument("image", metavar="IMAGE", help="JPEG, PNG or WebP")
    add_output(draw, "OUT.png", "the picture to write (.png, .jpg, .webp)")
    add_layers(draw)
    add_bundle(draw)


def _encode(options: argparse.Namespace) -> int:
    from spae.progress import Progress

    tokenizer = tokenizer_of(options)
    read = reader(tokenizer)
    batch = BATCH if tokenizer.frames == 1 else CLIP_BATCH
    failed = False
    several = len(options.images) > 1
    with Progress(len(options.images), "images", "image") as progress:
        for start in range(0, len(options.images), batch):
            opened = []
            for path in options.images[start : start + batch]:
                try:
                    opened.append((path, read(path)))
                except InputError as error:
                    failed = True
                    progress.print(f"spae: {error}", sys.stderr)
            pyramids = tokenizer.encode([image for _, image in opened]) if opened else []
            for (path, _), pyramid in zip(opened, pyramids, strict=True):
                # A name that is not UTF-8 is written as \udcNN, as bulk does.
                path = path.encode(errors="backslashreplace").decode()
                pyramid = pyramid.prefix(options.layers or pyramid.layers)
                if options.json:
                    record = {"image": path, "model": model_name(options), "layers": pyramid.json()}
                    progress.print(json.dumps(record, ensure_ascii=False), sys.stdout)
                else:
                    heading = f"{path}:\n" if several else ""
                    lines = "\n".join(" ".join(words) for words in pyramid.words())
                    progress.print(heading + lines, sys.stdout)
            progress.update(len(options.images[start : start + batch]))
    return 1 if failed else 0


def reader(tokenizer: "Tokenizer") -> Callable[[str], Any]:
    """What opens the file of an image, or of a clip, for this tokenizer."""
    from spae.images import open_image
    from spae.sources.films import is_film

    size = tokenizer.image_size
    if tokenizer.frames > 1:
        from spae.sources.clips import read_clip, trained_sampling

        sampling = trained_sampling(tokenizer.info, tokenizer.frames)
        return lambda path: read_clip(path, size, sampling)

    def read(path: str) -> Any:
        if is_film(path) or os.path.isdir(path):
            raise InputError(
                f"the bundle is of images, and {path} is a film or a folder: give a bundle of clips"
            )
        # Cut at once: a batch of whole photographs would take gigabytes.
        return tokenizer.square(open_image(path, tokenizer.sight))

    return read


def _decode(options: argparse.Namespace) -> int:
    from PIL import Image

    from spae.sources.clips import trained_sampling
    from spae.sources.films import check_output, write_film

    text = _text(options.text)
    clip_output = options.output.suffix.lower() in ("", ".gif", ".mp4")
    if clip_output:
        check_output(options.output)
    form = "" if clip_output else picture_format(options.output)
    tokenizer = tokenizer_of(options)
    if clip_output != (tokenizer.frames > 1):
        kind, wanted = ("images", ".png") if tokenizer.frames == 1 else ("clips", ".gif, .mp4 or a folder")
        raise InputError(f"the bundle is of {kind}: wanted an output such as {wanted}, got {options.output}")
    parsed = tokenizer.parse(text, options.layers)
    if options.strict:
        parsed.strict()
    decoded = tokenizer.decode(parsed.pyramid)
    if clip_output:
        write_film(
            options.output, decoded, trained_sampling(tokenizer.info, tokenizer.frames).fps or CLIP_RATE
        )
    else:
        save_picture(Image.fromarray(decoded), options.output, form)
    _report(parsed, options)
    return 0


def _report(parsed: "Parsed", options: argparse.Namespace) -> None:
    """What was decoded, as JSON, or on stderr what was repaired; there always what it comes to."""
    repairs: list[dict[str, Any]] = [
        asdict(repair)
        for repair in parsed.repairs
        if repair.kind != "whitespace"  # line breaks are how encode prints layers; they are nothing to repair
    ]
    if options.json:
        record = {
            "output": str(options.output),
            "model": model_name(options),
            "layers": parsed.pyramid.json(),
            "repairs": repairs,
        }
        print(json.dumps(record, ensure_ascii=False))
    else:
        around: Counter[str] = Counter()
        for repair in repairs:
            if repair["kind"] in ("missing", "surplus"):  # counted below
                continue
            if not repair["used"]:
                around[repair["kind"]] += 1
                continue
            line = f"{repair['kind']} {repair['found']!r}, used {repair['used']!r}"
            print(f"spae: repaired word {repair['position'] + 1}: {line}", file=sys.stderr)
        if around:
            told = ", ".join(f"{kind} ({count})" for kind, count in around.items())
            print(f"spae: left out around the words: {told}", file=sys.stderr)
    if parsed.doubtful:
        print(f"spae: warning: {parsed.account} (--strict refuses such text)", file=sys.stderr)
    elif parsed.account:
        print(f"spae: {parsed.account}", file=sys.stderr)


def _draw(options: argparse.Namespace) -> int:
    from spae.draw import draw_pyramid
    from spae.images import open_image
    from spae.sources.clips import refuse_clips

    form = picture_format(options.output, options.image)
    image = open_image(options.image)
    tokenizer = tokenizer_of(options)
    refuse_clips(tokenizer, "spae draw")
    pyramid = tokenizer.encode(image)
    pyramid = pyramid.prefix(options.layers or pyramid.layers)
    reconstructions = [tokenizer.decode(pyramid, layers) for layers in range(1, pyramid.layers + 1)]
    save_picture(draw_pyramid(image, pyramid, reconstructions), options.output, form)
    return 0


def _text(argument: str) -> str:
    """The words: the argument itself, or of a file (text, or JSON of `spae encode --json`), or of stdin."""
    from spae.unicode import check_unicode

    if argument == "-" or os.path.isfile(argument):
        try:
            text = sys.stdin.read() if argument == "-" else Path(argument).read_text("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{argument} is not text in UTF-8: wanted words, or JSON of spae encode"
            ) from error
    elif (
        len(argument.split()) == 1
        and not argument.startswith(("<", "{", "["))  # marks, or JSON
        and ("/" in argument or argument.endswith((".txt", ".json")))
    ):
        raise InputError(f"no file at {argument}: give words, a file of words, or - for standard input")
    else:
        text = argument
    check_unicode(text, "text")
    return text


def picture_format(output: Path, image: str | Path | None = None) -> str:
    """Checked before the work is done, not after it; `image`: what is read, which is not to be written over."""
    form = PICTURE_FORMATS.get(output.suffix.lower())
    if form is None:
        raise InputError(f"wanted an output file ending {', '.join(PICTURE_FORMATS)}, got {output}")
    if not output.parent.is_dir():
        raise InputError(f"cannot write {output}: there is no folder {output.parent}")
    if image is not None and output.exists() and os.path.exists(image) and output.samefile(image):
        raise InputError(f"{output} is the image that is read: give another file to write")
    return form


def save_picture(image: "Image.Image", output: Path, form: str) -> None:
    from spae.files import write_file

    buffer = io.BytesIO()
    image.save(buffer, form)
    write_file(output, buffer.getvalue())
