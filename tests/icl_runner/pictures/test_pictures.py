"""Scores of pictures against the metrics' own values; pictures as text and back; words at random."""

import base64
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from skimage.metrics import structural_similarity

from icl_runner.pictures.comparison import EQUAL, compare, random_words, stlpips
from icl_runner.pictures.encoding import to_base64
from spae.errors import InputError
from spae.images import to_float
from spae.pyramid import PyramidShape
from spae.vocabulary import View, Vocabulary
from spae.weights.packages import package_file


def picture(seed, side=32):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def difference(first, second):
    return np.abs(first - second).mean((1, 2, 3))


def test_every_picture_is_compared_with_the_target_under_its_own_suffix():
    target, near = picture(0), picture(0)
    near[:8] = np.minimum(near[:8].astype(int) + 30, 255)
    far = picture(1)
    values = compare({"": near, "_copy": far, "_oracle": target}, target, difference)
    assert set(values) == {f"{m}{s}" for m in ("psnr", "ssim", "stlpips") for s in ("", "_copy", "_oracle")}
    assert all(type(value) is float for value in values.values())
    for suffix, one in (("", near), ("_copy", far)):
        error = (
            sum((int(a) - int(b)) ** 2 for a, b in zip(one.ravel(), target.ravel(), strict=True)) / one.size
        )
        assert values[f"psnr{suffix}"] == pytest.approx(10 * math.log10(255**2 / error))
        slow = structural_similarity(
            one, target, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert values[f"ssim{suffix}"] == pytest.approx(slow, abs=1e-6)
        assert values[f"stlpips{suffix}"] == pytest.approx(np.abs(to_float(one) - to_float(target)).mean())


def test_an_equal_picture_has_numbers_that_json_and_means_can_take():
    target = picture(0, 64)
    values = compare({"": target.copy()}, target, difference)
    assert values == {"psnr": EQUAL, "ssim": pytest.approx(1.0), "stlpips": 0.0}
    almost = target.copy()
    almost[0, 0, 0] ^= 1
    assert 80 < compare({"": almost}, target, difference)["psnr"] < EQUAL


def test_pictures_of_another_size_or_none_are_refused():
    with pytest.raises(InputError, match="target's size"):
        compare({"": picture(0, 16)}, picture(0), difference)
    with pytest.raises(InputError, match="at least one"):
        compare({}, picture(0), difference)


def test_stlpips_is_that_of_the_metric():
    try:
        package_file("stlpips_pytorch", "stlpips_pytorch==0.0.2", "weights/vST0.0/vgg_shift_tolerant.pth")
    except InputError as error:
        pytest.skip(str(error))
    from spae.metrics.stlpips import Stlpips

    first, second = (to_float(np.stack([picture(seed) for seed in seeds])) for seeds in ((0, 1), (2, 1)))
    measured = stlpips()(first, second)
    assert measured == pytest.approx(np.asarray(Stlpips()(first, second)), abs=1e-5)
    assert measured[0] > 0.01
    assert measured[1] == pytest.approx(0, abs=1e-6)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_base64_round_trip(image):
    file = Image.open(io.BytesIO(base64.b64decode(to_base64(image), validate=True)))
    assert file.format == "PNG"
    assert np.array_equal(np.asarray(file), image)


def test_random_words_are_uniform_and_the_same_for_a_seed():
    views = {"meaning": View.raw(), "appearance": View.raw()}
    words = tuple("abcdefgh")
    vocabulary = Vocabulary(words, np.arange(8), np.eye(8, dtype=np.float32), views, {})
    shape = PyramidShape((1, 2, 4))
    assert random_words(shape, 2, vocabulary, 3) == random_words(shape, 2, vocabulary, 3)
    assert random_words(shape, 2, vocabulary, 3) != random_words(shape, 2, vocabulary, 4)
    drawn = [random_words(shape, 3, vocabulary, seed) for seed in range(200)]
    assert {one.layers for one in drawn} == {3}
    counts = np.bincount(np.concatenate([ids.ravel() for one in drawn for ids in one.ids]), minlength=8)
    assert counts.min() > 0.85 * 4200 / 8
