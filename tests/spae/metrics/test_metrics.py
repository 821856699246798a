"""Image metrics against scikit-image, usage against counting by hand."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from spae.errors import InputError
from spae.metrics import counted_usage, psnr, ssim

GENERATOR = np.random.default_rng(0)


def pictures(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.indices((height, width))
    clean = 120 + 60 * np.sin(x / 3 + np.arange(count)[:, None, None]) + y
    clean = np.repeat(clean[..., None], 3, -1) + GENERATOR.normal(0, 5, (count, height, width, 3))
    noisy = clean * 0.8 + GENERATOR.normal(0, 20, clean.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), np.clip(clean, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (48, 31), (11, 11)])
def test_ssim_is_scikit_images(size):
    noisy, clean = pictures(2, *size)
    expected = [
        structural_similarity(
            a,
            b,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=2,
            data_range=255,
        )
        for a, b in zip(noisy, clean, strict=True)
    ]
    np.testing.assert_allclose(ssim(noisy, clean), expected, rtol=1e-9)
    np.testing.assert_allclose(ssim(noisy[0], clean[0]), expected[0], rtol=1e-9)


def test_psnr_is_scikit_images():
    noisy, clean = pictures(3, 20, 30)
    expected = [peak_signal_noise_ratio(b, a, data_range=255) for a, b in zip(noisy, clean, strict=True)]
    np.testing.assert_allclose(psnr(noisy, clean), expected, rtol=1e-12)


def test_equal_and_opposite_images():
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    assert psnr(black, black) == np.inf
    assert psnr(black, white) == 0
    assert ssim(white, white) == 1
    assert ssim(black, white) < 1e-3


def test_one_figure_for_each_image_of_any_batch():
    noisy, clean = pictures(6, 16, 16)
    grouped = psnr(noisy.reshape(2, 3, 16, 16, 3), clean.reshape(2, 3, 16, 16, 3))
    np.testing.assert_array_equal(grouped.reshape(-1), psnr(noisy, clean))
    # The mean over images is not the figure of the pooled error.
    assert not np.isclose(
        psnr(noisy, clean).mean(),
        psnr(noisy.reshape(1, -1, 16, 3), clean.reshape(1, -1, 16, 3))[0],
        rtol=1e-6,
    )


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_refuses(metric):
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(InputError, match="uint8"):
        metric(image.astype(np.float32), image)
    with pytest.raises(InputError, match="wanted two"):
        metric(image, image[:8])
    with pytest.raises(InputError, match="wanted two"):
        metric(image[..., :1], image[..., :1])


def test_ssim_refuses_small_images():
    with pytest.raises(InputError, match="11 x 11"):
        ssim(np.zeros((10, 16, 3), np.uint8), np.zeros((10, 16, 3), np.uint8))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=200))
def test_usage_counts_and_perplexity_is_scipys_entropy(ids):
    usage = counted_usage(np.bincount(ids, minlength=12))
    assert usage.used == len(set(ids))
    assert usage.positions == len(ids)
    entropy = scipy.stats.entropy(np.bincount(ids), base=2)
    assert usage.perplexity == pytest.approx(2**entropy, rel=1e-10)


def test_psnr_is_the_formula():
    noisy, clean = pictures(1, 12, 14)
    error = (
        sum((int(a) - int(b)) ** 2 for a, b in zip(noisy.ravel(), clean.ravel(), strict=True)) / noisy.size
    )
    assert psnr(noisy, clean)[0] == pytest.approx(20 * np.log10(255) - 10 * np.log10(error), rel=1e-12)


def test_perplexity_of_known_frequencies():
    even, lopsided = (counted_usage(np.bincount(ids)) for ids in ([1, 2, 3, 4], [7, 7, 7, 8]))
    assert even.perplexity == pytest.approx(4)
    assert lopsided.perplexity == pytest.approx(2 ** (0.75 * np.log2(4 / 3) + 0.25 * 2))


def test_usage_refuses():
    with pytest.raises(InputError, match="no use of any"):
        counted_usage(np.zeros(3, int))
