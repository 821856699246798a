"""MAGVIT's CNN in Flax NNX: the tokenizer's encoder and decoder, of images and of clips.

They follow SPAE, section 4.1 and appendix (= MAGVIT's VQGAN, size L): residual blocks of GroupNorm - swish -
3x3 convolution, average-pooled down, nearest-neighbour up. With `AutoencoderConfig(image_size=128,
downsamplings=3)` and c = 1536 they have the paper's 23.7M + 35.7M parameters.

The same classes are the 3-D CNN of clips where `config.frames` is more than 1: kernels are 3x3x3, and the first
`temporal_downsamplings` halvings halve time as well (MAGVIT's 3-D VQGAN; 176M parameters at the paper's size).
`x_bhwc` is then (B, T, H, W, C).
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from spae.architecture import AutoencoderConfig
from spae.layers.convolution import Depthwise
from spae.layers.rematerialize import Rematerializable


class ResidualBlock(Rematerializable):
    """GN - swish - conv - GN - swish - conv, plus the block's input (through a 1x1 convolution if widths differ).

    `rank` is the number of axes that the convolutions run over.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, *, dtype, rngs: nnx.Rngs):
        conv = partial(nnx.Conv, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm1 = _norm(inputs, dtype, rngs)
        self.conv1 = conv(inputs, outputs, (3,) * rank)
        self.norm2 = _norm(outputs, dtype, rngs)
        self.conv2 = conv(outputs, outputs, (3,) * rank)
        self.shortcut = conv(inputs, outputs, (1,) * rank) if inputs != outputs else None

    def forward(self, x_bhwc):
        y_bhwc = self.conv1(jax.nn.swish(self.norm1(x_bhwc)))
        y_bhwc = self.conv2(jax.nn.swish(self.norm2(y_bhwc)))
        return y_bhwc + (x_bhwc if self.shortcut is None else self.shortcut(x_bhwc))


class DepthwiseBlock(Rematerializable):
    """GN - 3x3 depth-wise convolution - 1x1 to twice the width - relu - 1x1, plus the block's input.

    Ours: a quarter of the residual block's products, and as good after as many steps (configs/parts64.py).
    """

    def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
        linear = partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self.norm = _norm(width, dtype, rngs)
        self.depthwise = Depthwise(width, 3, 1, rngs=rngs)
        self.widen, self.narrow = linear(width, 2 * width), linear(2 * width, width)

    def forward(self, x_bhwc):
        y_bhwc = self.widen(self.depthwise(self.norm(x_bhwc)))
        return x_bhwc + self.narrow(jax.nn.relu(y_bhwc))


def _block(config: AutoencoderConfig, inputs: int, outputs: int, *, dtype, rngs: nnx.Rngs) -> nnx.Module:
    """One block of the kind that the config names."""
    if config.block == "residual" or inputs != outputs:
        return ResidualBlock(inputs, outputs, config.rank, dtype=dtype, rngs=rngs)
    return DepthwiseBlock(outputs, dtype=dtype, rngs=rngs)


class LinearPath(nnx.Module):
    """Patches to latents by one matrix, or latents to patches with `backwards`: what stands beside each network, and of
    network "linear" all there is."""

    def __init__(
        self, config: AutoencoderConfig, width: int, backwards: bool, *, dtype=jnp.float32, rngs: nnx.Rngs
    ):
        self.strides, self.backwards = config.strides, backwards
        pixels = 3 * math.prod(config.strides)
        sizes = (width, pixels) if backwards else (pixels, width)
        self.skip = nnx.Linear(*sizes, dtype=dtype, rngs=rngs)

    def __call__(self, x_bhwc):
        if self.backwards:
            return depth_to_space(self.skip(x_bhwc), self.strides).astype(jnp.float32)
        z_bhwc = self.skip(space_to_depth(x_bhwc - 0.5, self.strides)).astype(jnp.float32)
        return z_bhwc, jnp.mean(z_bhwc, axis=tuple(range(1, z_bhwc.ndim - 1)))


class Encoder(nnx.Module):
    """Images, or clips, to latents.

    Args:
        config: the architecture.
        width: c, the width of the codebook; the paper has no projection between them.
    """

    def __init__(self, config: AutoencoderConfig, width: int, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.patches, self.halvings, rank = config.patches, config.halvings, config.rank
        channels = [config.filters * m for m in config.multipliers]
        block = partial(_block, config, dtype=dtype, rngs=rngs)
        conv = partial(nnx.Conv, dtype=dtype, rngs=rngs)
        self.stem = conv(3 * math.prod(self.patches), channels[0], (3,) * rank, use_bias=False)
        self.scales: nnx.List[nnx.List[nnx.Module]] = nnx.List()
        before = channels[0]
        for after in channels:
            self.scales.append(
                nnx.List([block(before if i == 0 else after, after) for i in range(config.blocks)])
            )
            before = after
        self.bottleneck = nnx.List([block(before, before) for _ in range(config.blocks)])
        self.norm = _norm(before, dtype, rngs)
        self.head = conv(before, width, (1,) * rank)
        # GroupNorm takes brightness and contrast of the whole image away; the linear path brings them at once.
        self.strides = config.strides
        pixels = 3 * math.prod(self.strides)
        self.skip = nnx.Linear(pixels, width, dtype=dtype, rngs=rngs) if config.skip else None

    def __call__(
        self, images_bhwc: Float[Array, "b *pixels 3"]
    ) -> tuple[Float[Array, "b *space c"], Float[Array, "b features"]]:
        """Images (B, H, W, 3), or clips (B, T, H, W, 3), in [0, 1] to latents (B, h, w, c), or (B, t, h, w, c),
        and the pooled last hidden features, both float32."""
        x_bhwc = self.stem(space_to_depth(images_bhwc, self.patches))
        for i, blocks in enumerate(self.scales):
            for block in blocks:
                x_bhwc = block(x_bhwc)
            if i < len(self.halvings):
                x_bhwc = nnx.avg_pool(x_bhwc, self.halvings[i], self.halvings[i])
        for block in self.bottleneck:
            x_bhwc = block(x_bhwc)
        x_bhwc = jax.nn.swish(self.norm(x_bhwc))
        z_bhwc = self.head(x_bhwc)
        if self.skip is not None:
            z_bhwc += self.skip(space_to_depth(images_bhwc - 0.5, self.strides))
        hidden_bf = jnp.mean(x_bhwc, axis=tuple(range(1, x_bhwc.ndim - 1)))
        return z_bhwc.astype(jnp.float32), hidden_bf.astype(jnp.float32)


class CrossAttention(nnx.Module):
    """One head of attention from every position to a few words, added to what is there."""

    def __init__(self, channels: int, width: int, *, dtype, rngs: nnx.Rngs):
        self.norm = _norm(channels, dtype, rngs)
        self.attention = nnx.MultiHeadAttention(
            1, channels, in_kv_features=width, decode=False, dtype=dtype, rngs=rngs
        )

    def __call__(self, x_bhwc, words_bkd):
        query_bpc = self.norm(x_bhwc).reshape(x_bhwc.shape[0], -1, x_bhwc.shape[-1])
        return x_bhwc + self.attention(query_bpc, words_bkd).reshape(x_bhwc.shape)


class Decoder(nnx.Module):
    """Averages of word embeddings to images, or clips; the encoder's mirror.

    Args:
        config: the architecture.
        width: c, the width of the codebook.
        meaning_width: d, the width of the words' vectors that cross-attention looks at; unused without.
    """

    def __init__(
        self,
        config: AutoencoderConfig,
        width: int,
        meaning_width: int = 0,
        *,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.patches, self.halvings, rank = config.patches, config.halvings, config.rank
        channels = [config.filters * m for m in config.multipliers]
        block = partial(_block, config, dtype=dtype, rngs=rngs)
        conv = partial(nnx.Conv, kernel_size=(3,) * rank, dtype=dtype, rngs=rngs)
        before = channels[-1]
        self.stem = conv(width, before)
        self.bottleneck = nnx.List([block(before, before) for _ in range(config.blocks)])
        self.attention = (
            CrossAttention(before, meaning_width, dtype=dtype, rngs=rngs) if config.cross_attention else None
        )
        self.scales: nnx.List[nnx.List[nnx.Module]] = nnx.List()
        self.ups: nnx.List[nnx.Conv] = nnx.List()
        for i, after in reversed(list(enumerate(channels))):
            if i < len(self.halvings):
                self.ups.append(conv(before, before))
            self.scales.append(
                nnx.List([block(before if j == 0 else after, after) for j in range(config.blocks)])
            )
            before = after
        self.norm = _norm(before, dtype, rngs)
        self.head = conv(before, 3 * math.prod(self.patches))
        self.strides = config.strides
        pixels = 3 * math.prod(self.strides)
        self.skip = nnx.Linear(width, pixels, dtype=dtype, rngs=rngs) if config.skip else None

    def __call__(
        self, zhat_bhwc: Float[Array, "b *space c"], words_bkd: Float[Array, "b k d"] | None = None
    ) -> Float[Array, "b *pixels 3"]:
        """(B, h, w, c) float to images (B, H, W, 3) float32, in [0, 1] but for overshoot; or (B, t, h, w, c) to
        clips (B, T, H, W, 3).

        `words_bkd`: with cross-attention, the vectors of any number of words (B, k, d).
        """
        x_bhwc = self.stem(zhat_bhwc)
        for block in self.bottleneck:
            x_bhwc = block(x_bhwc)
        if self.attention is not None:
            x_bhwc = self.attention(x_bhwc, words_bkd)
        first = len(self.scales) - len(self.halvings)
        for i, blocks in enumerate(self.scales):
            if i >= first:
                for axis, factor in enumerate(self.halvings[len(self.scales) - 1 - i], start=1):
                    x_bhwc = x_bhwc.repeat(factor, axis=axis)
                x_bhwc = self.ups[i - first](x_bhwc)
            for block in blocks:
                x_bhwc = block(x_bhwc)
        x_bhwc = self.head(jax.nn.swish(self.norm(x_bhwc)))
        images_bhwc = depth_to_space(x_bhwc, self.patches)
        if self.skip is not None:
            images_bhwc += depth_to_space(self.skip(zhat_bhwc), self.strides)
        return images_bhwc.astype(jnp.float32)


def space_to_depth(x_bhwc: Float[Array, "b *pixels c"], patch: Sequence[int]) -> Float[Array, "b *space p"]:
    """(B, H, W, c) to (B, H / ph, W / pw, ph pw c) with `patch` = (ph, pw): each patch becomes channels, row-major.

    The same over time for (B, T, H, W, c) and `patch` = (pt, ph, pw).
    """
    b, *sides, c = x_bhwc.shape
    places = [side // p for side, p in zip(sides, patch, strict=True)]
    x = x_bhwc.reshape(b, *(n for pair in zip(places, patch, strict=True) for n in pair), c)
    last = x.ndim - 1
    return x.transpose(0, *range(1, last, 2), *range(2, last, 2), last).reshape(
        b, *places, math.prod(patch) * c
    )


def depth_to_space(x_bhwp: Float[Array, "b *space p"], patch: Sequence[int]) -> Float[Array, "b *pixels c"]:
    """The inverse of `space_to_depth`."""
    b, *places, p = x_bhwp.shape
    rank = len(places)
    x = x_bhwp.reshape(b, *places, *patch, p // math.prod(patch))
    order = (axis for i in range(1, rank + 1) for axis in (i, i + rank))
    sides = [n * size for n, size in zip(places, patch, strict=True)]
    return x.transpose(0, *order, 2 * rank + 1).reshape(b, *sides, p // math.prod(patch))


def _norm(channels: int, dtype, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """GroupNorm of 32 groups, fewer where the channels do not divide (tiny configurations)."""
    return nnx.GroupNorm(channels, num_groups=math.gcd(32, channels), dtype=dtype, rngs=rngs)
