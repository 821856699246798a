"""The compiled functions of a language model: they take its parameters as a flat list, and are compiled for each shape.

A flat list, because a jitted function is much quicker to call with it than with a network.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from spae.frozen_lm.model import Cache, Decoder

_POSITIONS = 32  # whose logits are in memory at once where probabilities are asked for


class Programs:
    """Of one decoder.

    Attributes:
        read: (params, ids (b, n), cache, start (b,), positions (b, n), segments (b, n)) -> hidden vectors (b, n, d) of
            the tokens, and the cache with them, whose memory is used up.
        read_soft: the same, with vectors (b, n, d) in the places where a mask (b, n) says so.
        read_vectors: (params, vectors (n, d)) -> hidden vectors (n, d), without a cache; differentiable.
        log_probs: (params, hidden vectors (n, d), ids (n,)) -> log p (n,) of each id at its place.
        logits_at: (params, hidden vectors (b, n, d), places (b,)) -> logits (b, v).
        logits: (params, hidden vectors (n, d)) -> logits (n, v).
        embed: (params, ids (n,)) -> what the first layer takes for them (n, d).

    Args:
        graph: of the decoder, as `nnx.split` gives it.
        treedef: of its parameters.
    """

    def __init__(self, graph: nnx.GraphDef[Decoder], treedef: Any) -> None:
        def model(params: list[Array]) -> Decoder:
            return nnx.merge(graph, jax.tree.unflatten(treedef, params))

        @partial(jax.jit, donate_argnums=2)
        def read(params, ids_bn, cache, start_b, positions_bn, segments_bn):
            decoder = model(params)
            return decoder(decoder.embed(ids_bn), cache, start_b, positions_bn, segments_bn)

        @partial(jax.jit, donate_argnums=4)
        def read_soft(params, ids_bn, soft_bnd, is_soft_bn, cache, start_b, positions_bn, segments_bn):
            decoder = model(params)
            x_bnd = jnp.where(is_soft_bn[..., None], soft_bnd, decoder.embed(ids_bn))
            return decoder(x_bnd, cache, start_b, positions_bn, segments_bn)

        @jax.jit
        def read_vectors(params, x_nd):
            n = x_nd.shape[0]
            nothing = jnp.zeros((1, n), jnp.int32)
            return model(params)(x_nd[None], None, nothing[:, 0], jnp.arange(n)[None], nothing)[0][0]

        @jax.jit
        def log_probs(params, hidden_nd, targets_n):
            # A few positions at a time: for all of them the logits would take more memory than anything else.
            @jax.checkpoint
            def log_prob(position):
                hidden_d, target = position
                logits_v = model(params).logits(hidden_d)
                return logits_v[target] - jax.nn.logsumexp(logits_v)

            return jax.lax.map(log_prob, (hidden_nd, targets_n), batch_size=_POSITIONS)

        @jax.jit
        def logits_at(params, hidden_bnd, at_b):
            """At one place of each row."""
            return model(params).logits(jnp.take_along_axis(hidden_bnd, at_b[:, None, None], 1)[:, 0])

        self.read, self.read_soft, self.read_vectors = read, read_soft, read_vectors
        self.log_probs, self.logits_at = log_probs, logits_at
        self.logits = jax.jit(lambda params, hidden_nd: model(params).logits(hidden_nd))
        self.embed = jax.jit(lambda params, ids_n: model(params).embed(ids_n))


@partial(jax.jit, donate_argnums=0)
def place(target: Cache, source: Cache, row: int) -> Cache:
    """`source` from a row of `target` on, with as many tokens as fit."""

    def put(into: Array, part: Array) -> Array:
        return jax.lax.dynamic_update_slice(into, part[:, :, : into.shape[2]], (row, 0, 0, 0))

    return jax.tree.map(put, target, source)
