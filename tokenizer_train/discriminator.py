"""The StyleGAN-type residual discriminator of MAGVIT and SPAE: 23.9M parameters at 128 px."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from spae.errors import InputError

leaky = partial(jax.nn.leaky_relu, negative_slope=0.2)


class Block(nnx.Module):
    """conv - pool - conv beside pool - 1x1 conv; their sum over sqrt 2 keeps the variance."""

    def __init__(self, inputs: int, outputs: int, *, dtype, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(inputs, inputs, (3, 3), dtype=dtype, rngs=rngs)
        self.conv2 = nnx.Conv(inputs, outputs, (3, 3), dtype=dtype, rngs=rngs)
        self.skip = nnx.Conv(inputs, outputs, (1, 1), use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x_bhwc):
        y_bhwc = leaky(self.conv2(_halve(leaky(self.conv1(x_bhwc)))))
        return (y_bhwc + self.skip(_halve(x_bhwc))) / jnp.sqrt(2).astype(y_bhwc.dtype)


class Discriminator(nnx.Module):
    """Images to one logit each, higher for real ones.

    Args:
        image_size: side in pixels, a multiple of 2 ** len(multipliers).
        filters: channels at full resolution.
        multipliers: of `filters`, after each halving.
    """

    def __init__(
        self,
        image_size: int,
        filters: int = 128,
        multipliers: tuple[int, ...] = (2, 4, 4, 4, 4),
        *,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if image_size % 2 ** len(multipliers):
            raise InputError(
                f"the discriminator halves images {len(multipliers)} times: image_size must be a multiple of "
                f"{2 ** len(multipliers)}, not {image_size}, or loss.adversarial 0"
            )
        side = image_size // 2 ** len(multipliers)
        self.stem = nnx.Conv(3, filters, (3, 3), dtype=dtype, rngs=rngs)
        self.blocks: nnx.List[Block] = nnx.List()
        before = filters
        for multiplier in multipliers:
            self.blocks.append(Block(before, filters * multiplier, dtype=dtype, rngs=rngs))
            before = filters * multiplier
        self.conv = nnx.Conv(before, before, (3, 3), dtype=dtype, rngs=rngs)
        self.hidden = nnx.Linear(side * side * before, before, dtype=dtype, rngs=rngs)
        self.logit = nnx.Linear(before, 1, dtype=dtype, rngs=rngs)

    def __call__(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, " b"]:
        """(B, H, W, 3) float in [0, 1] to (B,) float32 logits."""
        x_bhwc = leaky(self.stem(images_bhwc))
        for block in self.blocks:
            x_bhwc = block(x_bhwc)
        x_bf = leaky(self.conv(x_bhwc)).reshape(x_bhwc.shape[0], -1)
        return self.logit(leaky(self.hidden(x_bf)))[:, 0].astype(jnp.float32)


def _halve(x_bhwc):
    return nnx.avg_pool(x_bhwc, (2, 2), (2, 2))
