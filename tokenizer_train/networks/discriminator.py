"""The StyleGAN-type residual discriminator of MAGVIT and SPAE: 23.9M parameters at 128 px, for images and for clips.

For clips it is MAGVIT's 3-D discriminator: 3x3x3 kernels, and every block halves time too while there is time to
halve; a clip gets one logit.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from spae.errors import InputError
from spae.layers.rematerialize import Rematerializable

leaky = partial(jax.nn.leaky_relu, negative_slope=0.2)


class Block(Rematerializable):
    """conv - pool - conv beside pool - 1x1 conv; their sum over sqrt 2 keeps the variance.

    `halving` says by how much each axis of the images, or clips, is pooled.
    """

    def __init__(self, inputs: int, outputs: int, halving: tuple[int, ...], *, dtype, rngs: nnx.Rngs):
        rank = len(halving)
        self.halving = halving
        self.conv1 = nnx.Conv(inputs, inputs, (3,) * rank, dtype=dtype, rngs=rngs)
        self.conv2 = nnx.Conv(inputs, outputs, (3,) * rank, dtype=dtype, rngs=rngs)
        self.skip = nnx.Conv(inputs, outputs, (1,) * rank, use_bias=False, dtype=dtype, rngs=rngs)

    def forward(self, x_bhwc):
        y_bhwc = leaky(self.conv2(self._halve(leaky(self.conv1(x_bhwc)))))
        return (y_bhwc + self.skip(self._halve(x_bhwc))) / jnp.sqrt(2).astype(y_bhwc.dtype)

    def _halve(self, x_bhwc):
        return nnx.avg_pool(x_bhwc, self.halving, self.halving)


class Discriminator(nnx.Module):
    """Images, or clips, to one logit each, higher for real ones.

    Args:
        image_size: side in pixels, a multiple of 2 ** len(multipliers).
        filters: channels at full resolution.
        multipliers: of `filters`, after each halving.
        frames: of a clip; 1 for images.
    """

    def __init__(
        self,
        image_size: int,
        filters: int = 128,
        multipliers: tuple[int, ...] = (2, 4, 4, 4, 4),
        frames: int = 1,
        *,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if image_size % 2 ** len(multipliers):
            raise InputError(
                f"the discriminator halves images {len(multipliers)} times: image_size must be a multiple of "
                f"{2 ** len(multipliers)}, not {image_size}, or loss.adversarial 0"
            )
        sides: tuple[int, ...] = (frames, image_size, image_size)[0 if frames > 1 else 1 :]
        kernel = (3,) * len(sides)
        self.stem = nnx.Conv(3, filters, kernel, dtype=dtype, rngs=rngs)
        self.blocks: nnx.List[Block] = nnx.List()
        before = filters
        for multiplier in multipliers:
            # The images' sides are even at every block; time is halved until it is odd, which may be 1 early.
            halving = tuple(2 if side % 2 == 0 else 1 for side in sides)
            self.blocks.append(Block(before, filters * multiplier, halving, dtype=dtype, rngs=rngs))
            sides = tuple(side // by for side, by in zip(sides, halving, strict=True))
            before = filters * multiplier
        self.conv = nnx.Conv(before, before, kernel, dtype=dtype, rngs=rngs)
        self.hidden = nnx.Linear(math.prod(sides) * before, before, dtype=dtype, rngs=rngs)
        self.logit = nnx.Linear(before, 1, dtype=dtype, rngs=rngs)

    def __call__(self, images_bhwc: Float[Array, "b *pixels 3"]) -> Float[Array, " b"]:
        """Images (B, H, W, 3), or clips (B, T, H, W, 3), float in [0, 1] to (B,) float32 logits."""
        x_bhwc = leaky(self.stem(images_bhwc))
        for block in self.blocks:
            x_bhwc = block(x_bhwc)
        x_bf = leaky(self.conv(x_bhwc)).reshape(x_bhwc.shape[0], -1)
        return self.logit(leaky(self.hidden(x_bf)))[:, 0].astype(jnp.float32)
