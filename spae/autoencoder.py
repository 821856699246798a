"""The tokenizer's networks in Flax NNX: MAGVIT's CNN, and a head that chooses words by meaning.

Encoder and decoder follow SPAE, section 4.1 and appendix (= MAGVIT's VQGAN, size L): residual blocks of
GroupNorm - swish - 3x3 convolution, average-pooled down, nearest-neighbour up. With `AutoencoderConfig(
image_size=128, downsamplings=3)` and c = 1536 they have the paper's 23.7M + 35.7M parameters.

The same classes are the 3-D CNN of clips where `config.frames` is more than 1: kernels are 3x3x3, and the first
`temporal_downsamplings` halvings halve time as well (MAGVIT's 3-D VQGAN; 176M parameters at the paper's size).
`x_bhwc` is then (B, T, H, W, C).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from spae.errors import InputError
from spae.nearest import nearest_few
from spae.pyramid import PyramidShape
from spae.quantize import Fill, Meaning
from spae.vit import ViTDecoder, ViTEncoder


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Everything that, with a vocabulary, defines a tokenizer's function."""

    image_size: int = 64  # pixels a side
    # side of every layer, top to bottom; (t, h, w) of every layer for clips
    pyramid: tuple[int, ...] | tuple[tuple[int, int, int], ...] = (1, 2, 4, 8, 16, 16)
    network: Literal["cnn", "vit"] = "cnn"  # "vit": `filters` wide, `blocks` deep, one latent a patch (LQAE)
    heads: int = 8  # of the ViT's attention
    filters: int = 128  # channels at full resolution
    multipliers: tuple[int, ...] = (1, 2, 2, 4)  # of `filters`, per scale
    blocks: int = 2  # residual blocks per scale, and again as bottleneck
    downsamplings: int = 2  # the first so many scales end in a halving
    patch: int = 1  # pixels a side folded into channels before the first convolution (1 in the paper)
    skip: bool = False  # a linear path beside each network, patches to latents and back (none in the paper)
    codebook: Literal["frozen", "learned", "projected"] = (
        "frozen"  # what is searched: see Autoencoder.codebook
    )
    meaning_layers: int = 0  # the first so many layers choose words by meaning (0 in the paper)
    # How they choose: by a trained head, or the words nearest to the trunk's features, best first (V2L).
    meaning: Literal["head", "ranked"] = "head"
    cross_attention: bool = False  # the decoder also looks at the vectors of the meaning layers' words (V2L)
    head_width: int = 512  # hidden units of the meaning head
    trunk: Literal["conse", "clip", "none"] = (
        "none"  # frozen network that feeds the meaning head; none: the encoder does
    )
    quantizer: Literal["saq", "rq"] = "saq"
    unit: bool = False  # latents and codebook are scaled to length 1 for the search (LQAE)
    # A frozen masked language model reads the words, and the decoder its states instead of their embeddings (LQAE).
    language_model: Literal["none", "masked"] = "none"
    fill: Fill = "nearest"  # positions that a prefix leaves without a word
    frames: int = 1  # of a clip; 1: the tokenizer is one of images, and its convolutions are 2-D
    temporal_downsamplings: int = 0  # the first so many halvings halve time as well

    def __post_init__(self):
        sizes = (self.image_size, self.filters, *self.multipliers, self.blocks, self.patch, self.head_width)
        if min(sizes) < 1 or not self.multipliers or not self.pyramid:
            raise InputError(f"sizes, filters, multipliers, blocks and patch must be at least 1, got {self}")
        for name, choices in (
            ("quantizer", ("saq", "rq")),
            ("fill", ("nearest", "zeros")),
            ("codebook", ("frozen", "learned", "projected")),
            ("meaning", ("head", "ranked")),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is one of {', '.join(choices)}, not {getattr(self, name)!r}")
        if self.frames < 1 or not 0 <= self.temporal_downsamplings <= self.downsamplings * (self.frames > 1):
            raise InputError(
                "frames is at least 1, and temporal_downsamplings 0 .. downsamplings (0 for images, frames=1), "
                f"got {self.frames} and {self.temporal_downsamplings}"
            )
        if len(self.shape.grid) != self.rank:
            raise InputError(
                f"with frames={self.frames} every layer of the pyramid is "
                f"{'a side such as 16' if self.rank == 2 else 'a triple (t, h, w)'}, got {self.pyramid}"
            )
        grid = self.image_size / self.stride
        if grid != self.shape.grid[-2] or grid != self.shape.grid[-1]:
            raise InputError(
                f"a {self.image_size}-px image in patches of {self.patch}, halved {self.downsamplings} times, has side "
                f"{grid:g}, but the last layer of the pyramid has side {self.shape.grid[-1]}: change one of the four"
            )
        if self.rank == 3 and self.frames / self.strides[0] != self.shape.grid[0]:
            raise InputError(
                f"{self.frames} frames, halved {self.temporal_downsamplings} times, are "
                f"{self.frames / self.strides[0]:g}, but the last layer of the pyramid has {self.shape.grid[0]}: "
                "change one of the three"
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
        if self.meaning == "ranked" and self.trunk == "none":
            raise InputError(
                'meaning "ranked" ranks words by a trunk\'s features: name a trunk, conse or clip'
            )
        if self.cross_attention and self.meaning_layers == 0:
            raise InputError(
                "cross_attention looks at the words of the meaning layers: wanted at least 1, got 0"
            )
        if self.codebook == "learned" and self.meaning_layers > 0:
            raise InputError(
                f'the codes of codebook "learned" mean nothing: wanted meaning_layers 0, got {self.meaning_layers}'
            )
        if self.network not in ("cnn", "vit"):
            raise InputError(f"network is cnn or vit, not {self.network!r}")
        if self.network == "vit":
            self._check_vit()
        if self.language_model not in ("none", "masked"):
            raise InputError(f"language_model is none or masked, not {self.language_model!r}")
        if self.language_model == "masked" and self.codebook != "frozen":
            raise InputError(
                f'a masked language model reads its own words: wanted codebook "frozen", got {self.codebook!r}'
            )
        if self.language_model == "masked" and (len(self.pyramid) > 1 or self.frames > 1):
            raise InputError(
                "a masked language model reads one word at every position of an image: wanted a pyramid of one layer, "
                f"got {self.pyramid} and {self.frames} frames"
            )

    def _check_vit(self) -> None:
        wanted = {
            "multipliers": (1,),
            "downsamplings": 0,
            "skip": False,
            "frames": 1,
            "cross_attention": False,
        }
        for name, value in wanted.items():
            if getattr(self, name) != value:
                raise InputError(
                    f'network "vit" has one scale, no path beside it and reads images: wanted {name} {value}, '
                    f"got {getattr(self, name)}"
                )
        if self.heads < 1 or self.filters % self.heads:
            raise InputError(f"heads must divide filters, got {self.heads} and {self.filters}")

    @property
    def shape(self) -> PyramidShape:
        return PyramidShape(self.pyramid)

    @property
    def stride(self) -> int:
        """Pixels a side that one position of the finest layer stands for."""
        return self.patch * 2**self.downsamplings

    @property
    def rank(self) -> int:
        """Axes that the convolutions run over: 2 (H, W) for images, 3 (T, H, W) for clips."""
        return 3 if self.frames > 1 else 2

    @property
    def strides(self) -> tuple[int, ...]:
        """Frames and pixels along every axis that one position of the finest layer stands for."""
        return self._cell(2**self.temporal_downsamplings, self.stride)

    @property
    def patches(self) -> tuple[int, ...]:
        """Frames and pixels along every axis that are folded into channels: patches are of one frame."""
        return self._cell(1, self.patch)

    @property
    def halvings(self) -> tuple[tuple[int, ...], ...]:
        """By how much each downsampling shrinks every axis, finest scale first."""
        times = (2 if i < self.temporal_downsamplings else 1 for i in range(self.downsamplings))
        return tuple(self._cell(time, 2) for time in times)

    def _cell(self, time: int, side: int) -> tuple[int, ...]:
        return (time, side, side)[-self.rank :]


class ResidualBlock(nnx.Module):
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

    def __call__(self, x_bhwc):
        y_bhwc = self.conv1(jax.nn.swish(self.norm1(x_bhwc)))
        y_bhwc = self.conv2(jax.nn.swish(self.norm2(y_bhwc)))
        return y_bhwc + (x_bhwc if self.shortcut is None else self.shortcut(x_bhwc))


class Encoder(nnx.Module):
    """Images, or clips, to latents.

    Args:
        config: the architecture.
        width: c, the width of the codebook; the paper has no projection between them.
    """

    def __init__(self, config: AutoencoderConfig, width: int, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.patches, self.halvings, rank = config.patches, config.halvings, config.rank
        channels = [config.filters * m for m in config.multipliers]
        block = partial(ResidualBlock, rank=rank, dtype=dtype, rngs=rngs)
        conv = partial(nnx.Conv, dtype=dtype, rngs=rngs)
        self.stem = conv(3 * math.prod(self.patches), channels[0], (3,) * rank, use_bias=False)
        self.scales: nnx.List[nnx.List[ResidualBlock]] = nnx.List()
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
        block = partial(ResidualBlock, rank=rank, dtype=dtype, rngs=rngs)
        conv = partial(nnx.Conv, kernel_size=(3,) * rank, dtype=dtype, rngs=rngs)
        before = channels[-1]
        self.stem = conv(width, before)
        self.bottleneck = nnx.List([block(before, before) for _ in range(config.blocks)])
        self.attention = (
            CrossAttention(before, meaning_width, dtype=dtype, rngs=rngs) if config.cross_attention else None
        )
        self.scales: nnx.List[nnx.List[ResidualBlock]] = nnx.List()
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
    """Encoder, decoder and, where the config has them, meaning head and codebook: all that is trained.

    Args:
        config: the architecture.
        width: c of the appearance view (with the paper's raw view: the language model's embedding width).
        meaning_width: d of the meaning view.
        trunk_width: width of the frozen trunk's features; ignored when `config.trunk` is "none".
        words: V, the size of the vocabulary; only a learned codebook looks at it.

    Raises:
        InputError: words are ranked by the trunk's features, but the meaning view has another width.
    """

    def __init__(
        self,
        config: AutoencoderConfig,
        width: int,
        meaning_width: int,
        trunk_width: int = 0,
        words: int = 0,
        *,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.encoder: Encoder | ViTEncoder
        self.decoder: Decoder | ViTDecoder
        if config.network == "vit":
            sizes = (config.shape.grid[-1], config.patch, config.filters, config.blocks, config.heads, width)
            self.encoder = ViTEncoder(*sizes, dtype=dtype, rngs=rngs)
            self.decoder = ViTDecoder(*sizes, dtype=dtype, rngs=rngs)
        else:
            self.encoder = Encoder(config, width, dtype=dtype, rngs=rngs)
            self.decoder = Decoder(config, width, meaning_width, dtype=dtype, rngs=rngs)
        self.has_trunk = config.trunk != "none"
        self.meaning_layers, self.cross_attention = config.meaning_layers, config.cross_attention
        self.meaning_counts = tuple(len(config.shape.positions(l + 1)) for l in range(config.meaning_layers))
        inputs = trunk_width if self.has_trunk else config.filters * config.multipliers[-1]
        self.ranked = config.meaning == "ranked"
        if self.ranked and trunk_width != meaning_width:
            raise InputError(
                f"ranking words needs the trunk's features ({trunk_width}) and the words' vectors ({meaning_width}) in "
                "one space: build the vocabulary with --embed and the guidance of the config"
            )
        self.meaning = (
            MeaningHead(
                inputs, config.head_width, meaning_width, config.shape, config.meaning_layers, rngs=rngs
            )
            if config.meaning_layers and not self.ranked
            else None
        )
        # What training adds to the view. Adam, averaging and the losses do to it what they would do to the whole
        # table, and it needs no initial value from outside.
        self.codes = nnx.Param(jnp.zeros((words, width))) if config.codebook == "learned" else None
        # As exact as the search in what it makes.
        self.projection = (
            nnx.Linear(width, width, precision=jax.lax.Precision.HIGHEST, rngs=rngs)
            if config.codebook == "projected"
            else None
        )

    def codebook(self, view_vc: Float[Array, "v c"]) -> Float[Array, "v c"]:
        """What is searched and averaged, (V, c) float32, by `config.codebook`.

        "frozen": the appearance view itself (the paper). "learned": a trained table that began as the view (VQGAN,
        arXiv 2012.09841). "projected": a trained linear map of the view (V2L-Tokenizer, arXiv 2403.07874).
        """
        if self.codes is not None:
            return view_vc + self.codes[...]
        return view_vc if self.projection is None else self.projection(view_vc)

    def encode(
        self,
        images_bhwc: Float[Array, "b *pixels 3"],
        features_bf: Float[Array, "b f"] | None,
        meaning_codebook_vd: Float[Array, "v d"],
    ) -> tuple[Float[Array, "b *space c"], Meaning | None]:
        """Latents z, and what the meaning layers search by (None without meaning layers).

        Args:
            images_bhwc: (B, H, W, 3) float in [0, 1]; clips (B, T, H, W, 3).
            features_bf: (B, trunk_width) float32 of the frozen trunk; not looked at without one.
            meaning_codebook_vd: (V, d) float32.
        """
        z_bhwc, hidden_bf = self.encoder(images_bhwc)
        if not self.meaning_layers:
            return z_bhwc, None
        if not self.has_trunk:
            features_bf = hidden_bf
        elif features_bf is None:
            raise ValueError("wanted the trunk's features (B, f), got None")
        if self.meaning is None:
            return z_bhwc, ranked(features_bf, meaning_codebook_vd, self.meaning_counts)
        return z_bhwc, Meaning(self.meaning(features_bf), meaning_codebook_vd)

    def decode(
        self,
        zhat_bhwc: Float[Array, "b *space c"],
        ids: Sequence[Int[Array, "b *grid"]],
        meaning_codebook_vd: Float[Array, "v d"],
    ) -> Float[Array, "b *pixels 3"]:
        """Images (B, H, W, 3) float32, or clips, from averages of words, see `Decoder`.

        Args:
            zhat_bhwc: (B, h, w, c) or (B, t, h, w, c), of `prefix_averages`.
            ids: with cross-attention, the words of one layer or more; it looks at those of the meaning layers.
            meaning_codebook_vd: (V, d) float32, where their vectors are.
        """
        if isinstance(self.decoder, ViTDecoder) or not self.cross_attention:
            return self.decoder(zhat_bhwc)
        batch = zhat_bhwc.shape[0]
        ids_bk = jnp.concatenate([one.reshape(batch, -1) for one in ids[: self.meaning_layers]], axis=1)
        return self.decoder(zhat_bhwc, meaning_codebook_vd[ids_bk])


def ranked(
    features_bf: Float[Array, "b f"], meaning_codebook_vd: Float[Array, "v f"], counts: Sequence[int]
) -> Meaning:
    """The words nearest to an image's features, best first and all different, dealt to the layers in order.

    Args:
        features_bf: (B, f) float32.
        meaning_codebook_vd: (V, f) float32, in the same space; where all rows have one length, the nearest word is
            the one of the largest cosine.
        counts: words of every meaning layer.
    """
    ids_bk = nearest_few(features_bf, meaning_codebook_vd, sum(counts))
    queries_bkf = jnp.broadcast_to(features_bf[:, None], (*ids_bk.shape, features_bf.shape[1]))
    ends = np.cumsum(counts)[:-1]
    return Meaning(
        tuple(jnp.split(queries_bkf, ends, axis=1)),
        meaning_codebook_vd,
        tuple(jnp.split(ids_bk, ends, axis=1)),
    )


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
