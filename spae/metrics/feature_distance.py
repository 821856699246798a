"""The distance of two images in the features of a network, weighted by channel: what LPIPS and STLPIPS share.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, equation 1:
d(x, x0) = sum over layers l of 1/(H_l W_l) sum over h, w of ||w_l * (y_lhw - y0_lhw)||^2, where y are the
activations with channel vectors of length 1. As in the published code, the heads hold w_l^2.
"""

from abc import abstractmethod
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from spae.errors import InputError

SMALLEST_SIDE = 32  # below it the deepest maps are smaller than their borders


class FeatureDistance(nnx.Module):
    """Distance between pairs of images; a subclass says what the features are.

    Args:
        shift: of each channel, subtracted from images in [-1, 1].
        scale: of each channel, what they are divided by then.
        heads: weight of each channel, one vector per layer of features.
        dtype: of the convolutions.
    """

    def __init__(
        self,
        shift: np.ndarray | Sequence[float],
        scale: np.ndarray | Sequence[float],
        heads: Sequence[np.ndarray],
        dtype: jnp.dtype = jnp.float32,
    ) -> None:
        self.shift = nnx.Variable(jnp.asarray(shift, jnp.float32))
        self.scale = nnx.Variable(jnp.asarray(scale, jnp.float32))
        self.heads = nnx.List([nnx.Variable(jnp.asarray(head)) for head in heads])
        self.dtype = dtype

    def __call__(
        self, first_bhwc: Float[Array, "b h w 3"], second_bhwc: Float[Array, "b h w 3"]
    ) -> Float[Array, " b"]:
        """float32 distances, one for each pair of images in [0, 1], sides at least 32 pixels; 0 if equal.

        Differentiable with respect to both.

        Raises:
            InputError: other shapes.
        """
        shape = first_bhwc.shape
        if len(shape) != 4 or shape[-1] != 3 or shape != second_bhwc.shape or min(shape[1:3]) < SMALLEST_SIDE:
            wanted = f"two batches (B, H, W, 3) of one shape, sides of at least {SMALLEST_SIDE}"
            raise InputError(f"wanted {wanted}, got {shape} and {second_bhwc.shape}")
        # Not in one pass over both: training wants no derivative by the originals, and would pay for it.
        return self.between(self.directions(first_bhwc), self.directions(second_bhwc))

    def directions(self, images_bhwc: Float[Array, "b h w 3"]) -> list[Float[Array, "b _h _w _c"]]:
        """What `between` compares: the activations y of each layer as float32 vectors of length 1, for images in
        [0, 1]. An image that is compared with several others needs them once."""
        images_bhwc = ((2 * images_bhwc - 1 - self.shift[...]) / self.scale[...]).astype(self.dtype)
        return [_unit(x_bhwc.astype(jnp.float32)) for x_bhwc in self.features(images_bhwc)]

    def between(self, first: Sequence[Array], second: Sequence[Array]) -> Float[Array, " b"]:
        """float32 distances of the images whose `directions` these are."""
        distances = [
            ((x_bhwc - y_bhwc) ** 2 @ head_c[...]).mean(axis=(1, 2))
            for x_bhwc, y_bhwc, head_c in zip(first, second, self.heads, strict=True)
        ]
        return sum(distances[1:], distances[0])

    @abstractmethod
    def features(self, images_bhwc: Float[Array, "b h w 3"]) -> list[Float[Array, "b _h _w _c"]]:
        """The activations of each layer, for images that are shifted and scaled."""


def _unit(x_bhwc: Array) -> Array:
    """Channel vectors of length 1; zero vectors stay zero, with a derivative of zero instead of NaN."""
    square_bhw1 = (x_bhwc**2).sum(-1, keepdims=True)
    length_bhw1 = jnp.sqrt(jnp.where(square_bhw1 > 0, square_bhw1, 1.0))
    return x_bhwc / (length_bhw1 + 1e-10)
