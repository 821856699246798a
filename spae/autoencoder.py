"""All that is trained of a tokenizer, in Flax NNX: encoder and decoder, a head that chooses words by meaning, codes."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from spae.architecture import AutoencoderConfig
from spae.cnn import Decoder, Encoder, LinearPath
from spae.errors import InputError
from spae.nearest import nearest_few
from spae.pyramid import PyramidShape
from spae.quantize import Meaning
from spae.vit import ViTDecoder, ViTEncoder


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
        # Pooled features vary little around their mean: the mean of squares less the square of the mean, Flax's
        # faster variance, would leave three digits of them.
        self.norm = nnx.LayerNorm(inputs, use_fast_variance=False, rngs=rngs)
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
        self.encoder: Encoder | ViTEncoder | LinearPath
        self.decoder: Decoder | ViTDecoder | LinearPath
        view_width, width = width, config.latents or width
        if config.network == "vit":
            sizes = (config.shape.grid[-1], config.patch, config.filters, config.blocks, config.heads, width)
            self.encoder = ViTEncoder(*sizes, dtype=dtype, rngs=rngs)
            self.decoder = ViTDecoder(*sizes, dtype=dtype, rngs=rngs)
        elif config.network == "linear":
            self.encoder = LinearPath(config, width, backwards=False, dtype=dtype, rngs=rngs)
            self.decoder = LinearPath(config, width, backwards=True, dtype=dtype, rngs=rngs)
        else:
            self.encoder = Encoder(config, width, dtype=dtype, rngs=rngs)
            self.decoder = Decoder(config, width, meaning_width, dtype=dtype, rngs=rngs)
        self.has_trunk = config.trunk != "none"
        self.meaning_layers, self.cross_attention = config.meaning_layers, config.cross_attention
        self.apart = config.apart
        self.meaning_counts = tuple(len(config.shape.positions(l + 1)) for l in range(config.meaning_layers))
        inputs = trunk_width if self.has_trunk else _hidden(config, width)
        self.ranked = config.meaning == "ranked"
        headed = config.meaning_layers > 0 and config.meaning == "head"
        if self.ranked and trunk_width != meaning_width:
            raise InputError(
                f"ranking words needs the trunk's features ({trunk_width}) and the words' vectors ({meaning_width}) in "
                "one space: build the vocabulary with --embed and the guidance of the config"
            )
        self.meaning = (
            MeaningHead(
                inputs, config.head_width, meaning_width, config.shape, config.meaning_layers, rngs=rngs
            )
            if headed
            else None
        )
        # What training adds to the view. Adam, averaging and the losses do to it what they would do to the whole
        # table, and it needs no initial value from outside.
        self.codes = nnx.Param(jnp.zeros((words, width))) if config.codebook == "learned" else None
        # As exact as the search in what it makes.
        exact = partial(nnx.Linear, precision=jax.lax.Precision.HIGHEST, rngs=rngs)
        self.projection = exact(view_width, width) if config.codebook in ("projected", "mapped") else None
        # Its output begins at nothing: so does what it adds to the linear map.
        self.perceptron = (
            nnx.Sequential(
                exact(view_width, config.map_width),
                jax.nn.relu,
                exact(config.map_width, width, kernel_init=nnx.initializers.zeros),
            )
            if config.map_width
            else None
        )
        # A view's rows have length 1; a layer that is to learn wants numbers of size 1.
        self.view_scale = view_width**0.5 if config.codebook == "mapped" else 1.0

    def codebook(self, view_vc: Float[Array, "v c"]) -> Float[Array, "v c"]:
        """What is searched and averaged, (V, c) float32, by `config.codebook`.

        "frozen": the appearance view itself (the paper). "learned": a trained table that began as the view (VQGAN,
        arXiv 2012.09841). "projected": a trained linear map of the view to its own width (V2L-Tokenizer, arXiv
        2403.07874). "mapped": one to the width of the latents (as SimVQ, arXiv 2411.02038): the words stay the language
        model's, and what they look like is learned. With `config.map_width` a perceptron is added to the map (ours).
        """
        if self.codes is not None:
            return view_vc + self.codes[...]
        if self.projection is None:
            return view_vc
        scaled_vc = view_vc * self.view_scale
        mapped_vc = self.projection(scaled_vc)
        return mapped_vc if self.perceptron is None else mapped_vc + self.perceptron(scaled_vc)

    def encode(
        self,
        images_bhwc: Float[Array, "b *pixels 3"],
        features_bf: Float[Array, "b f"] | None,
        meaning_codebook_vd: Float[Array, "v d"],
        chosen_bk: Int[Array, "b k"] | None = None,
    ) -> tuple[Float[Array, "b *space c"], Meaning | None]:
        """Latents z, and what the meaning layers search by (None without meaning layers).

        Args:
            images_bhwc: (B, H, W, 3) float in [0, 1]; clips (B, T, H, W, 3).
            features_bf: (B, trunk_width) float32 of the frozen trunk; not looked at without one.
            meaning_codebook_vd: (V, d) float32.
            chosen_bk: (B, k) int32, the words of the meaning layers where they are chosen elsewhere (pursuit).
        """
        z_bhwc, hidden_bf = self.encoder(images_bhwc)
        if not self.meaning_layers:
            return z_bhwc, None
        if chosen_bk is not None:
            ends = np.cumsum(self.meaning_counts)[:-1]
            return z_bhwc, Meaning((), meaning_codebook_vd, tuple(jnp.split(chosen_bk, ends, axis=1)))
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
        ids: Sequence[Int[Array, " b *grid"]],
        meaning_codebook_vd: Float[Array, "v d"],
        length_b: Int[Array, " b"] | int,
    ) -> Float[Array, "b *pixels 3"]:
        """Images (B, H, W, 3) float32, or clips, from averages of words, see `Decoder`.

        Where all words that a picture shows were chosen by meaning and stand apart, they are no more than a colour at
        a place, and that is what is shown of them: see `without_texture`.

        Args:
            zhat_bhwc: (B, h, w, c) or (B, t, h, w, c), of `prefix_averages`.
            ids: with cross-attention, the words of one layer or more; it looks at those of the meaning layers.
            meaning_codebook_vd: (V, d) float32, where their vectors are.
            length_b: how many layers each picture shows.
        """
        if not isinstance(self.decoder, Decoder) or not self.cross_attention:
            decoded = self.decoder(zhat_bhwc)
        else:
            batch = zhat_bhwc.shape[0]
            ids_bk = jnp.concatenate([one.reshape(batch, -1) for one in ids[: self.meaning_layers]], axis=1)
            decoded = self.decoder(zhat_bhwc, meaning_codebook_vd[ids_bk])
        if not self.apart:
            return decoded
        colours_alone_b = jnp.broadcast_to(jnp.asarray(length_b) <= self.apart, decoded.shape[:1])
        return jnp.where(
            colours_alone_b.reshape(-1, *[1] * (decoded.ndim - 1)),
            without_texture(decoded, zhat_bhwc.shape[-3:-1]),
            decoded,
        )


def without_texture(
    images_bhwc: Float[Array, "b *pixels 3"], grid: Sequence[int]
) -> Float[Array, "b *pixels 3"]:
    """Images, or clips, of the mean colours of the patches that one latent each stands for, and between them
    bilinear."""
    *lead, height, width, channels = images_bhwc.shape
    rows, columns = grid
    patches = images_bhwc.reshape(*lead, rows, height // rows, columns, width // columns, channels)
    return jax.image.resize(patches.mean(axis=(-4, -2)), images_bhwc.shape, "linear")


def _hidden(config: AutoencoderConfig, width: int) -> int:
    """Width of the encoder's pooled features."""
    return width if config.network == "linear" else config.filters * config.multipliers[-1]


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
