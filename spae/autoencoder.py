"""The tokenizer's networks in Flax NNX: the MAGVIT 2-D CNN, and a head that chooses words by meaning.

Encoder and decoder follow SPAE, section 4.1 and appendix (= MAGVIT's 2-D VQGAN, size L): residual blocks of
GroupNorm - swish - 3x3 convolution, average-pooled down, nearest-neighbour up. With `AutoencoderConfig(
image_size=128, downsamplings=3)` and c = 1536 they have the paper's 23.7M + 35.7M parameters.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from spae.errors import InputError
from spae.pyramid import PyramidShape
from spae.quantize import Fill, Meaning


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Everything that, with a vocabulary, defines a tokenizer's function."""

    image_size: int = 64  # pixels a side
    pyramid: tuple[int, ...] = (1, 2, 4, 8, 16, 16)  # side of every layer, top to bottom
    filters: int = 128  # channels at full resolution
    multipliers: tuple[int, ...] = (1, 2, 2, 4)  # of `filters`, per scale
    blocks: int = 2  # residual blocks per scale, and again as bottleneck
    downsamplings: int = 2  # the first so many scales end in a halving
    patch: int = 1  # pixels a side folded into channels before the first convolution (1 in the paper)
    skip: bool = False  # a linear path beside each network, patches to latents and back (none in the paper)
    meaning_layers: int = 0  # the first so many layers choose words by the meaning head (0 in the paper)
    head_width: int = 512  # hidden units of the meaning head
    trunk: Literal["conse", "clip", "none"] = (
        "none"  # frozen network that feeds the meaning head; none: the encoder does
    )
    quantizer: Literal["saq", "rq"] = "saq"
    fill: Fill = "nearest"  # positions that a prefix leaves without a word

    def __post_init__(self):
        sizes = (self.image_size, self.filters, *self.multipliers, self.blocks, self.patch, self.head_width)
        if min(sizes) < 1 or not self.multipliers or not self.pyramid:
            raise InputError(f"sizes, filters, multipliers, blocks and patch must be at least 1, got {self}")
        for name, choices in (("quantizer", ("saq", "rq")), ("fill", ("nearest", "zeros"))):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is one of {', '.join(choices)}, not {getattr(self, name)!r}")
        grid = self.image_size / self.stride
        if grid != self.pyramid[-1]:
            raise InputError(
                f"a {self.image_size}-px image in patches of {self.patch}, halved {self.downsamplings} times, has side "
                f"{grid:g}, but the last layer of the pyramid has side {self.pyramid[-1]}: change one of the four"
            )
        if not 0 <= self.downsamplings <= len(self.multipliers):
            raise InputError(f"{self.downsamplings} downsamplings do not fit {len(self.multipliers)} scales")
        if not 0 <= self.meaning_layers <= len(self.shape.waves[0]):
            raise InputError(
                f"meaning_layers is 0 .. {len(self.shape.waves[0])} (the layers that share no position), "
                f"not {self.meaning_layers}"
            )
        if self.trunk != "none" and self.meaning_layers == 0:
            raise InputError(
                f'trunk "{self.trunk}" feeds the meaning head, so meaning_layers must be at least 1'
            )

    @property
    def shape(self) -> PyramidShape:
        return PyramidShape(self.pyramid)

    @property
    def stride(self) -> int:
        """Pixels a side that one position of the finest layer stands for."""
        return self.patch * 2**self.downsamplings


class ResidualBlock(nnx.Module):
    """GN - swish - conv - GN - swish - conv, plus the block's input (through a 1x1 convolution if widths differ)."""

    def __init__(self, inputs: int, outputs: int, *, dtype, rngs: nnx.Rngs):
        conv = partial(nnx.Conv, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm1 = _norm(inputs, dtype, rngs)
        self.conv1 = conv(inputs, outputs, (3, 3))
        self.norm2 = _norm(outputs, dtype, rngs)
        self.conv2 = conv(outputs, outputs, (3, 3))
        self.shortcut = conv(inputs, outputs, (1, 1)) if inputs != outputs else None

    def __call__(self, x_bhwc):
        y_bhwc = self.conv1(jax.nn.swish(self.norm1(x_bhwc)))
        y_bhwc = self.conv2(jax.nn.swish(self.norm2(y_bhwc)))
        return y_bhwc + (x_bhwc if self.shortcut is None else self.shortcut(x_bhwc))


class Encoder(nnx.Module):
    """Images to latents.

    Args:
        config: the architecture.
        width: c, the width of the codebook; the paper has no projection between them.
    """

    def __init__(self, config: AutoencoderConfig, width: int, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.patch, self.downsamplings = config.patch, config.downsamplings
        channels = [config.filters * m for m in config.multipliers]
        block = partial(ResidualBlock, dtype=dtype, rngs=rngs)
        self.stem = nnx.Conv(3 * config.patch**2, channels[0], (3, 3), use_bias=False, dtype=dtype, rngs=rngs)
        self.scales: nnx.List[nnx.List[ResidualBlock]] = nnx.List()
        before = channels[0]
        for after in channels:
            self.scales.append(
                nnx.List([block(before if i == 0 else after, after) for i in range(config.blocks)])
            )
            before = after
        self.bottleneck = nnx.List([block(before, before) for _ in range(config.blocks)])
        self.norm = _norm(before, dtype, rngs)
        self.head = nnx.Conv(before, width, (1, 1), dtype=dtype, rngs=rngs)
        # GroupNorm takes brightness and contrast of the whole image away; the linear path brings them at once.
        self.stride = config.stride
        self.skip = nnx.Linear(3 * self.stride**2, width, dtype=dtype, rngs=rngs) if config.skip else None

    def __call__(
        self, images_bhwc: Float[Array, "b H W 3"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b features"]]:
        """(B, H, W, 3) in [0, 1] to latents (B, h, w, c) and the pooled last hidden features, both float32."""
        x_bhwc = self.stem(space_to_depth(images_bhwc, self.patch))
        for i, blocks in enumerate(self.scales):
            for block in blocks:
                x_bhwc = block(x_bhwc)
            if i < self.downsamplings:
                x_bhwc = nnx.avg_pool(x_bhwc, (2, 2), (2, 2))
        for block in self.bottleneck:
            x_bhwc = block(x_bhwc)
        x_bhwc = jax.nn.swish(self.norm(x_bhwc))
        z_bhwc = self.head(x_bhwc)
        if self.skip is not None:
            z_bhwc += self.skip(space_to_depth(images_bhwc - 0.5, self.stride))
        return z_bhwc.astype(jnp.float32), jnp.mean(x_bhwc, axis=(1, 2)).astype(jnp.float32)


class Decoder(nnx.Module):
    """Averages of word embeddings to images; the encoder's mirror."""

    def __init__(self, config: AutoencoderConfig, width: int, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.patch, self.downsamplings = config.patch, config.downsamplings
        channels = [config.filters * m for m in config.multipliers]
        block = partial(ResidualBlock, dtype=dtype, rngs=rngs)
        before = channels[-1]
        self.stem = nnx.Conv(width, before, (3, 3), dtype=dtype, rngs=rngs)
        self.bottleneck = nnx.List([block(before, before) for _ in range(config.blocks)])
        self.scales: nnx.List[nnx.List[ResidualBlock]] = nnx.List()
        self.ups: nnx.List[nnx.Conv] = nnx.List()
        for i, after in reversed(list(enumerate(channels))):
            if i < self.downsamplings:
                self.ups.append(nnx.Conv(before, before, (3, 3), dtype=dtype, rngs=rngs))
            self.scales.append(
                nnx.List([block(before if j == 0 else after, after) for j in range(config.blocks)])
            )
            before = after
        self.norm = _norm(before, dtype, rngs)
        self.head = nnx.Conv(before, 3 * config.patch**2, (3, 3), dtype=dtype, rngs=rngs)
        self.stride = config.stride
        self.skip = nnx.Linear(width, 3 * self.stride**2, dtype=dtype, rngs=rngs) if config.skip else None

    def __call__(self, zhat_bhwc: Float[Array, "b h w c"]) -> Float[Array, "b H W 3"]:
        """(B, h, w, c) float to images (B, H, W, 3) float32, in [0, 1] but for overshoot."""
        x_bhwc = self.stem(zhat_bhwc)
        for block in self.bottleneck:
            x_bhwc = block(x_bhwc)
        first = len(self.scales) - self.downsamplings
        for i, blocks in enumerate(self.scales):
            if i >= first:
                x_bhwc = self.ups[i - first](x_bhwc.repeat(2, axis=1).repeat(2, axis=2))
            for block in blocks:
                x_bhwc = block(x_bhwc)
        x_bhwc = self.head(jax.nn.swish(self.norm(x_bhwc)))
        images_bhwc = depth_to_space(x_bhwc, self.patch)
        if self.skip is not None:
            images_bhwc += depth_to_space(self.skip(zhat_bhwc), self.stride)
        return images_bhwc.astype(jnp.float32)


class MeaningHead(nnx.Module):
    """From features of a whole image to one query per position of the meaning layers.

    Args:
        inputs: width of the features.
        hidden: hidden units.
        width: d, the width of the meaning view.
        shape, layers: the pyramid and how many of its first layers choose words by meaning.
    """

    def __init__(
        self, inputs: int, hidden: int, width: int, shape: PyramidShape, layers: int, *, rngs: nnx.Rngs
    ):
        self.ends = tuple(shape.tokens(l) for l in range(1, layers))
        self.norm = nnx.LayerNorm(inputs, rngs=rngs)
        self.input = nnx.Linear(inputs, hidden, rngs=rngs)
        # What tells the positions apart: the features are the same for all of them.
        self.position = nnx.Param(0.3 * jax.random.normal(rngs.params(), (shape.tokens(layers), hidden)))
        self.middle = nnx.Linear(hidden, hidden, rngs=rngs)
        self.output = nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, features_bf: Float[Array, "b f"]) -> tuple[Float[Array, "b n d"], ...]:
        """(B, inputs) float32 to one (B, n_l, d) float32 array per meaning layer."""
        x_bnh = self.input(self.norm(features_bf))[:, None] + self.position[...]
        x_bnh = jax.nn.swish(self.middle(jax.nn.swish(x_bnh)))
        return tuple(jnp.split(self.output(x_bnh), self.ends, axis=1))


class Autoencoder(nnx.Module):
    """Encoder, decoder and, where the config has meaning layers, the meaning head: all that is trained.

    Args:
        config: the architecture.
        width: c of the appearance view (with the paper's raw view: the language model's embedding width).
        meaning_width: d of the meaning view.
        trunk_width: width of the frozen trunk's features; ignored when `config.trunk` is "none".
    """

    def __init__(
        self,
        config: AutoencoderConfig,
        width: int,
        meaning_width: int,
        trunk_width: int = 0,
        *,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.encoder = Encoder(config, width, dtype=dtype, rngs=rngs)
        self.decoder = Decoder(config, width, dtype=dtype, rngs=rngs)
        self.has_trunk = config.trunk != "none"
        inputs = trunk_width if self.has_trunk else config.filters * config.multipliers[-1]
        self.meaning = (
            MeaningHead(
                inputs, config.head_width, meaning_width, config.shape, config.meaning_layers, rngs=rngs
            )
            if config.meaning_layers
            else None
        )

    def encode(
        self,
        images_bhwc: Float[Array, "b H W 3"],
        features_bf: Float[Array, "b f"] | None,
        meaning_codebook_vd: Float[Array, "v d"],
    ) -> tuple[Float[Array, "b h w c"], Meaning | None]:
        """Latents z, and what the meaning layers search by (None without a meaning head).

        Args:
            images_bhwc: (B, H, W, 3) float in [0, 1].
            features_bf: (B, trunk_width) float32 of the frozen trunk; not looked at without one.
            meaning_codebook_vd: (V, d) float32.
        """
        z_bhwc, hidden_bf = self.encoder(images_bhwc)
        if self.meaning is None:
            return z_bhwc, None
        if not self.has_trunk:
            features_bf = hidden_bf
        elif features_bf is None:
            raise ValueError("wanted the trunk's features (B, f), got None")
        queries = self.meaning(features_bf)
        return z_bhwc, Meaning(queries, meaning_codebook_vd)


def space_to_depth(x_bhwc: Float[Array, "b H W c"], patch: int) -> Float[Array, "b h w p"]:
    """(B, H, W, c) to (B, H / patch, W / patch, patch^2 c): each patch becomes channels."""
    b, h, w, c = x_bhwc.shape
    x = x_bhwc.reshape(b, h // patch, patch, w // patch, patch, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // patch, w // patch, patch**2 * c)


def depth_to_space(x_bhwp: Float[Array, "b h w p"], patch: int) -> Float[Array, "b H W c"]:
    """The inverse of `space_to_depth`."""
    b, h, w, p = x_bhwp.shape
    x = x_bhwp.reshape(b, h, w, patch, patch, p // patch**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * patch, w * patch, p // patch**2)


def _norm(channels: int, dtype, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """GroupNorm of 32 groups, fewer where the channels do not divide (tiny configurations)."""
    return nnx.GroupNorm(channels, num_groups=math.gcd(32, channels), dtype=dtype, rngs=rngs)
