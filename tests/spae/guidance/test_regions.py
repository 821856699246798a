"""Which cells a region has, and its mean over them, against plain loops over fractions."""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spae.errors import InputError
from spae.guidance.regions import crop_regions, region_means, region_vectors, spans

LENGTHS = st.integers(1, 12)


def overlapped(i: int, side: int, length: int) -> list[int]:
    """The cells that have a part in common with part i, by their borders."""
    start, end = Fraction(i, side), Fraction(i + 1, side)
    return [c for c in range(length) if Fraction(c, length) < end and Fraction(c + 1, length) > start]


@given(LENGTHS, LENGTHS)
def test_spans_are_the_overlapped_cells_and_cover_the_map(side, length):
    if side > length:
        with pytest.raises(InputError, match=f"side of 1 to {length}, got {side}"):
            spans(side, length)
        return
    found = [list(range(first, end)) for first, end in spans(side, length)]
    assert found == [overlapped(i, side, length) for i in range(side)]
    assert {cell for part in found for cell in part} == set(range(length))
    assert len({tuple(part) for part in found}) == side


def test_spans_by_hand():
    assert spans(4, 7) == [(0, 2), (1, 4), (3, 6), (5, 7)]
    assert spans(2, 16) == [(0, 8), (8, 16)]


@pytest.mark.parametrize(("sides", "length"), [((1, 2, 4), 7), ((3,), 5), ((2, 1), 2)])
def test_means_are_over_each_regions_cells(sides, length):
    features = np.random.default_rng(0).normal(size=(2, length, length, 3)).astype(np.float32)
    expected = [
        [
            np.mean(
                [image[y, x] for y in overlapped(i, side, length) for x in overlapped(j, side, length)],
                axis=0,
            )
            for side in sides
            for i in range(side)
            for j in range(side)
        ]
        for image in features
    ]
    np.testing.assert_allclose(region_means(jnp.asarray(features), sides), expected, atol=1e-6)


class Corners:
    """A tower that sees no more than the mean colour of the enlarged crop, and its upper left pixel."""

    image_size, width = 4, 6

    def __call__(self, images_bhwc):
        return jnp.concatenate([images_bhwc.mean(axis=(1, 2)), images_bhwc[:, 0, 0]], axis=-1)

    def regions(self, images_bhwc, sides):
        raise NotImplementedError  # crops ask for no map


def test_crops_are_the_squares_of_the_centre_square():
    # Blocks of one colour, which are the regions of side 4.
    blocks = np.random.default_rng(1).random((2, 4, 4, 3)).astype(np.float32)
    square = blocks.repeat(4, axis=1).repeat(4, axis=2)
    wide = np.pad(square, ((0, 0), (0, 0), (3, 3), (0, 0)))
    found = np.asarray(region_vectors(Corners(), jnp.asarray(wide), (1, 2, 4), "crops"))
    assert found.shape == (2, 21, 6)
    for image, regions in zip(square, found, strict=True):
        expected = [
            image[i * 16 // side : (i + 1) * 16 // side, j * 16 // side : (j + 1) * 16 // side]
            for side in (1, 2, 4)
            for i in range(side)
            for j in range(side)
        ]
        means = np.array([crop.mean((0, 1)) for crop in expected])
        np.testing.assert_allclose(regions[:5, :3], means[:5], atol=0.03)  # shrunk by a bicubic kernel
        np.testing.assert_allclose(regions[5:, :3], means[5:], atol=1e-5)
        np.testing.assert_allclose(regions[5:, 3:], [crop[0, 0] for crop in expected[5:]], atol=1e-5)


def test_what_is_no_grid_is_refused():
    images = jnp.zeros((1, 8, 9, 3))
    with pytest.raises(InputError, match="side of 1 to 8, got 9"):
        crop_regions(Corners(), images, (1, 9), 4)
    with pytest.raises(InputError, match="side of 1 to 3, got 0"):
        region_means(jnp.zeros((1, 3, 3, 2)), (0,))
    for empty in (region_means, lambda images, sides: crop_regions(Corners(), images, sides, 4)):
        with pytest.raises(InputError, match="at least one grid"):
            empty(images, ())
    with pytest.raises(InputError, match="by map or by crops, not by 'tiles'"):
        region_vectors(Corners(), images, (1,), "tiles")
