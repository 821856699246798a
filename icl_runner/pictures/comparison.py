"""Scores of generated pictures, and words at random to compare them with. Pictures are uint8 (H, W, 3) outside."""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from jaxtyping import Float, UInt8

from spae.errors import InputError
from spae.images import to_float
from spae.metrics import psnr, ssim
from spae.pyramid import Pyramid, PyramidShape
from spae.vocabulary import Vocabulary

# float32 batches (B, H, W, 3) in [0, 1] -> float32 (B,).
Distance = Callable[[np.ndarray, np.ndarray], Float[np.ndarray, " b"]]

# dB for equal pictures, whose ratio is infinite: means and JSON need a number. 255^2 / MSE is 10^10 there; the
# smallest difference in a 64-px picture gives 89 dB.
EQUAL = 100.0


def compare(
    pictures: Mapping[str, UInt8[np.ndarray, "h w 3"]], target: UInt8[np.ndarray, "h w 3"], distance: Distance
) -> dict[str, float]:
    """How near each picture is to the target: PSNR (dB, at most `EQUAL`), SSIM (at most 1), STLPIPS (from 0).

    Args:
        pictures: by the suffix of their scores: "" for the answer, "_oracle", "_nothing", .. for controls.
        target: of the same size as all of them; sides of at least 32 pixels.
        distance: STLPIPS, from `stlpips`.

    Returns:
        {"psnr": .., "ssim": .., "stlpips": .., "psnr_oracle": .., ..}.

    Raises:
        InputError: no pictures, another dtype, or another size than the target's.
    """
    if not pictures:
        raise InputError("wanted at least one picture to compare, got none")
    odd = {suffix: picture.shape for suffix, picture in pictures.items() if picture.shape != target.shape}
    if odd:
        raise InputError(f"wanted pictures of the target's size {target.shape}, got {odd}: resize them first")
    batch = np.stack(list(pictures.values()))
    targets = np.broadcast_to(target, batch.shape)
    columns = {
        "psnr": np.minimum(psnr(batch, targets), EQUAL),
        "ssim": ssim(batch, targets),
        "stlpips": np.asarray(distance(to_float(batch), to_float(targets))),
    }
    return {
        f"{name}{suffix}": float(values[i])
        for i, suffix in enumerate(pictures)
        for name, values in columns.items()
    }


@cache
def stlpips() -> Distance:
    """The distance of `spae.metrics.stlpips` (VGG16), compiled once for each number of pictures and kept.

    Raises:
        InputError: the package with its weights is not installed.
    """
    from flax import nnx

    from spae.metrics.stlpips import Stlpips

    # The graph and its weights apart: weights that are closed over would be compiled in as constants.
    graph, weights = nnx.split(Stlpips())
    run = nnx.jit(lambda weights, first, second: nnx.merge(graph, weights)(first, second))
    return lambda first, second: np.asarray(run(weights, first, second))


def random_words(shape: PyramidShape, layers: int, vocabulary: Vocabulary, seed: int) -> Pyramid:
    """A pyramid of the first `layers` layers of words drawn uniformly from the vocabulary; the same for a seed."""
    rng = np.random.default_rng(seed)
    layers = shape.check_layers(layers)
    ids = tuple(rng.integers(0, len(vocabulary), grid) for grid in shape.layers[:layers])
    return Pyramid(ids, shape, vocabulary)
