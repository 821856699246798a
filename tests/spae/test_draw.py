"""The drawn pyramid: every part in its place, readable, and nothing else accepted."""

from types import SimpleNamespace

import numpy as np
import pytest

from spae import draw
from spae.draw import draw_pyramid
from spae.errors import InputError
from spae.pyramid import Pyramid, PyramidShape

SHAPE = PyramidShape((1, 2, 4))
WORDS = SimpleNamespace(words=("dog", "grass", "incomprehensibilities", "sky"))
# Left half red, right half pale.
IMAGE = np.zeros((32, 32, 3), np.uint8)
IMAGE[:, :16] = (200, 10, 20)
IMAGE[:, 16:] = (240, 250, 230)


def pyramid(layers: int = 3, word: int = 0) -> Pyramid:
    return Pyramid(tuple(np.full(grid, word) for grid in SHAPE.layers[:layers]), SHAPE, WORDS)


def reconstructions(layers: int = 3) -> list[np.ndarray]:
    return [np.full((16, 16, 3), 40 * (layer + 1), np.uint8) for layer in range(layers)]


def test_parts_are_where_they_belong():
    sheet = np.asarray(draw_pyramid(IMAGE, pyramid(), reconstructions()))
    middle = draw.MARGIN + draw.SMALL // 2
    for number in range(3):
        left = draw.MARGIN + (number + 1) * (draw.SMALL + draw.GAP)
        assert sheet[middle, left + 100].tolist() == [40 * (number + 1)] * 3
    # The panel of layer 2: its left tiles have the left half's colour, its right ones the right half's.
    side = draw._panel_side((2, 2))
    top = draw.MARGIN + draw.SMALL + draw.CAPTION + draw.GAP
    left = draw.MARGIN + side + draw.GAP
    np.testing.assert_allclose(sheet[top + 10, left + 10], (200, 10, 20), atol=4)
    np.testing.assert_allclose(sheet[top + 10, left + side - 12], (240, 250, 230), atol=4)


def test_full_pyramid_fills_the_width():
    shape = PyramidShape((1, 2, 4, 8, 16, 16))
    full = Pyramid(tuple(np.zeros(grid, int) for grid in shape.layers), shape, WORDS)
    sheet = draw_pyramid(IMAGE, full, reconstructions(6))
    assert sheet.width == draw.WIDTH + 2 * draw.MARGIN
    assert sheet.mode == "RGB"


def test_words_are_drawn_and_differ():
    one = np.asarray(draw_pyramid(IMAGE, pyramid(word=0), reconstructions()))
    other = np.asarray(draw_pyramid(IMAGE, pyramid(word=1), reconstructions()))
    assert one.shape == other.shape
    assert (one != other).any()


@pytest.mark.parametrize("word", [0, 2])
def test_words_stay_inside_their_tiles(word):
    panel = np.asarray(draw._words_in_place(IMAGE, [WORDS.words[word]] * 16, (4, 4), 400))
    for line in (99, 199, 299, 399):
        assert (panel[:, line] == draw.PAPER).all()
        assert (panel[line] == draw.PAPER).all()
    tile = panel[:99, :99].reshape(-1, 3)
    assert len(np.unique(tile, axis=0)) > 3


@pytest.mark.parametrize(
    ("colour", "dark_ink"), [((255, 255, 255), True), ((0, 0, 0), False), ((0, 200, 0), True)]
)
def test_ink_contrasts(colour, dark_ink):
    assert (draw._readable_on(colour) == draw.INK) == dark_ink


def test_refuses():
    with pytest.raises(InputError, match="3 reconstructions"):
        draw_pyramid(IMAGE, pyramid(), reconstructions(2))
    video = PyramidShape(((1, 1, 1), (2, 2, 2)))
    flat = Pyramid(tuple(np.zeros(grid, int) for grid in video.layers), video, WORDS)
    with pytest.raises(InputError, match="2-D"):
        draw_pyramid(IMAGE, flat, reconstructions(2))
