"""Measures of one image against another: a value for each pair, so that means are over images."""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, UInt8

from spae.images import to_float
from spae.metrics import lpips, psnr, ssim
from spae.metrics.feature_distance import SMALLEST_SIDE, FeatureDistance
from spae.metrics.stlpips import Stlpips

# A batch of uint8 images, or clips, to one value for each of them.
Compare = Callable[[UInt8[np.ndarray, "b *t h w 3"]], Float[np.ndarray, " b"]]
# A batch of originals to what compares others with them, pair by pair. The originals are compared with every prefix's
# reconstructions, and what a network makes of them alone is computed once.
Measure = Callable[[UInt8[np.ndarray, "b *t h w 3"]], Compare]


def pair_measures(
    image_size: int, lpips_folder: str | None, with_stlpips: bool
) -> tuple[dict[str, Measure], dict[str, str]]:
    """The measures by name, and the others by name with the reason why they are not measured.

    Of clips each frame is measured, and the mean over its frames is the clip's.

    Args:
        image_size: pixels a side.
        lpips_folder: of `spae.metrics.lpips.find`, if its weights are there.
        with_stlpips: it is the slowest on CPUs.

    Raises:
        InputError: the folder has no weights, or the package of STLPIPS is not installed.
    """
    found: dict[str, Measure] = {"psnr": _per_frame(_of_pixels(psnr)), "ssim": _per_frame(_of_pixels(ssim))}
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


def _of_pixels(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Measure:
    return lambda originals: lambda images: function(images, originals)


def _compiled(distance: FeatureDistance) -> Measure:
    @nnx.jit
    def directions(distance: FeatureDistance, images_bhwc: np.ndarray) -> list[jax.Array]:
        return distance.directions(to_float(images_bhwc))

    @nnx.jit
    def distances(
        distance: FeatureDistance, of_originals: list[jax.Array], images_bhwc: np.ndarray
    ) -> jax.Array:
        return distance.between(of_originals, distance.directions(to_float(images_bhwc)))

    def measure(originals: np.ndarray) -> Compare:
        # Accelerators would round the products of float32 to fewer bits.
        with jax.default_matmul_precision("highest"):
            of_originals = directions(distance, originals)

        def compare(images: np.ndarray) -> Float[np.ndarray, " b"]:
            with jax.default_matmul_precision("highest"):
                return np.asarray(distances(distance, of_originals, images))

        return compare

    return measure


def _per_frame(measure: Measure) -> Measure:
    def of_clips(originals: np.ndarray) -> Compare:
        compare = measure(_frames(originals))
        return lambda images: compare(_frames(images)).reshape(len(images), -1).mean(axis=1, dtype=float)

    return of_clips


def _frames(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1, *images.shape[-3:])
