"""A Llama-family decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU; Gemma 3 as a variant.

Everything is computed in float32. Weights are stored (out, in), as files hold them; see `blocks.py`. The layers are
written out one after the other rather than scanned over: on a CPU a scan copies each layer's slice of the stacked
weights, which costs a third of the speed when single tokens are generated, and compiling 30 layers takes seconds.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from spae.frozen_lm.blocks import BlockMatrix, Blocks, times
from spae.frozen_lm.config import LMConfig
from spae.layers.rematerialize import Rematerializable

# Of each layer: keys (after rotation) and values, float32 (b, kv_heads, capacity, head_size).
Cache = list[tuple[Array, Array]]

# A parameter of the model, as `parameter` makes it.
Parameter = nnx.Param | BlockMatrix

_EXACT = jax.lax.Precision.HIGHEST
_HIDDEN = -1e30


def parameter(weights: Float[np.ndarray, "..."] | Blocks) -> Parameter:
    """A tensor of a model's files on the device."""
    return BlockMatrix(weights) if isinstance(weights, Blocks) else nnx.Param(jax.device_put(weights))


class Block(Rematerializable):
    """One layer. `parameters`: its own by the names of `spae.frozen_lm.weights`."""

    def __init__(self, config: LMConfig, parameters: Mapping[str, Parameter], slides: bool):
        self.config = config
        self.slides = slides
        self.params = nnx.Dict(parameters)

    def forward(
        self,
        x_bnd: Float[Array, "b n d"],
        cached: tuple[Array, Array] | None,
        start_b: Int[Array, " b"],
        rotation: tuple[Array, Array],
        visible_bnt: Bool[Array, "b n t"],
    ) -> tuple[Float[Array, "b n d"], tuple[Array, Array]]:
        config = self.config
        normed = self._norm("attn_norm", x_bnd)
        q, k, v = (
            self._linear(name, normed).reshape(*x_bnd.shape[:2], -1, config.head_size) for name in "qkv"
        )
        if config.gemma:
            q, k = self._norm("q_norm", q), self._norm("k_norm", k)
        q = _rotate(q, rotation) * config.attention_scale
        k, v = _rotate(k, rotation).swapaxes(1, 2), v.swapaxes(1, 2)
        if cached is not None:
            k, v = _write(cached[0], k, start_b), _write(cached[1], v, start_b)
        attended = self._linear("o", _attend(q, k, v, visible_bnt))
        x_bnd += self._norm("post_attn_norm", attended) if config.gemma else attended

        normed = self._norm("ffn_norm", x_bnd)
        gate = self._linear("gate", normed)
        gate = jax.nn.gelu(gate, approximate=True) if config.gemma else jax.nn.silu(gate)
        fed = self._linear("down", gate * self._linear("up", normed))
        x_bnd += self._norm("post_ffn_norm", fed) if config.gemma else fed
        return x_bnd, (k, v)

    def _linear(self, name: str, x: Float[Array, "b n i"]) -> Float[Array, "b n o"]:
        y = _matmul(x, self.params[name])
        bias = f"{name}_bias"
        return y + self._vector(bias) if bias in self.params else y

    def _norm(self, name: str, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        return _rms_norm(x, self._vector(name), self.config.epsilon)

    def _vector(self, name: str) -> Float[Array, " c"]:
        """One that is no matrix, and so never in blocks."""
        return cast(nnx.Param, self.params[name])[...]


class Decoder(nnx.Module):
    """The whole model. `parameters`: "embed", "norm", "head" unless tied, and "blocks.<i>.<name>"."""

    def __init__(self, config: LMConfig, parameters: Mapping[str, Parameter]):
        self.config = config
        self.table = parameters["embed"]
        self.norm = cast(nnx.Param, parameters["norm"])
        self.separate_head = None if config.tied else parameters["head"]
        by_layer: list[dict[str, Parameter]] = [{} for _ in range(config.layers)]
        for name, value in parameters.items():
            if name.startswith("blocks."):
                _, layer, part = name.split(".")
                by_layer[int(layer)][part] = value
        self.blocks = nnx.List([Block(config, parts, config.slides(i)) for i, parts in enumerate(by_layer)])

    def embed(self, ids_bn: Int[Array, "b n"]) -> Float[Array, "b n d"]:
        """What the first layer takes for these ids."""
        table = self.table
        rows = table.rows(ids_bn) if isinstance(table, BlockMatrix) else table[...][ids_bn]
        return rows * self.config.embedding_scale

    def __call__(
        self,
        x_bnd: Float[Array, "b n d"],
        cache: Cache | None,
        start_b: Int[Array, " b"],
        positions_bn: Int[Array, "b n"],
        segments_bn: Int[Array, "b n"],
    ) -> tuple[Float[Array, "b n d"], Cache]:
        """Reads n more tokens behind the first `start_b` of each row of the cache.

        Args:
            x_bnd: embeddings of the tokens.
            cache: keys and values so far; the new ones are written behind `start_b`, over whatever is there.
                The capacity must hold start + n. None: nothing came before.
            positions_bn: of the tokens, from 0.
            segments_bn: a token sees all of the cache before `start_b`, and of the new tokens those before
                it in the same segment; so one call reads several continuations of one context.

        Returns:
            Vectors for `logits`, and the new cache.
        """
        config = self.config
        capacity = x_bnd.shape[1] if cache is None else cache[0][0].shape[2]
        rotations = {False: _rotation(positions_bn, _frequencies(config, False))}
        visible = {False: _visible(start_b, positions_bn, segments_bn, capacity, None)}
        if any(config.sliding):
            rotations[True] = _rotation(positions_bn, _frequencies(config, True))
            visible[True] = _visible(start_b, positions_bn, segments_bn, capacity, config.window)
        grown: Cache = []
        for i, block in enumerate(self.blocks):
            cached = None if cache is None else cache[i]
            kind = block.slides
            x_bnd, kept = _layer(*nnx.split(block), x_bnd, cached, start_b, rotations[kind], visible[kind])
            grown.append(kept)
        return _rms_norm(x_bnd, self.norm[...], config.epsilon), grown

    def logits(self, x_nd: Float[Array, "n d"]) -> Float[Array, "n v"]:
        head = self.table if self.separate_head is None else self.separate_head
        return _matmul(x_nd, head)


@partial(jax.jit, static_argnums=0)
def _layer(graph: nnx.GraphDef[Block], state: nnx.State, *inputs: Any) -> Any:
    """A block, traced once for all layers that are alike."""
    return nnx.merge(graph, state)(*inputs)


def empty_cache(config: LMConfig, batch: int, capacity: int) -> Cache:
    shape = (batch, config.kv_heads, capacity, config.head_size)
    return [(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(config.layers)]


def _matmul(x: Float[Array, "... i"], matrix: Parameter) -> Float[Array, "... o"]:
    return matrix.matmul(x) if isinstance(matrix, BlockMatrix) else times(x, matrix[...])


def _rms_norm(x: Float[Array, "... c"], weight: Float[Array, " c"], epsilon: float) -> Float[Array, "... c"]:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + epsilon) * weight


def _frequencies(config: LMConfig, local: bool) -> Float[np.ndarray, " half"]:
    """Radians per position of each pair of features."""
    half = config.head_size // 2
    base = config.rope_base_local if local else config.rope_base
    frequencies = base ** (-np.arange(half) / half)
    scaling = config.rope_scaling
    if scaling is None or local:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    if scaling.kind == "factors":
        return frequencies / np.array(scaling.factors)
    turns = scaling.original_context * frequencies / (2 * math.pi)
    fast = np.clip((turns - scaling.low) / (scaling.high - scaling.low), 0, 1)
    return fast * frequencies + (1 - fast) * frequencies / scaling.factor


def _rotation(
    positions_bn: Int[Array, "b n"], frequencies: Float[np.ndarray, " half"]
) -> tuple[Float[Array, "b n 1 half"], Float[Array, "b n 1 half"]]:
    angles = positions_bn[:, :, None, None] * jnp.asarray(frequencies, jnp.float32)
    return jnp.cos(angles), jnp.sin(angles)


def _rotate(
    x: Float[Array, "b n heads size"], rotation: tuple[Array, Array]
) -> Float[Array, "b n heads size"]:
    """Feature i is paired with feature i + size / 2, as in Hugging Face's weights."""
    cos, sin = rotation
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _visible(
    start_b: Int[Array, " b"],
    positions_bn: Int[Array, "b n"],
    segments_bn: Int[Array, "b n"],
    capacity: int,
    window: int | None,
) -> Bool[Array, "b n t"]:
    """Which places of the cache each new token sees."""
    n = positions_bn.shape[1]
    place_t = jnp.arange(capacity)
    offset_bt = place_t - start_b[:, None]  # from 0 among the new tokens
    new_bt = (offset_bt >= 0) & (offset_bt < n)
    among_bt = jnp.clip(offset_bt, 0, n - 1)
    same_bnt = segments_bn[:, :, None] == jnp.take_along_axis(segments_bn, among_bt, 1)[:, None]
    before_bnt = offset_bt[:, None] <= jnp.arange(n)[:, None]
    visible_bnt = (offset_bt < 0)[:, None] | (new_bt[:, None] & same_bnt & before_bnt)
    if window is not None:
        position_bt = jnp.where(new_bt, jnp.take_along_axis(positions_bn, among_bt, 1), place_t)
        visible_bnt &= positions_bn[:, :, None] - position_bt[:, None] < window
    return visible_bnt


def _write(
    cached: Float[Array, "b kv t size"], new: Float[Array, "b kv n size"], start_b: Int[Array, " b"]
) -> Float[Array, "b kv t size"]:
    if cached.shape[0] == 1:
        return jax.lax.dynamic_update_slice(cached, new, (0, 0, start_b[0], 0))
    return jax.vmap(lambda row, more, start: jax.lax.dynamic_update_slice(row, more, (0, start, 0)))(
        cached, new, start_b
    )


def _attend(
    q_bnhs: Float[Array, "b n heads size"],
    k: Float[Array, "b kv t size"],
    v: Float[Array, "b kv t size"],
    visible_bnt: Bool[Array, "b n t"],
) -> Float[Array, "b n width"]:
    b, n, heads, size = q_bnhs.shape
    kv, t = k.shape[1:3]
    # The queries that read the same keys become rows of one product.
    q = q_bnhs.reshape(b, n, kv, heads // kv, size).transpose(0, 2, 3, 1, 4).reshape(b, kv, -1, size)
    scores = jnp.einsum("bkqs,bkts->bkqt", q, k, precision=_EXACT).reshape(b, kv, heads // kv, n, t)
    weights = jax.nn.softmax(jnp.where(visible_bnt[:, None, None], scores, _HIDDEN), axis=-1)
    mixed = jnp.einsum("bkqt,bkts->bkqs", weights.reshape(b, kv, -1, t), v, precision=_EXACT)
    return mixed.reshape(b, kv, heads // kv, n, size).transpose(0, 3, 1, 2, 4).reshape(b, n, heads * size)
