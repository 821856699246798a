"""A pyramid as one picture: words over their places, layer by layer, and what every prefix decodes to."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from spae.errors import InputError
from spae.images import to_array
from spae.pyramid import Pyramid

Picture = Image.Image | UInt8[np.ndarray, "h w 3"]

# All in pixels.
WIDTH = 2328  # of what lies between the margins; seven, four and two pictures fill it exactly
MARGIN = 48
GAP = 24
CAPTION = 40  # the line under each picture
SMALL = 312  # side of the original and of the reconstructions, at most

PAPER, INK, FAINT = (250, 250, 247), (24, 26, 30), (110, 114, 122)


def draw_pyramid(
    image: Picture, pyramid: Pyramid, reconstructions: Sequence[UInt8[np.ndarray, "s s 3"]]
) -> Image.Image:
    """The original and what every prefix decodes to, in a row; below it the words of each layer, in place.

    Args:
        image: the original, of any size; its central square is shown.
        pyramid: its words, on 2-D layers.
        reconstructions: what the first 1, 2, .. `pyramid.layers` layers decode to.

    Returns:
        An RGB picture, 2424 pixels wide for the default pyramid, narrower for a few layers.

    Raises:
        InputError: not one reconstruction for every prefix, or layers that are not 2-D.
    """
    if len(reconstructions) != pyramid.layers:
        wanted = f"{pyramid.layers} reconstructions, one for every prefix"
        raise InputError(f"wanted {wanted}, got {len(reconstructions)}")
    if len(pyramid.shape.grid) != 2:
        raise InputError(f"only 2-D layers can be drawn, got a grid of {pyramid.shape.grid}")

    rows: list[list[tuple[Image.Image, str]]] = [[]]
    for number, words in enumerate(pyramid.words(), start=1):
        side = _panel_side(pyramid.shape.layers[number - 1])
        panel = _words_in_place(image, words, pyramid.shape.layers[number - 1], side)
        if rows[-1] and _row_width(rows[-1]) + GAP + side > WIDTH:
            rows.append([])
        rows[-1].append((panel, f"layer {number}"))
    width = max(_row_width(row) for row in rows)

    count = len(reconstructions) + 1
    width = max(width, min(count * (SMALL + GAP) - GAP, WIDTH))
    side = min(SMALL, (width + GAP) // count - GAP)
    pictures = [(_square(image, side), "original")]
    for number, reconstruction in enumerate(reconstructions, start=1):
        tokens = pyramid.shape.tokens(number)
        pictures.append((_square(reconstruction, side), f"{tokens} word{'s' if tokens > 1 else ''}"))
    return sheet([pictures, *rows], width)


def _panel_side(grid: tuple[int, ...]) -> int:
    """Four panels in a row while words have room, then two, then one."""
    cells = max(grid)
    panels = 4 if cells <= 8 else 2 if cells <= 16 else 1
    return (WIDTH + GAP) // panels - GAP


def _row_width(row: list[tuple[Image.Image, str]]) -> int:
    return sum(picture.width + GAP for picture, _ in row) - GAP


def sheet(rows: list[list[tuple[Image.Image, str]]], width: int) -> Image.Image:
    """Rows of pictures, each with a line of text under it; `width`: of the widest row, GAP between pictures."""
    heights = [max(picture.height for picture, _ in row) + CAPTION + GAP for row in rows]
    sheet = Image.new("RGB", (width + 2 * MARGIN, sum(heights) - GAP + 2 * MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        left = MARGIN
        for picture, caption in row:
            sheet.paste(picture, (left, top))
            draw.text((left, top + picture.height + 8), caption, FAINT, _font(24))
            left += picture.width + GAP
        top += height
    return sheet


def _square(image: Picture, side: int) -> Image.Image:
    return Image.fromarray(to_array(image, side))


def _words_in_place(image: Picture, words: list[str], grid: tuple[int, ...], side: int) -> Image.Image:
    """The image as a mosaic of the layer's grid, and in each tile its word."""
    rows, columns = grid
    mosaic = np.asarray(_square(image, side).resize((columns, rows), Image.Resampling.BOX))
    panel = Image.new("RGB", (side, side), PAPER)
    draw = ImageDraw.Draw(panel)
    # Tiles end where the next begin, also where the side is no multiple of the grid; a hair of paper between.
    x = [round(side * i / columns) for i in range(columns + 1)]
    y = [round(side * i / rows) for i in range(rows + 1)]
    for place, word in enumerate(words):
        i, j = divmod(place, columns)
        red, green, blue = mosaic[i, j].tolist()
        colour = (red, green, blue)
        draw.rectangle((x[j], y[i], x[j + 1] - 2, y[i + 1] - 2), fill=colour)
        width, height = x[j + 1] - x[j], y[i + 1] - y[i]
        size = min(0.9 * width / _relative_width(word), 0.3 * height, 96)
        middle = ((x[j] + x[j + 1] - 2) / 2, (y[i] + y[i + 1] - 2) / 2)
        draw.text(middle, word, _readable_on(colour), _font(max(6, int(size))), anchor="mm")
    return panel


def _readable_on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever has the larger contrast (WCAG 2.1, relative luminance)."""
    linear = [(c / 255 + 0.055) ** 2.4 / 1.055**2.4 if c > 10 else c / 255 / 12.92 for c in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if luminance > 0.179 else (255, 255, 255)


@lru_cache(maxsize=128)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@lru_cache(maxsize=8192)
def _relative_width(word: str) -> float:
    """Width of a word in units of the font's size."""
    return max(_font(100).getlength(word) / 100, 0.1)
