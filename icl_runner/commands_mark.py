"""`spae-icl mark`: a visual prompt drawn over a region of one image, and the phrase that points at it."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spae.commands.options import add_command, add_json, add_output, positive

if TYPE_CHECKING:
    from spae.region import Region

ALL = "all"


def add(commands: Any) -> None:
    mark = add_command(
        commands,
        "mark",
        "a mark drawn over a region of an image, and the phrase that points at it",
        "spae-icl mark cat.jpg --shape arrow --box 40,30,120,90 -o marked.png",
        run,
    )
    mark.add_argument("image", metavar="IMAGE", help="JPEG, PNG or WebP")
    region = mark.add_mutually_exclusive_group(required=True)
    region.add_argument(
        "--box", type=_box, metavar="X,Y,WIDTH,HEIGHT", help="in pixels, from the upper left corner"
    )
    region.add_argument(
        "--mask", type=Path, metavar="FILE", help="an image of the same size, light where the region is"
    )
    mark.add_argument(
        "--shape",
        metavar="SHAPE",
        help="rectangle, ellipse, triangle, point, scribble, mask contour, mask or arrow (any of them); all: a sheet "
        "with each",
    )
    mark.add_argument(
        "--colour",
        metavar="COLOUR",
        help="red, lime, blue, yellow, fuchsia, aqua, orange, purple, gold, or random, which the phrase does not name "
        "(any of them)",
    )
    mark.add_argument("--alpha", type=positive, metavar="N", help="how much is covered, of 255 (96 to 255)")
    mark.add_argument(
        "--line", type=positive, metavar="PIXELS", help="width of the lines (by the image's size)"
    )
    mark.add_argument("--seed", type=int, default=0, metavar="N", help="of what is not given (0)")
    add_output(mark, "FILE", "the marked image: .png, .jpg or .webp")
    add_json(mark, "print the phrase, shape, colour, rgb, alpha and line as JSON")


def run(options: argparse.Namespace) -> int:
    from PIL import Image

    from icl_runner import visual_prompts
    from spae.commands.pictures import picture_format, save_picture
    from spae.errors import InputError
    from spae.images import open_image

    form = picture_format(options.output)
    image = open_image(options.image)
    region = options.box if options.mask is None else _mask(options.mask)
    if options.shape == ALL:
        given = [name for name in ("colour", "alpha", "line", "json") if getattr(options, name)]
        if given:
            raise InputError(f"--shape all draws each shape by its own dice: leave out --{given[0]}")
        save_picture(visual_prompts.contact_sheet(image, region, seed=options.seed), options.output, form)
        return 0
    marked, mark = visual_prompts.mark(
        image,
        region,
        options.shape,
        options.colour,
        alpha=options.alpha,
        line=options.line,
        seed=options.seed,
    )
    save_picture(Image.fromarray(marked), options.output, form)
    if options.json:
        facts = {name: getattr(mark, name) for name in ("phrase", "shape", "colour", "rgb", "alpha", "line")}
        print(json.dumps(facts))
    else:
        print(mark.phrase)
    return 0


def _mask(path: Path) -> "Region":
    import numpy as np

    from spae.images import open_image

    return np.array(open_image(path).convert("L")) >= 128


def _box(text: str) -> tuple[float, ...]:
    numbers = tuple(float(number) for number in text.split(","))
    if len(numbers) != 4:
        raise ValueError
    return numbers


_box.__name__ = "box of four numbers X,Y,WIDTH,HEIGHT"
