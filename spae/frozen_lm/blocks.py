"""Matrices as quantised files hold them: whole numbers, with a scale and an offset for every 16 or 32 of a row.

A weight is scale * q - offset, what the file says but for the last bit. Kept so it takes 1.1 to 1.4 bytes instead of
four, and it is widened to float32 where it is multiplied, tile by tile: a tile stays in the processor's cache, and
memory is read a third as much as it would be for float32.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Int8

_EXACT = jax.lax.Precision.HIGHEST
# Of a tile: 2 MB of float32, which stays in a cache; a matrix that is widened as a whole does not. How fast this is
# beside others: `python -m benchmarks.frozen_lm`.
_TILE_WEIGHTS = 1 << 19
_TILE_ROWS = 128  # at least


@dataclass(frozen=True, eq=False)
class Blocks:
    """A matrix in memory, before it is a model's. Every row has a whole number of blocks."""

    q: Int8[np.ndarray, "o i"]
    scale: Float[np.ndarray, "o blocks"]
    offset: Float[np.ndarray, "o blocks"] | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.q.shape

    def rows(self, indices: Int[np.ndarray, " n"]) -> "Blocks":
        offset = None if self.offset is None else self.offset[indices]
        return Blocks(self.q[indices], self.scale[indices], offset)

    def is_finite(self) -> bool:
        return bool(np.isfinite(self.scale).all()) and (
            self.offset is None or bool(np.isfinite(self.offset).all())
        )

    def float32(self) -> Float[np.ndarray, "o i"]:
        """All weights, four bytes each."""
        size = self.q.shape[1] // self.scale.shape[1]
        wide = self.q * np.repeat(self.scale, size, axis=1)
        return wide if self.offset is None else wide - np.repeat(self.offset, size, axis=1)


class BlockMatrix(nnx.Module):
    """The same matrix as parameters of a network."""

    def __init__(self, blocks: Blocks):
        self.q = nnx.Param(jax.device_put(blocks.q))
        self.scale = nnx.Param(jax.device_put(blocks.scale))
        self.offset = None if blocks.offset is None else nnx.Param(jax.device_put(blocks.offset))

    def rows(self, indices: Int[Array, "..."]) -> Float[Array, "... i"]:
        """Some rows, float32."""
        offset = None if self.offset is None else self.offset[...][indices]
        return _widened(self.q[...][indices], self.scale[...][indices], offset)

    def matmul(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        """x times the matrix transposed; differentiable in x."""
        q_oi, scale_ob = self.q[...], self.scale[...]
        offset_ob = None if self.offset is None else self.offset[...]
        out, width = q_oi.shape
        # At least two tiles: what is in no loop is widened for all layers at once, too.
        rows = min(max(_TILE_ROWS, _TILE_WEIGHTS // width), -(-out // 2))

        # Without it a gradient would keep every tile of every matrix as float32.
        @jax.checkpoint
        def tile(x: Float[Array, "... i"], start: Int[Array, ""]) -> Float[Array, "... rows"]:
            parts = jax.tree.map(
                lambda part: jax.lax.dynamic_slice_in_dim(part, start, rows), (q_oi, scale_ob, offset_ob)
            )
            return times(x, _widened(*parts))

        def step(y: Float[Array, "... o"], start: Int[Array, ""]) -> tuple[Float[Array, "... o"], None]:
            return jax.lax.dynamic_update_slice_in_dim(y, tile(x, start), start, axis=-1), None

        # The last tile is moved back to end at the last row. Every place is written over: it begins as something of x
        # and not as zeros, because those would be laid out for all layers at once, as soon as a call begins.
        starts = jnp.asarray(np.minimum(np.arange(0, out, rows), out - rows), jnp.int32)
        return jax.lax.scan(step, jnp.broadcast_to(x[..., :1], (*x.shape[:-1], out)), starts)[0]


def _widened(
    q: Int8[Array, "... i"], scale: Float[Array, "... blocks"], offset: Float[Array, "... blocks"] | None
) -> Float[Array, "... i"]:
    wide = q.reshape(*scale.shape, -1).astype(jnp.float32) * scale[..., None]
    return (wide if offset is None else wide - offset[..., None]).reshape(q.shape)


def times(x: Float[Array, "... i"], weights_oi: Float[Array, "o i"]) -> Float[Array, "... o"]:
    """x times the matrix transposed, in float32 on every device."""
    return jax.lax.dot_general(x, weights_oi, (((x.ndim - 1,), (1,)), ((), ())), precision=_EXACT)
