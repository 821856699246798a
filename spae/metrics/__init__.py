"""How good a reconstruction is, and how many words a set of pyramids uses.

All on uint8 images with data range 255, one figure for each image, so that means are over images and never
over batches. The measures that need a network have files of their own, and are here too: `Stlpips` and `Lpips`
between two images; `Inception` with `Moments` and `frechet_distance` (FID) or `InceptionScore` for sets of them.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from spae.errors import InputError
from spae.metrics.frechet import Moments as Moments
from spae.metrics.frechet import frechet_distance as frechet_distance
from spae.metrics.inception import Inception as Inception
from spae.metrics.inception_score import InceptionScore as InceptionScore
from spae.metrics.lpips import Lpips as Lpips
from spae.metrics.stlpips import Stlpips as Stlpips

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # an 11 x 11 window


def psnr(
    images: UInt8[np.ndarray, "*b h w 3"], references: UInt8[np.ndarray, "*b h w 3"]
) -> Float[np.ndarray, "*b"]:
    """Peak signal-to-noise ratio in dB of each image, 10 log10(255^2 / MSE); infinite for equal images.

    Raises:
        InputError: they are not uint8 of one shape (..., H, W, 3).
    """
    images, references = _pair(images, references)
    error = ((images.astype(np.float64) - references) ** 2).mean(axis=(-3, -2, -1))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / error)


def ssim(
    images: UInt8[np.ndarray, "*b h w 3"], references: UInt8[np.ndarray, "*b h w 3"]
) -> Float[np.ndarray, "*b"]:
    """Structural similarity of each image, at most 1; mean over windows and channels.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004: 11 x 11
    Gaussian window of sigma 1.5, K = (0.01, 0.03), windows wholly inside the image.

    Raises:
        InputError: they are not uint8 of one shape (..., H, W, 3) with sides of at least 11.
    """
    images, references = _pair(images, references)
    if min(images.shape[-3:-1]) <= 2 * SSIM_RADIUS:
        raise InputError(f"wanted images of at least 11 x 11 pixels, got {images.shape}")
    x, y = images.astype(np.float64), references.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return similarity.mean(axis=(-3, -2, -1))


@dataclass(frozen=True)
class Usage:
    """Of one layer: how many different words were used, and 2^entropy of their frequencies."""

    used: int
    perplexity: float
    positions: int  # how many words were counted


def counted_usage(counts_v: Int[np.ndarray, " v"]) -> Usage:
    """Usage from how often each word was used.

    Raises:
        InputError: none was.
    """
    used = counts_v[counts_v > 0]
    positions = int(used.sum())
    if positions == 0:
        raise InputError("wanted how often each word was used, got no use of any")
    share = used / positions
    return Usage(len(used), math.exp(-(share * np.log(share)).sum()), positions)


def _pair(images: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images, references = np.asarray(images), np.asarray(references)
    if not images.dtype == references.dtype == np.uint8:
        raise InputError(
            f"wanted uint8 images, got {images.dtype} and {references.dtype}: use spae.images.to_uint8"
        )
    if images.shape != references.shape or images.ndim < 3 or images.shape[-1] != 3:
        raise InputError(f"wanted two times (..., H, W, 3), got {images.shape} and {references.shape}")
    return images, references


def _blur(x: np.ndarray) -> np.ndarray:
    """Weighted means over the Gaussian windows that lie inside, along H and W."""
    offsets = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (-3, -2):
        # Two 1-D passes: the Gaussian is separable. Shifted sums are faster than strided windows here.
        length = x.shape[axis] - 2 * SSIM_RADIUS
        x = np.moveaxis(x, axis, 0)
        x = sum(weight * x[shift : shift + length] for shift, weight in enumerate(weights))
        x = np.moveaxis(x, 0, axis)
    return x
