"""Visual prompts: marks drawn over a region of an image, and the phrase that points at them.

ViP-LLaVA's (arXiv 2312.00784, section 3.1): its shapes (`icl_runner.marks.shapes`), colours and transparencies. All is
drawn by `icl_runner.dice`: the same seed gives the same bytes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps

from icl_runner.dice import Dice
from icl_runner.marks.shapes import LINES, SHAPES, Place
from spae import draw
from spae.errors import InputError
from spae.images import to_rgb
from spae.region import Region

COLOURS = {
    "red": (255, 0, 0),
    "lime": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "fuchsia": (255, 0, 255),
    "aqua": (0, 255, 255),
    "orange": (255, 165, 0),
    "purple": (128, 0, 128),
    "gold": (255, 215, 0),
}
RANDOM = "random"  # any colour, which the phrase does not name
_ALPHA, _ALPHA_MASK = (96, 255), (48, 128)
_REGION = re.compile(r"<(?:region|bbox)(\d*)>")
_CELL = 336  # longest side of a picture on the contact sheet


@dataclass(frozen=True, eq=False)
class Mark:
    """What was drawn.

    Args:
        shape: one of SHAPES.
        colour: one of COLOURS; None for a colour that no word was drawn for.
        rgb: the colour, 0..255.
        alpha: how much of each pixel is covered, 1..255 of 255.
        line: width of its lines in pixels; 0 where it has none.
        pixels: the pixels under it; no other was changed.
    """

    shape: str
    colour: str | None
    rgb: tuple[int, int, int]
    alpha: int
    line: int
    pixels: Bool[np.ndarray, "h w"]

    @property
    def phrase(self) -> str:
        """Such as "within the red rectangle"."""
        return " ".join(filter(None, (SHAPES[self.shape], "the", self.colour, self.shape)))


def mark(
    image: Image.Image | UInt8[np.ndarray, "h w 3"],
    region: Region,
    shape: str | None = None,
    colour: str | None = None,
    *,
    alpha: int | None = None,
    line: int | None = None,
    seed: int | str = 0,
) -> tuple[UInt8[np.ndarray, "h w 3"], Mark]:
    """An image with a mark over a region of it.

    Args:
        image: PIL image, or uint8 (h, w, 3).
        region: box (x, y, width, height) in pixels, or mask, bool (h, w).
        shape: one of SHAPES; drawn by default, of those that the region allows.
        colour: one of COLOURS, or RANDOM; drawn of COLOURS by default.
        alpha: 1..255; drawn from 96..255 by default (of a mask 48..128).
        line: width in pixels; drawn by default, as published.

    Raises:
        InputError: no image; a region as `spae.region.check` refuses it; an unknown shape or colour; a number out of
            range; a shape that needs a mask over a box; a triangle over a region that has no room for one.
    """
    pixels_hwc = to_rgb(image)
    place = Place(region, *pixels_hwc.shape[:2])
    dice = Dice("mark", seed)
    shape = _known(dice.choose("shape", place.shapes, 1)[0] if shape is None else shape, SHAPES, "shape")
    if colour is None:
        colour = dice.choose("colour", list(COLOURS), 1)[0]
    colour = _known(colour, (*COLOURS, RANDOM), "colour")
    if colour == RANDOM:
        rgb = (dice.whole("red", 0, 255), dice.whole("green", 0, 255), dice.whole("blue", 0, 255))
    else:
        rgb = COLOURS[colour]
    if alpha is None:
        alpha = dice.whole("alpha", *(_ALPHA_MASK if shape == "mask" else _ALPHA))
    if not 1 <= alpha <= 255:
        raise InputError(f"wanted an alpha of 1 to 255, got {alpha}")
    width = _line(line, shape, place, dice)
    drawn = place.draw(shape, width, dice)
    found = Mark(shape, None if colour == RANDOM else colour, rgb, alpha, width, drawn)
    return blend(pixels_hwc, drawn, rgb, alpha), found


def mark_all(
    image: Image.Image | UInt8[np.ndarray, "h w 3"],
    regions: Sequence[Region],
    shapes: Sequence[str] = tuple(SHAPES),
    *,
    seed: int | str = 0,
) -> tuple[UInt8[np.ndarray, "h w 3"], list[Mark]]:
    """An image with a mark over each region, one after the other; no two of the phrases are the same.

    `shapes`: those to draw from; over a box those of them that need no mask.

    Raises:
        InputError: as `mark`; more regions than there are different phrases for (54 boxes, 72 masks).
    """
    pixels_hwc = to_rgb(image)
    for shape in shapes:
        _known(shape, SHAPES, "shape")
    dice = Dice("marks", seed)
    left = dice.choose("phrases", [(s, c) for s in shapes for c in COLOURS], len(shapes) * len(COLOURS))
    marks = []
    for number, region in enumerate(regions):
        possible = Place(region, *pixels_hwc.shape[:2]).shapes
        pair = next((pair for pair in left if pair[0] in possible), None)
        if pair is None:
            raise InputError(
                f"there are not enough different phrases for {len(regions)} regions: region {number + 1} finds none "
                f"left of the {len(COLOURS)} colours and of {', '.join(shapes)}; mark fewer"
            )
        left.remove(pair)
        pixels_hwc, found = mark(pixels_hwc, region, *pair, seed=f"{seed} {number}")
        marks.append(found)
    return pixels_hwc, marks


def point_out(text: str, phrases: Sequence[str]) -> str:
    """`text` with a phrase for every `<region>` (or ViP-LLaVA's `<bbox>`): the first one, or with a number, counted
    from 0, that one.

    Raises:
        InputError: a number that is none of a phrase.
    """

    def phrase(found: re.Match[str]) -> str:
        number = int(found[1] or 0)
        if number >= len(phrases):
            raise InputError(
                f"{found[0]} points at region {number}, there are {len(phrases)}, counted from 0"
            )
        return phrases[number]

    return _REGION.sub(phrase, text)


def blend(
    image: UInt8[np.ndarray, "h w 3"], pixels: Bool[np.ndarray, "h w"], rgb: tuple[int, int, int], alpha: int
) -> UInt8[np.ndarray, "h w 3"]:
    """X' = a P + (1 - a) X, a = alpha / 255, rounded, at `pixels`; all others stay byte for byte."""
    result = image.copy()
    under = image[pixels].astype(np.uint32)
    result[pixels] = (alpha * np.array(rgb, np.uint32) + (255 - alpha) * under + 127) // 255
    return result


def contact_sheet(
    image: Image.Image | UInt8[np.ndarray, "h w 3"], region: Region, *, seed: int | str = 0
) -> Image.Image:
    """All shapes that a region allows, six over a box and eight over a mask, each with its phrase below.

    Raises:
        InputError: as `mark`.
    """
    pixels_hwc = to_rgb(image)
    cells = []
    for number, shape in enumerate(Place(region, *pixels_hwc.shape[:2]).shapes):
        marked, found = mark(pixels_hwc, region, shape, seed=f"{seed} {number}")
        cells.append((ImageOps.contain(Image.fromarray(marked), (_CELL, _CELL)), found.phrase))
    columns = min(4, len(cells))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return draw.sheet(rows, columns * (_CELL + draw.GAP) - draw.GAP)


def _line(asked: int | None, shape: str, place: Place, dice: Dice) -> int:
    """The width of a mark's lines in pixels; 0 of shapes without."""
    if shape not in LINES:
        if asked is not None:
            raise InputError(f"a {shape} has no lines, got a width of {asked}: leave it out")
        return 0
    if asked is None:
        least, most = LINES[shape]
        return max(1, dice.whole("line", int(least * place.unit), int(most * place.unit)))
    longest = max(place.width, place.height)
    if not 1 <= asked <= longest:
        raise InputError(f"wanted lines of 1 to {longest} pixels, got {asked}")
    return asked


def _known(name: str, known: Sequence[str] | dict[str, str], what: str) -> str:
    if name not in known:
        raise InputError(f"unknown {what} {name!r}: wanted one of {', '.join(known)}")
    return name
