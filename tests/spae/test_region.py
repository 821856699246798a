"""What is looked at for a box or a mask, against pixels counted one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spae.errors import InputError
from spae.region import look

FINE = 8  # parts of a pixel; boxes begin and end on them


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@st.composite
def boxes(draw):
    """(height, width) of an image and a box on it, in eighths of a pixel."""
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    x, y = draw(st.integers(0, width * FINE - 1)), draw(st.integers(0, height * FINE - 1))
    w, h = draw(st.integers(1, width * FINE - x)), draw(st.integers(1, height * FINE - y))
    return height, width, (x, y, w, h)


@given(boxes(), st.integers(1, 5))
def test_cells_hold_the_share_of_the_box_that_lies_in_them(drawn, side):
    height, width, (x, y, w, h) = drawn
    found = look(picture(height, width), [v / FINE for v in (x, y, w, h)])
    fine = np.zeros((height * FINE, width * FINE))
    fine[y : y + h, x : x + w] = 1
    small, large = sorted((height * FINE, width * FINE))
    left, top = (width * FINE - small) // 2 // FINE * FINE, (height * FINE - small) // 2 // FINE * FINE
    inside = fine[top : top + small, left : left + small]
    if inside.sum() == fine.sum():
        square = inside
    else:
        square = np.zeros((large, large))
        left = (large - width * FINE) // 2 // FINE * FINE
        top = (large - height * FINE) // 2 // FINE * FINE
        square[top : top + height * FINE, left : left + width * FINE] = fine
    pixels = len(square) // FINE
    share = square.reshape(pixels, FINE, pixels, FINE).mean(axis=(1, 3))
    # Every pixel again in `side` parts, so that cells end where parts do.
    parts = share.repeat(side, axis=0).repeat(side, axis=1)
    cells = parts.reshape(side, pixels, side, pixels).mean(axis=(1, 3))
    np.testing.assert_allclose(found.cells(side), cells, atol=1e-6)
    assert found.square_hwc.shape == (pixels, pixels, 3)


def test_a_region_beside_the_central_square_shows_the_whole_image():
    image = picture(4, 8)
    inside, outside = look(image, (2, 0, 4, 4)), look(image, (0, 1, 3, 2))
    assert np.array_equal(inside.square_hwc, image[:, 2:6])
    assert (inside.share_hw == 1).all()
    assert np.array_equal(outside.square_hwc[2:6], image)
    assert np.ptp(outside.square_hwc[[0, 1, 6, 7]].reshape(-1, 3), axis=0).tolist() == [0, 0, 0]
    assert outside.share_hw.sum() == 6
    mask = np.zeros((4, 8), bool)
    mask[1:3, :3] = True
    assert np.array_equal(look(Image.fromarray(image), mask).share_hw, outside.share_hw)


def test_a_mask_with_a_hole():
    mask = np.ones((6, 6), bool)
    mask[2:4, 2:4] = False
    expected = np.ones((3, 3))
    expected[1, 1] = 0
    np.testing.assert_allclose(look(picture(6, 6), mask).cells(3), expected)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((0, 0, 9, 2), r"on the image of 8 x 6 pixels, .* got \(0, 0, 9, 2\)"),
        ((-1, 0, 2, 2), "on the image"),
        ((4, 4, 0, 2), "on the image"),
        ((4, 4, 2, -2), "on the image"),
        ((4, 4, 1e-16, 2), r"of 0\.001 a side at least"),  # which x + width does not see
        ((1, 2, 3), "four numbers"),
        ((1, 2, float("nan"), 4), "four numbers"),
        ("box", "four numbers"),
        (None, "four numbers"),
        (np.ones((8, 6), bool), r"6 x 8 pixels \(H, W\)"),
        (np.ones((6, 8)), "float64"),
        (np.zeros((6, 8), bool), "no pixel"),
    ],
)
def test_bad_regions_are_refused(region, message):
    with pytest.raises(InputError, match=message):
        look(picture(6, 8), region)
