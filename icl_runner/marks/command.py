"""`spae-icl mark`: a visual prompt drawn over a region of one image, and the phrase that points at it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from icl_runner.options import Switch, option, optional, whole
from spae.errors import InputError

if TYPE_CHECKING:
    from spae.region import Region

ALL = "all"

COLOURS = (
    "red, lime, blue, yellow, fuchsia, aqua, orange, purple, gold, or random, which the phrase does not name"
)


def _box(texts: list[str]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(number) for number in texts[0].split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise ValueError(f"wanted a box of four numbers X,Y,WIDTH,HEIGHT; got {texts[0]!r}")
    return numbers


BoxOption = Annotated[
    tuple[float, ...] | None,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="X,Y,WIDTH,HEIGHT",
        instance_from_str=_box,
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value or ()))],
    ),
    tyro.conf.arg(help_behavior_hint=""),
]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A mark drawn over a region of an image, and the phrase that points at it.

    example: spae-icl mark cat.jpg --shape arrow --box 40,30,120,90 -o marked.png
    """

    image: Annotated[Path, tyro.conf.Positional, option("IMAGE")]  # JPEG, PNG or WebP
    # the marked image: .png, .jpg or .webp
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")]
    box: BoxOption = None  # in pixels, from the upper left corner
    # an image of the same size: opaque where the region is, or light if it is opaque all over
    mask: Annotated[Path | None, optional("FILE")] = None
    # rectangle, ellipse, triangle, point, scribble, mask contour, mask or arrow (any of them); all: a sheet with each
    shape: Annotated[str | None, optional("SHAPE")] = None
    colour: Annotated[str | None, tyro.conf.arg(metavar="COLOUR", help=COLOURS, help_behavior_hint="")] = None
    # how much is covered, of 255 (96 to 255)
    alpha: Annotated[int | None, whole(1), optional("N")] = None
    # width of the lines in pixels (by the image's size)
    line: Annotated[int | None, whole(1), optional("PIXELS")] = None
    seed: int = 0  # of what is not given
    json: Switch = False  # print the phrase, shape, colour, rgb, alpha and line as JSON

    def __post_init__(self) -> None:
        if (self.box is None) == (self.mask is None):
            raise InputError("wanted one region: --box X,Y,WIDTH,HEIGHT or --mask FILE")

    def __call__(self) -> int:
        from PIL import Image

        from icl_runner.marks import visual_prompts
        from spae.commands.pictures import picture_format, save_picture
        from spae.images import open_image, open_mask

        form = picture_format(self.output, self.image)
        image = open_image(self.image)
        mask = None if self.mask is None else open_mask(self.mask)
        region: Region = (self.box or ()) if mask is None else mask
        if self.shape == ALL:
            if given := [name for name in ("colour", "alpha", "line", "json") if getattr(self, name)]:
                raise InputError(f"--shape all draws each shape by its own dice: leave out --{given[0]}")
            save_picture(visual_prompts.contact_sheet(image, region, seed=self.seed), self.output, form)
            return 0
        marked, mark = visual_prompts.mark(
            image, region, self.shape, self.colour, alpha=self.alpha, line=self.line, seed=self.seed
        )
        save_picture(Image.fromarray(marked), self.output, form)
        if self.json:
            facts = {
                name: getattr(mark, name) for name in ("phrase", "shape", "colour", "rgb", "alpha", "line")
            }
            print(json.dumps(facts))
        else:
            print(mark.phrase)
        return 0
