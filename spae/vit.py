"""A vision transformer as encoder and decoder: patches to latents and back, one latent a patch.

ViT (Dosovitskiy et al., arXiv 2010.11929), plain: learned positions, blocks with layer norms first, no class token.
LQAE's networks (arXiv 2302.00902) are of this kind; docs/paper.md says where theirs differ.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from spae.layers.transformer import Block

_MLP_RATIO = 4


class _Blocks(nnx.Module):
    """Positions, blocks and a last layer norm over a square grid of vectors."""

    def __init__(self, side: int, width: int, depth: int, heads: int, *, dtype, rngs: nnx.Rngs):
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (side * side, width)))
        self.blocks = nnx.List(
            [Block(width, _MLP_RATIO * width, heads, dtype=dtype, rngs=rngs) for _ in range(depth)]
        )
        self.norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)

    def __call__(self, x_bhwc):
        b, h, w, c = x_bhwc.shape
        x_btc = x_bhwc.reshape(b, h * w, c) + self.positions[...].astype(x_bhwc.dtype)
        for block in self.blocks:
            x_btc = block(x_btc)
        return self.norm(x_btc).reshape(b, h, w, c)


class ViTEncoder(nnx.Module):
    """Images to latents.

    Args:
        side: of the grid of patches.
        patch: pixels a side.
        width, depth, heads: of the transformer; the heads divide the width.
        latent: c, the width of the codebook.
    """

    def __init__(
        self,
        side: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        latent: int,
        *,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        cell = (patch, patch)
        self.patches = nnx.Conv(3, width, cell, strides=cell, padding="VALID", dtype=dtype, rngs=rngs)
        self.body = _Blocks(side, width, depth, heads, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(width, latent, dtype=dtype, rngs=rngs)

    def __call__(
        self, images_bhwc: Float[Array, "b H W 3"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b features"]]:
        """(B, H, W, 3) in [0, 1] to latents (B, h, w, c) and the pooled last hidden features, both float32."""
        x_bhwc = self.body(self.patches(2 * images_bhwc - 1))
        z_bhwc = self.head(x_bhwc)
        return z_bhwc.astype(jnp.float32), jnp.mean(x_bhwc, axis=(1, 2)).astype(jnp.float32)


class ViTDecoder(nnx.Module):
    """Word embeddings, or a language model's states, to images; the encoder's mirror, with the same arguments."""

    def __init__(
        self,
        side: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        latent: int,
        *,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        cell = (patch, patch)
        self.stem = nnx.Linear(latent, width, dtype=dtype, rngs=rngs)
        self.body = _Blocks(side, width, depth, heads, dtype=dtype, rngs=rngs)
        self.pixels = nnx.ConvTranspose(width, 3, cell, strides=cell, padding="VALID", dtype=dtype, rngs=rngs)

    def __call__(self, zhat_bhwc: Float[Array, "b h w c"]) -> Float[Array, "b H W 3"]:
        """(B, h, w, c) float to images (B, H, W, 3) float32, in [0, 1] but for overshoot."""
        images_bhwc = self.pixels(self.body(self.stem(zhat_bhwc)))
        return (0.5 * images_bhwc + 0.5).astype(jnp.float32)
