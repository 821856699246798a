"""Codecs within a budget of bits."""

import io

import numpy as np
import pytest
from PIL import Image

from tokenizer_train.evaluation.codecs import FORMATS, best_within


@pytest.fixture
def image() -> np.ndarray:
    y, x = np.mgrid[:64, :64]
    wave = np.stack([x * 4, y * 4, 128 + 100 * np.sin(x * y / 40)], axis=-1)
    return np.clip(wave, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("format", FORMATS)
def test_the_best_setting_that_fits(image: np.ndarray, format: str) -> None:
    small, middle, large = best_within(image, [100, 12_000, 10**7], format)
    assert not small.fits  # no such file has fewer than 13 bytes
    assert middle.fits
    assert middle.bits <= 12_000
    assert large.fits
    error = [float(((c.image.astype(float) - image) ** 2).mean()) for c in (small, middle, large)]
    assert error[0] > error[1] > error[2]
    assert large.image.shape == image.shape
    assert large.image.dtype == np.uint8


def test_the_next_setting_would_not_fit(image: np.ndarray) -> None:
    budget = 12_000
    chosen = best_within(image, [budget], "WEBP")[0]
    sizes = []
    for quality in range(101):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "WEBP", quality=quality, method=6)
        sizes.append(8 * len(buffer.getvalue()))
    assert chosen.bits == sizes[max(q for q in range(101) if sizes[q] <= budget)]
