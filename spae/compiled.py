"""The compiled functions of a tokenizer, and where compiled functions are kept between processes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from spae.architecture import AutoencoderConfig
from spae.files import cache_folder
from spae.images import to_float
from spae.nearest import nearest_few
from spae.quantize import QUANTIZERS, Quantized, normalised

if TYPE_CHECKING:  # frozen_lm keeps its own compiled functions by this file
    from spae.frozen_lm.masked_lm import BertEncoder
    from spae.pursuit import Pursuit

Items = TypeVar("Items", Sequence, np.ndarray)

# Batches are padded up to one of these sizes, so that there is one compiled function per size and no more.
BUCKETS = (1, 2, 4, 8, 16, 32)


def keep_compiled() -> None:
    """Keep compiled functions on disk, in `spae.files.cache_folder`, unless JAX has been given a cache of its own."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        # Small functions, too, are sooner read back than compiled, and there are many.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.01)


def in_parts(items: Items) -> Iterator[Items]:
    """Parts of the largest bucket's size, and what is left."""
    for start in range(0, len(items), BUCKETS[-1]):
        yield items[start : start + BUCKETS[-1]]


def padded(batch: np.ndarray) -> np.ndarray:
    """A batch whose last row is repeated until it has the size of a bucket."""
    size = next(bucket for bucket in BUCKETS if bucket >= len(batch))
    return np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])


class Compiled:
    """What a tokenizer computes, each function compiled once for every size of batch and of square.

    Parameters are arguments: another set of them compiles nothing again.

    Args:
        config: the architecture.
        graph: of the Autoencoder.
        frozen: gives the trunk and the pursuit (None without); called when an image is first looked at.
        language_model: what reads the words before the decoder, or None.
    """

    def __init__(
        self,
        config: AutoencoderConfig,
        graph: nnx.GraphDef,
        frozen: "Callable[[], tuple[nnx.Module, Pursuit | None]]",
        language_model: "BertEncoder | None",
    ):
        self.config = config
        self._graph = graph
        self._make_frozen = frozen
        self._language_model = language_model

    def codebook(self, params: nnx.State, view_vc: Float[Array, "v c"]) -> Float[Array, "v d"]:
        """What is searched and averaged, see `Autoencoder.codebook`."""
        return self._codebook(params, view_vc)

    def look(self, seen_bhwc: UInt8[np.ndarray, "b *t s s 3"]) -> Array:
        """What the trunk makes of squares: features (B, f), or with pursuit the words of the meaning layers (B, k)."""
        return self._look(self._frozen[1], seen_bhwc)

    def next_words(self, seen_bhwc: UInt8[np.ndarray, "b s s 3"], count: int) -> Int[Array, "b k count"]:
        """The rivals of the meaning layers' words, see `Pursuit.rivals`."""
        return self._next_words(self._frozen[1], seen_bhwc, count)

    def part_words(
        self, seen_bhwc: UInt8[np.ndarray, "b s s 3"], weights_brhw: Float[np.ndarray, "b r c c"], count: int
    ) -> Int[Array, "b r count"]:
        """Words of parts of an image, see `Pursuit.parts`."""
        return self._part_words(self._frozen[1], seen_bhwc, weights_brhw, count)

    def encode(
        self,
        params: nnx.State,
        looked: Array | None,
        codebooks: Mapping[str, Float[Array, "v c"]],
        images_bhwc: UInt8[np.ndarray, "b *t s s 3"],
    ) -> Quantized:
        """Words, and what was searched for; no averages, which nobody reads. `looked`: of `look`."""
        return self._encode(params, looked, dict(codebooks), images_bhwc)

    def nearest_few(
        self, query_nc: Float[Array, "n c"], codebook_vc: Float[Array, "v c"], count: int, unit: bool = False
    ) -> Int[Array, "n count"]:
        """See `spae.nearest.nearest_few`; `unit`: of a codebook whose rows are scaled to length 1."""
        return self._nearest_few(query_nc, codebook_vc, count, unit)

    def decode(
        self,
        params: nnx.State,
        ids: Sequence[Int[np.ndarray, " b *grid"]],
        codebooks: Mapping[str, Float[Array, "v c"]],
    ) -> Float[Array, "b *t s s 3"]:
        """Images or clips of words, any prefix of the pyramid."""
        zhat_bhwc = self._average(tuple(ids), codebooks["appearance"])
        if self._language_model is not None:
            zhat_bhwc = self._read(self._language_model_parts[1], zhat_bhwc)
        attended = tuple(ids[: self.config.meaning_layers]) if self.config.cross_attention else ()
        return self._decode(params, zhat_bhwc, attended, codebooks["meaning"], len(ids))

    @cached_property
    def _frozen(self) -> tuple[nnx.GraphDef, nnx.State]:
        return nnx.split(self._make_frozen())

    @cached_property
    def _language_model_parts(self) -> tuple[nnx.GraphDef, nnx.State]:
        return nnx.split(self._language_model)

    @cached_property
    def _codebook(self) -> Callable[..., Array]:
        graph = self._graph

        def codebook(params, view_vc):
            return nnx.merge(graph, params).codebook(view_vc)

        return jax.jit(codebook)

    @cached_property
    def _look(self) -> Callable[..., Array]:
        graph = self._frozen[0]

        def look(state, seen_bhwc):
            trunk, pursuit = nnx.merge(graph, state)
            # Of a clip the mean over its frames, as SPAE's video variant takes CLIP's.
            frames = to_float(seen_bhwc).reshape(-1, *seen_bhwc.shape[-3:])
            if pursuit is not None:
                return pursuit(trunk, frames)
            features_nf = trunk(frames)
            return features_nf.reshape(len(seen_bhwc), -1, features_nf.shape[-1]).mean(axis=1)

        return jax.jit(look)

    @cached_property
    def _next_words(self) -> Callable[..., Array]:
        graph = self._frozen[0]

        def next_words(state, seen_bhwc, count):
            trunk, pursuit = nnx.merge(graph, state)
            return pursuit.rivals(trunk, to_float(seen_bhwc), count)

        return jax.jit(next_words, static_argnums=2)

    @cached_property
    def _part_words(self) -> Callable[..., Array]:
        graph = self._frozen[0]

        def part_words(state, seen_bhwc, weights_brhw, count):
            trunk, pursuit = nnx.merge(graph, state)
            return pursuit.parts(trunk, to_float(seen_bhwc), weights_brhw, count)

        return jax.jit(part_words, static_argnums=3)

    @cached_property
    def _encode(self) -> Callable[..., Quantized]:
        config, graph, shape = self.config, self._graph, self.config.shape
        quantize = QUANTIZERS[config.quantizer]

        def encode(params, looked, codebooks, images_bhwc):
            features_bf, chosen_bk = (None, looked) if config.meaning == "pursuit" else (looked, None)
            z_bhwc, meaning = nnx.merge(graph, params).encode(
                to_float(images_bhwc), features_bf, codebooks["meaning"], chosen_bk
            )
            found = quantize(
                z_bhwc, codebooks["appearance"], shape, meaning, config.fill, config.unit, config.apart
            )
            # XLA leaves out what is not returned: of every prefix the whole grid.
            return found._replace(averages=())

        return jax.jit(encode)

    @cached_property
    def _nearest_few(self) -> Callable[..., Array]:
        def search(query_nc, codebook_vc, count, unit):
            return nearest_few(query_nc, normalised(codebook_vc) if unit else codebook_vc, count)

        return jax.jit(search, static_argnums=(2, 3))

    @cached_property
    def _average(self) -> Callable[..., Array]:
        config, shape = self.config, self.config.shape
        quantizer = QUANTIZERS[config.quantizer]

        def average(ids, codebook_vc):
            return quantizer.prefix_averages(ids, codebook_vc, shape, config.fill, config.apart)[-1]

        return jax.jit(average)

    @cached_property
    def _read(self) -> Callable[..., Array]:
        graph = self._language_model_parts[0]
        return jax.jit(lambda state, words_bhwc: nnx.merge(graph, state).grid(words_bhwc))

    @cached_property
    def _decode(self) -> Callable[..., Any]:
        graph = self._graph
        return jax.jit(lambda params, *words: nnx.merge(graph, params).decode(*words))
