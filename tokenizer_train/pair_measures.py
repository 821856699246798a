"""Measures of one image against another: a value for each pair, so that means are over images."""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, UInt8

from spae import lpips
from spae.feature_distance import SMALLEST_SIDE, FeatureDistance
from spae.images import to_float
from spae.metrics import psnr, ssim
from spae.stlpips import Stlpips

# Two batches of uint8 images or clips to one value per pair.
Measure = Callable[
    [UInt8[np.ndarray, "b *t h w 3"], UInt8[np.ndarray, "b *t h w 3"]], Float[np.ndarray, " b"]
]


def pair_measures(
    image_size: int, lpips_folder: str | None, with_stlpips: bool
) -> tuple[dict[str, Measure], dict[str, str]]:
    """The measures by name, and the others by name with the reason why they are not measured.

    Of clips each frame is measured, and the mean over its frames is the clip's.

    Args:
        image_size: pixels a side.
        lpips_folder: of `spae.lpips.find`, if its weights are there.
        with_stlpips: it is the slowest on CPUs.

    Raises:
        InputError: the folder has no weights, or the package of STLPIPS is not installed.
    """
    found: dict[str, Measure] = {"psnr": _per_frame(psnr), "ssim": _per_frame(ssim)}
    missing = {}
    small = f"needs images of at least {SMALLEST_SIDE} pixels"
    if not with_stlpips:
        missing["stlpips"] = "left out by --skip stlpips"
    elif image_size < SMALLEST_SIDE:
        missing["stlpips"] = small
    else:
        found["stlpips"] = _per_frame(_compiled(Stlpips("vgg")))
    if lpips_folder is None:
        missing["lpips"] = "needs --lpips FOLDER with the weights of its networks"
    elif image_size < SMALLEST_SIDE:
        missing["lpips"] = small
    else:
        for files in lpips.find(lpips_folder):
            found[f"lpips_{files.variant}"] = _per_frame(_compiled(files.load()))
    return found, missing


def _compiled(distance: FeatureDistance) -> Measure:
    run = nnx.jit(distance)

    def measure(first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, " b"]:
        # Accelerators would round the products of float32 to fewer bits.
        with jax.default_matmul_precision("highest"):
            return np.asarray(run(to_float(first), to_float(second)))

    return measure


def _per_frame(measure: Measure) -> Measure:
    def mean(first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, " b"]:
        frames = (image.reshape(-1, *image.shape[-3:]) for image in (first, second))
        return measure(*frames).reshape(len(first), -1).mean(axis=1, dtype=float)

    return mean
