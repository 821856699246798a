"""Images' latents to words: streaming average quantization (SAQ), and residual quantization beside it.

Our names = the paper's symbols: `z_bhwc` = z, `queries[l - 1]` = z_l, `ids[l - 1]` = k_l,
`averages[l - 1]` = zhat_{<=l}, `shape.positions(l)` = P(l). SPAE, section 3.1; docs/paper.md.

In the paper one table serves both to choose words and to average them. Here a layer may also choose its words
by a query of its own in another view of the same table (`Meaning`); the words it chose enter the average
through `codebook_vc` like all others. Without `meaning` this is the paper's method exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from spae.errors import InputError
from spae.nearest import nearest
from spae.pyramid import PyramidShape

Fill = Literal["nearest", "zeros"]


class Meaning(NamedTuple):
    """What the first layers search by instead of z: `queries[l - 1]` (B, n_l, d) in `codebook_vd` (V, d).

    Where `ids[l - 1]` (B, n_l) are given, the words were chosen by other rules than each query's nearest; there may
    then be no queries.
    """

    queries: tuple[Float[Array, "b n d"], ...]
    codebook_vd: Float[Array, "v d"]
    ids: tuple[Int[Array, "b n"], ...] | None = None


class Quantized(NamedTuple):
    """The result for all D layers of a pyramid.

    Attributes:
        ids: per layer (B, *grid_l) int32, the chosen words.
        averages: per prefix 1 .. D (B, h, w, c) float32, what the decoder sees; no gradient.
        queries: per layer (B, n_l, c or d) float32, the vectors that were searched; differentiable, for the
            semantic loss. Of layers whose words were given without any, (B, n_l, 0).
    """

    ids: tuple[Int[Array, "b *grid"], ...]
    averages: tuple[Float[Array, "b *space c"], ...]
    queries: tuple[Float[Array, "b n c"], ...]


@dataclass(frozen=True)
class Quantizer:
    """How the words of several layers make up the latent at a place.

    Attributes:
        query: what a layer searches for: of z at its n positions (B, n, c), the sum of the words before there, and how
            many those are (n,).
        average: what the decoder sees: of the sum of the words at all p positions (B, p, c), and how many (p,).
    """

    query: Callable[[Array, Array, Int[np.ndarray, " n"]], Array]
    average: Callable[[Array, Int[np.ndarray, " p"]], Array]

    def __call__(
        self,
        z_bhwc: Float[Array, "b *space c"],
        codebook_vc: Float[Array, "v c"],
        shape: PyramidShape,
        meaning: Meaning | None = None,
        fill: Fill = "nearest",
        unit: bool = False,
        apart: int = 0,
    ) -> Quantized:
        """The words of latents.

        Args:
            z_bhwc: (B, h, w, c) float latents, (h, w) = `shape.grid` (or (B, t, h, w, c) for video).
            codebook_vc: (V, c) float embeddings.
            shape: the pyramid.
            meaning: queries for the first layers in a view of their own, or None (the paper).
            fill: what positions without a word hold in `averages`: the value of the nearest covered position
                (ours: the paper does not say), or zeros.
            unit: search by direction: queries and codebook are scaled to length 1 before they are compared (LQAE,
                arXiv 2302.00902). The average takes the embeddings as they are.
            apart: the words of the first so many layers, chosen by meaning, are shown in the prefixes of these layers
                only and never averaged with words that z chose (ours; 0 in the paper).

        Raises:
            InputError: latents, codebook and pyramid do not fit each other.
        """
        _check(z_bhwc, codebook_vc, shape, meaning, fill)
        batch, width = z_bhwc.shape[0], z_bhwc.shape[-1]
        z_bpc = z_bhwc.reshape(batch, -1, width)
        codebook_vc = jax.lax.stop_gradient(codebook_vc)
        searched_vc = normalised(codebook_vc) if unit else codebook_vc
        own, chosen = _given(meaning)
        total_bpc = jnp.zeros_like(z_bpc)
        count_p = np.zeros(z_bpc.shape[1], np.int32)
        queries: dict[int, jax.Array] = dict(enumerate(own, start=1))
        ids: dict[int, jax.Array] = {}
        for wave in shape.waves:
            # No two layers of a wave share a position, so none of them waits for another's words.
            by_meaning = [layer for layer in wave if layer <= len(own)]
            by_latents = [layer for layer in wave if layer > len(own)]
            for layer in by_latents:
                at = shape.flat_positions(layer)
                query_bnc = self.query(z_bpc[:, at], total_bpc[:, at], count_p[at])
                queries[layer] = normalised(query_bnc) if unit else query_bnc
            if chosen is not None:
                ids |= {layer: chosen[layer - 1] for layer in by_meaning}
            elif meaning is not None:
                ids |= _search({layer: queries[layer] for layer in by_meaning}, meaning.codebook_vd)
            ids |= _search({layer: queries[layer] for layer in by_latents}, searched_vc)
            for layer in wave:
                if layer > apart:
                    at = shape.flat_positions(layer)
                    total_bpc = total_bpc.at[:, at].add(codebook_vc[ids[layer]])
                    count_p[at] += 1
        layers = range(1, len(shape) + 1)
        grids = tuple(ids[l].reshape(batch, *shape.layers[l - 1]) for l in layers)
        averages = self.prefix_averages(grids, codebook_vc, shape, fill, apart)
        return Quantized(grids, averages, tuple(queries[l] for l in layers))

    def prefix_averages(
        self,
        ids: Sequence[Int[Array, "b *grid"]],
        codebook_vc: Float[Array, "v c"],
        shape: PyramidShape,
        fill: Fill = "nearest",
        apart: int = 0,
    ) -> tuple[Float[Array, "b *space c"], ...]:
        """zhat_{<=l} for every prefix of the given layers, from their words alone: how a pyramid is decoded.

        Args:
            ids: per layer (B, *grid_l) int; any prefix of the pyramid.
            codebook_vc: (V, c) float32 embeddings.
            shape: the pyramid.
            fill, apart: as for the words of latents.

        Returns:
            One (B, h, w, c) float32 array per prefix.
        """
        batch, width = ids[0].shape[0], codebook_vc.shape[1]
        nothing_bpc = jnp.zeros((batch, int(np.prod(shape.grid)), width), codebook_vc.dtype)
        total_bpc, averages = nothing_bpc, []
        for layer, ids_l in enumerate(ids, start=1):
            first = first_shown(layer, apart)
            total_bpc = nothing_bpc if layer == first else total_bpc
            total_bpc = total_bpc.at[:, shape.flat_positions(layer)].add(
                codebook_vc[ids_l.reshape(batch, -1)]
            )
            value_bpc = self.average(total_bpc, shape.coverage(layer, first).reshape(-1))
            if fill == "nearest":
                value_bpc = value_bpc[:, shape.nearest_covered(layer, first)]
            averages.append(value_bpc.reshape(batch, *shape.grid, width))
        return tuple(averages)


# SAQ: z_l = z + sum_{i<l} (z - e(k_i)) = (m + 1) z - sum e(k_i) at the positions P(l), where m words came before. Every
# word then moves the average at its position towards z: zhat = mean of e(k_i).
streaming_average = Quantizer(
    query=lambda z_bnc, sum_bnc, count_n: z_bnc * (count_n + 1)[:, None].astype(np.float32) - sum_bnc,
    average=lambda sum_bpc, count_p: sum_bpc / np.maximum(count_p, 1)[:, None].astype(np.float32),
)
# RQ, the paper's ablation: z_l = z - sum_{i<l} e(k_i), and zhat is the sum of the words.
residual = Quantizer(
    query=lambda z_bnc, sum_bnc, count_n: z_bnc - sum_bnc, average=lambda sum_bpc, count_p: sum_bpc
)

QUANTIZERS = {"saq": streaming_average, "rq": residual}


def first_shown(layer: int, apart: int) -> int:
    """The first layer whose words are in the average of the prefix that ends with `layer`."""
    return apart + 1 if layer > apart else 1


def normalised(x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    """Vectors scaled to length 1; zeros stay zeros."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)


def _given(meaning: Meaning | None) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...] | None]:
    """The queries of the meaning layers, and their words where those were chosen elsewhere."""
    if meaning is None:
        return (), None
    if meaning.ids is None or meaning.queries:
        return meaning.queries, meaning.ids
    return tuple(jnp.zeros((*ids_bn.shape, 0)) for ids_bn in meaning.ids), meaning.ids


def _search(queries: dict[int, jax.Array], codebook_vc: jax.Array) -> dict[int, jax.Array]:
    """The nearest words of several layers' queries (B, n_l, c) in one search: per layer (B, n_l) int32."""
    if not queries:
        return {}
    q_bnc = jax.lax.stop_gradient(jnp.concatenate(list(queries.values()), axis=1))
    ids_bn = nearest(q_bnc.reshape(-1, q_bnc.shape[-1]), codebook_vc).reshape(q_bnc.shape[:2])
    ends = np.cumsum([q.shape[1] for q in queries.values()])[:-1]
    return dict(zip(queries, jnp.split(ids_bn, ends, axis=1), strict=True))


def _check(z_bhwc, codebook_vc, shape, meaning, fill):
    if z_bhwc.shape[1:-1] != tuple(shape.grid) or z_bhwc.shape[-1] != codebook_vc.shape[-1]:
        raise InputError(
            f"wanted latents (B, {', '.join(map(str, shape.grid))}, c) for this pyramid and a codebook (V, c), "
            f"got {z_bhwc.shape} and {codebook_vc.shape}"
        )
    if fill not in ("nearest", "zeros"):
        raise InputError(f'fill is "nearest" or "zeros", not {fill!r}')
    if meaning is None:
        return
    if meaning.codebook_vd.shape[0] != codebook_vc.shape[0]:
        raise InputError(
            f"both views must show the same words, got {meaning.codebook_vd.shape[0]} and {codebook_vc.shape[0]}"
        )
    for layer, ids_bn in enumerate(meaning.ids or (), start=1):
        if ids_bn.shape != (z_bhwc.shape[0], len(shape.positions(layer))):
            raise InputError(
                f"wanted {len(shape.positions(layer))} words an image in meaning layer {layer}, got {ids_bn.shape}"
            )
    for layer, query in enumerate(meaning.queries, start=1):
        wanted = (z_bhwc.shape[0], len(shape.positions(layer)), meaning.codebook_vd.shape[1])
        if query.shape != wanted:
            raise InputError(f"wanted queries {wanted} for meaning layer {layer}, got {query.shape}")
