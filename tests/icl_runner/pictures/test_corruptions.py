"""Corruptions against slow NumPy and against what must hold of them; words replaced."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_runner.pictures.corruptions import CORRUPTIONS, corrupt, replace_words, strengths
from spae.errors import InputError
from spae.pyramid import Pyramid, PyramidShape
from spae.vocabulary import View, Vocabulary

SHAPE = PyramidShape((1, 2, 4))


def photograph(height=20, width=24, seed=0):
    """Smooth with some noise, so that no two rows or channels are alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = np.stack([np.sin(3 * y + x), np.cos(4 * x), np.sin(5 * x * y)], -1)
    return np.clip(128 + 90 * waves + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def close(image, expected):
    """Equal up to the rounding of one level where a value lies on the edge."""
    return np.abs(image.astype(float) - np.clip(expected, 0, 255)).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_strength_zero_changes_nothing_and_more_strength_changes_more(kind):
    image = photograph(32, 32)
    kept = image.copy()
    assert np.array_equal(corrupt(image, kind, 0.0), image)
    errors = []
    for strength in (0.2, 0.4, 0.7, 1.0):
        worse = corrupt(image, kind, strength)
        assert (worse.dtype, worse.shape) == (np.uint8, image.shape)
        errors.append(np.abs(worse.astype(float) - image).mean())
    assert errors[0] > 0
    # Turning by 180 degrees may well come nearer than by 126.
    assert errors == sorted(errors) or kind in ("rotation", "colour")
    assert np.array_equal(image, kept)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_images_of_any_size_and_constant_images(kind):
    for shape in ((1, 1, 3), (7, 3, 3), (64, 28, 3)):
        assert corrupt(np.full(shape, 200, np.uint8), kind, 0.7).shape == shape


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_only_noise_depends_on_the_seed(kind):
    image = photograph()
    first, again, other = (corrupt(image, kind, 0.4, seed) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (kind != "denoise")


def test_brightness():
    image = photograph()
    assert close(corrupt(image, "brightness", 0.3), image * 0.7)
    assert corrupt(image, "brightness", 1.0).max() == 0


def test_colour_turns_the_primaries_into_each_other_and_fades_them():
    # 2/3 of a half turn is 120 degrees: red to green; saturation is then 2/3.
    red = np.zeros((1, 1, 3), np.uint8)
    red[0, 0, 0] = 240
    luma = 0.587 * 240
    expected = luma + 2 / 3 * (np.array([0, 240, 0]) - luma)
    assert close(corrupt(red, "colour", 2 / 3), expected)
    grey = np.full((4, 4, 3), 77, np.uint8)
    assert np.array_equal(corrupt(grey, "colour", 0.8), grey)


def test_pixelation_gives_means_of_cells():
    image = photograph(64, 64)
    # 64 ** 0.5 * 4 ** 0.5 = 16 cells of 4 pixels.
    slow = np.zeros(image.shape)
    for i in range(0, 64, 4):
        for j in range(0, 64, 4):
            slow[i : i + 4, j : j + 4] = image[i : i + 4, j : j + 4].reshape(-1, 3).mean(0)
    # Pillow rounds twice, after the rows and after the columns.
    assert np.abs(corrupt(image, "pixelation", 0.5) - slow).max() <= 1.0
    assert len(np.unique(corrupt(image, "pixelation", 1.0).reshape(-1, 3), axis=0)) <= 16


def test_rotation_by_quarter_and_half_turns():
    image = photograph(16, 16)
    assert np.array_equal(corrupt(image, "rotation", 0.5), np.rot90(image))
    assert np.array_equal(corrupt(image, "rotation", 1.0), np.rot90(image, 2))
    assert corrupt(image, "rotation", 0.25)[0, 0].tolist() == [0, 0, 0]


def test_translation():
    image = photograph(20, 24)
    moved = corrupt(image, "translation", 0.5)
    assert np.array_equal(moved[5:, 6:], image[:15, :18])
    assert moved[:5].max() == moved[:, :6].max() == 0


def test_inpainting_and_outpainting_hide_complementary_parts():
    image = photograph(20, 24)
    inside = corrupt(image, "inpainting", 0.5)
    box = np.zeros((20, 24), bool)
    box[5:15, 6:18] = True
    assert (inside[box] == 128).all()
    assert np.array_equal(inside[~box], image[~box])
    outside = corrupt(image, "outpainting", 0.5)
    assert (outside[~box] == 128).all()
    assert np.array_equal(outside[box], image[box])


def test_blur_against_a_slow_convolution():
    image = photograph(16, 18)
    sigma = 0.8 * 16 / 16
    radius = int(np.ceil(4 * sigma))
    offsets = range(-radius, radius + 1)
    weights = np.array([[np.exp(-(i * i + j * j) / (2 * sigma**2)) for j in offsets] for i in offsets])
    weights /= weights.sum()
    slow = np.zeros(image.shape)
    for y in range(16):
        for x in range(18):
            for i in offsets:
                for j in offsets:
                    near = image[min(max(y + i, 0), 15), min(max(x + j, 0), 17)]
                    slow[y, x] += weights[i + radius, j + radius] * near
    assert close(corrupt(image, "deblur", 0.8), slow)


def test_noise_has_the_stated_width_and_no_bias():
    image = np.full((64, 64, 3), 128, np.uint8)
    noise = corrupt(image, "denoise", 0.2, 3).astype(float) - 128
    assert noise.std() == pytest.approx(0.2 * 128, rel=0.03)
    assert abs(noise.mean()) < 1


@pytest.mark.parametrize(
    ("image", "kind", "strength"),
    [
        (np.zeros((4, 4, 3)), "deblur", 0.5),
        (np.zeros((4, 4), np.uint8), "deblur", 0.5),
        ("photo.png", "deblur", 0.5),
        (np.zeros((4, 4, 3), np.uint8), "sharpen", 0.5),
        (np.zeros((4, 4, 3), np.uint8), "deblur", 1.01),
        (np.zeros((4, 4, 3), np.uint8), "deblur", float("nan")),
        (np.zeros((4, 4, 3), np.uint8), "deblur", "much"),
    ],
)
def test_wrong_input_is_refused(image, kind, strength):
    with pytest.raises(InputError, match="wanted"):
        corrupt(image, kind, strength)


def pyramid_and_vocabulary(size=8, seed=0):
    views = {"meaning": View.raw(), "appearance": View.raw()}
    words = tuple(f"word{i}" for i in range(size))
    vocabulary = Vocabulary(words, np.arange(size), np.eye(size, dtype=np.float32), views, {})
    rng = np.random.default_rng(seed)
    return Pyramid(tuple(rng.integers(0, size, grid) for grid in SHAPE.layers), SHAPE, vocabulary), vocabulary


def different(first, second):
    return sum(int((a != b).sum()) for a, b in zip(first.ids, second.ids, strict=True))


@given(st.floats(0, 1), st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_exactly_the_share_of_words_is_replaced(share, seed, size):
    pyramid, vocabulary = pyramid_and_vocabulary(size)
    replaced = replace_words(pyramid, share, vocabulary, seed)
    assert different(pyramid, replaced) == round(share * 21)
    assert replaced == replace_words(pyramid, share, vocabulary, seed)
    assert replaced.words() != pyramid.words() or round(share * 21) == 0


def test_smaller_shares_are_part_of_larger_ones_and_words_are_drawn_uniformly():
    pyramid, vocabulary = pyramid_and_vocabulary(4)
    half, most = (replace_words(pyramid, share, vocabulary, 1) for share in (0.5, 0.9))
    for clean, some, more in zip(pyramid.ids, half.ids, most.ids, strict=True):
        assert (more[some != clean] == some[some != clean]).all()
    same = Pyramid(tuple(np.zeros(grid, int) for grid in SHAPE.layers), SHAPE, vocabulary)
    drawn = np.concatenate([replace_words(same, 1.0, vocabulary, s).ids[2].ravel() for s in range(200)])
    counts = np.bincount(drawn, minlength=4)
    assert counts[0] == 0
    assert counts[1:].min() > 0.9 * 3200 / 3


def test_shares_and_vocabularies_that_cannot_be_are_refused():
    pyramid, vocabulary = pyramid_and_vocabulary()
    with pytest.raises(InputError, match="share from 0 to 1"):
        replace_words(pyramid, 1.5, vocabulary, 0)
    lonely, one = pyramid_and_vocabulary(1)
    with pytest.raises(InputError, match="at least 2 words"):
        replace_words(lonely, 0.5, one, 0)


def test_strengths_are_those_of_v2l():
    assert strengths(0.5, 0.2, 10) == [0.5, 0.47, 0.44, 0.41, 0.38, 0.35, 0.32, 0.29, 0.26, 0.23, 0.2]
    with pytest.raises(InputError):
        strengths(0.5, 1.2, 10)
    with pytest.raises(InputError):
        strengths(0.5, 0.2, 0)
