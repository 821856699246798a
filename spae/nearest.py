"""Exact search over a vocabulary in O(chunk) memory: the nearest word, the nearest few, and log-sum-exp over all words.

All walk over the codebook in chunks and never hold the (positions x vocabulary) matrix. The last chunk is
moved back to end at the last word rather than padded, because padding would copy the whole codebook.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Words per chunk: at 597 positions a chunk of scores is 1.2 MB and stays in a CPU's cache, while the matrix
# product is still large enough to run at full speed.
CHUNK = 512

# Codebooks up to this width are searched another way, because there the product is cheap and the passes for the minimum
# are not. It takes some 0.7 of the wide way's time at 16 components, 0.8 at 32, as much at 64:
# `python -m benchmarks.run --only widths --output widths.json`.
NARROW = 32
# Of so many words at most: of more XLA's product is another one on CPUs, and takes three times the wide way's time. How
# either grows: `python -m benchmarks.growth`.
FEW = 49_152
TILE = 128  # positions at a time, so that their scores stay in cache
BLOCK = 64  # words whose best is looked for before the word itself

# Platforms, by JAX's names, on which the kernels of `nearest_pallas.py` take the place of the loops below: those where
# they were measured to be quicker. None yet, for they have not run on any: on an accelerator
# `python -m benchmarks.run --only kernels --output kernels.json` compares both. A TPU's is for programs of one device:
# the loops are cut up over several as their arguments lie, and a kernel is refused there unless under `jax.shard_map`.
KERNELS: frozenset[str] = frozenset()

_HIGHEST = jax.lax.Precision.HIGHEST


def nearest(z_nc: Float[Array, "n c"], codebook_vc: Float[Array, "v c"]) -> Int[Array, " n"]:
    """The id of the word nearest to each vector: k = argmin_k ||z - e(k)||^2.

    Args:
        z_nc: (n, c) float vectors; computed in float32 whatever comes.
        codebook_vc: (v, c) float embeddings.

    Returns:
        (n,) int32 ids in 0 .. v - 1; of equally near words the lowest id.
    """
    _check(z_nc, codebook_vc)
    z_nc, codebook_vc = z_nc.astype(jnp.float32), codebook_vc.astype(jnp.float32)
    words, width = codebook_vc.shape
    loops = _nearest_narrow if width <= NARROW and words <= FEW else _nearest_wide
    return _by_platform(loops, "nearest", z_nc, codebook_vc)


def _nearest_narrow(z_nc: Float[Array, "n c"], codebook_vc: Float[Array, "v c"]) -> Int[Array, " n"]:
    """A tile of positions at a time against the whole codebook: the best block of words, then the word in it.

    Nearest is the word with the largest <(z, 1), (2 e, -||e||^2)>. As one more component of the product the norms take
    no pass over the scores, and XLA fuses the maxima of the blocks into it. Words lie along the minor axis, where
    maxima are quickest.
    """
    (n, c), v = z_nc.shape, codebook_vc.shape[0]
    block, tile = min(BLOCK, v), min(TILE, max(n, 1))
    # The last word again where its block has room: it has the same score, and its own id is the lower one.
    e_vc = jnp.pad(codebook_vc, ((0, -v % block), (0, 0)), mode="edge")
    e_va = jnp.concatenate([2 * e_vc, -jnp.sum(e_vc**2, axis=1, keepdims=True)], axis=1)
    e_bka = e_va.reshape(-1, block, c + 1)
    z_na = jnp.pad(jnp.pad(z_nc, ((0, 0), (0, 1)), constant_values=1), ((0, -n % tile), (0, 0)))

    def search(z_ta):
        near_tv = jnp.matmul(z_ta, e_va.T, precision=_HIGHEST)
        best_t = jnp.argmax(jnp.max(near_tv.reshape(tile, -1, block), axis=2), axis=1)
        near_tk = jnp.einsum("tka,ta->tk", e_bka[best_t], z_ta, precision=_HIGHEST)
        return best_t * block + jnp.argmax(near_tk, axis=1)

    id_n = jax.lax.map(search, z_na.reshape(-1, tile, c + 1)).reshape(-1)[:n]
    return jnp.minimum(id_n, v - 1).astype(jnp.int32)


def _nearest_wide(z_nc: Float[Array, "n c"], codebook_vc: Float[Array, "v c"]) -> Int[Array, " n"]:
    """All positions against a chunk of the codebook at a time."""
    n, (v, _) = z_nc.shape[0], codebook_vc.shape
    chunk = min(CHUNK, v)

    def body(i, best):
        distance_n, id_n = best
        start, e_kc = _chunk(codebook_vc, i, chunk)
        # ||z||^2 is the same for every word and left out.
        score_nk = jnp.sum(e_kc**2, axis=1) - 2 * jnp.matmul(z_nc, e_kc.T, precision=_HIGHEST)
        # Two plain minima: XLA's argmin on CPU is a scalar loop and takes longer than the product itself.
        score_n = jnp.min(score_nk, axis=1)
        k_n = jnp.min(jnp.where(score_nk == score_n[:, None], jnp.arange(chunk), chunk - 1), axis=1)
        # Strictly less: an equal word of an earlier chunk, which has the lower id, stays.
        better_n = score_n < distance_n
        return jnp.where(better_n, score_n, distance_n), jnp.where(better_n, start + k_n, id_n)

    start = (jnp.full((n,), jnp.inf, jnp.float32), jnp.zeros((n,), jnp.int32))
    return jax.lax.fori_loop(0, -(-v // chunk), body, start)[1]


def nearest_few(
    z_nc: Float[Array, "n c"], codebook_vc: Float[Array, "v c"], count: int
) -> Int[Array, "n count"]:
    """The ids of the `count` words nearest to each vector, the nearest first; see `nearest`.

    Args:
        z_nc: (n, c) float vectors; computed in float32 whatever comes.
        codebook_vc: (v, c) float embeddings.
        count: 1 .. v.

    Returns:
        (n, count) int32 ids in 0 .. v - 1; of equally near words the lower id comes first.
    """
    _check(z_nc, codebook_vc)
    n, (v, _) = z_nc.shape[0], codebook_vc.shape
    if not 1 <= count <= v:
        raise ValueError(f"wanted a count from 1 to the {v} words of the codebook, got {count}")
    z_nc, codebook_vc = z_nc.astype(jnp.float32), codebook_vc.astype(jnp.float32)
    chunk = min(CHUNK, v)

    def body(i, best):
        best_score_nm, best_id_nm = best
        start, e_kc = _chunk(codebook_vc, i, chunk)
        score_nk = jnp.sum(e_kc**2, axis=1) - 2 * jnp.matmul(z_nc, e_kc.T, precision=_HIGHEST)
        id_k = start + jnp.arange(chunk, dtype=jnp.int32)
        # Words that the previous chunk had are not found twice.
        score_nk = jnp.where(id_k >= i * chunk, score_nk, jnp.inf)
        # The best so far stand first: top_k prefers what stands first among equals, so lower ids stay ahead.
        scores = jnp.concatenate([best_score_nm, score_nk], axis=1)
        ids = jnp.concatenate([best_id_nm, jnp.broadcast_to(id_k, (n, chunk))], axis=1)
        negative_nm, at_nm = jax.lax.top_k(-scores, count)
        return -negative_nm, jnp.take_along_axis(ids, at_nm, axis=1)

    start = (jnp.full((n, count), jnp.inf, jnp.float32), jnp.zeros((n, count), jnp.int32))
    return jax.lax.fori_loop(0, -(-v // chunk), body, start)[1]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def log_sum_exp(
    z_nc: Float[Array, "n c"], codebook_vc: Float[Array, "v c"], temperature: float
) -> Float[Array, " n"]:
    """log sum_k exp(-||z - e(k)||^2 / temperature), the normaliser of the semantic loss's softmax.

    Args:
        z_nc: (n, c) float vectors.
        codebook_vc: (v, c) float embeddings.
        temperature: the divisor of the squared distance, > 0 (1 in the paper).

    Returns:
        (n,) float32. Differentiable in both arrays; the derivative, the softmax-weighted sum of
        -2 (z - e(k)) / temperature, is computed chunk by chunk as well.
    """
    return _log_sum_exp(z_nc, codebook_vc, temperature)


def _log_sum_exp(z_nc, codebook_vc, temperature):
    _check(z_nc, codebook_vc)
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, not {temperature}")
    return _by_platform(_log_sum_exp_by_loops, "log_sum_exp", z_nc, codebook_vc, temperature=temperature)


def _log_sum_exp_by_loops(z_nc, codebook_vc, temperature):
    v = codebook_vc.shape[0]
    chunk = min(CHUNK, v)

    def body(i, carry):
        peak_n, total_n = carry
        logit_nk = _logits(z_nc, codebook_vc, i, chunk, temperature)[2]
        new_peak_n = jnp.maximum(peak_n, jnp.max(logit_nk, axis=1))
        total_n = total_n * jnp.exp(peak_n - new_peak_n) + jnp.sum(
            jnp.exp(logit_nk - new_peak_n[:, None]), axis=1
        )
        return new_peak_n, total_n

    start = (jnp.full(z_nc.shape[:1], -jnp.inf, jnp.float32), jnp.zeros(z_nc.shape[:1], jnp.float32))
    peak_n, total_n = jax.lax.fori_loop(0, -(-v // chunk), body, start)
    return peak_n + jnp.log(total_n)


def _forward(z_nc, codebook_vc, temperature):
    value_n = _log_sum_exp(z_nc, codebook_vc, temperature)
    return value_n, (z_nc, codebook_vc, value_n)


def _backward(temperature, residuals, gradient_n):
    z_nc, codebook_vc, value_n = residuals
    chunk = min(CHUNK, codebook_vc.shape[0])

    def body(i, carry):
        gradient_z_nc, gradient_e_vc = carry
        start, e_kc, logit_nk = _logits(z_nc, codebook_vc, i, chunk, temperature)
        weight_nk = gradient_n[:, None] * jnp.exp(logit_nk - value_n[:, None])
        scale = 2 / temperature
        gradient_z_nc += scale * jnp.matmul(weight_nk, e_kc, precision=_HIGHEST)
        update_kc = (
            jnp.matmul(weight_nk.T, z_nc, precision=_HIGHEST) - jnp.sum(weight_nk, axis=0)[:, None] * e_kc
        )
        old_kc = jax.lax.dynamic_slice_in_dim(gradient_e_vc, start, chunk)
        gradient_e_vc = jax.lax.dynamic_update_slice_in_dim(
            gradient_e_vc, old_kc + scale * update_kc, start, 0
        )
        return gradient_z_nc, gradient_e_vc

    # Every word's weight sums to the incoming gradient, so the "-2 z" part needs no loop.
    start = (-2 / temperature * gradient_n[:, None] * z_nc, jnp.zeros_like(codebook_vc))
    return jax.lax.fori_loop(0, -(-codebook_vc.shape[0] // chunk), body, start)


log_sum_exp.defvjp(_forward, _backward)


def _logits(z_nc, codebook_vc, i, chunk, temperature):
    """Chunk i's first id, embeddings (k, c) and logits (n, k); words the previous chunk had are -inf."""
    start, e_kc = _chunk(codebook_vc, i, chunk)
    distance_nk = (
        jnp.sum(z_nc**2, axis=1)[:, None]
        - 2 * jnp.matmul(z_nc, e_kc.T, precision=_HIGHEST)
        + jnp.sum(e_kc**2, axis=1)[None, :]
    )
    fresh_k = start + jnp.arange(chunk) >= i * chunk
    return start, e_kc, jnp.where(fresh_k[None, :], -distance_nk / temperature, -jnp.inf)


def _chunk(codebook_vc, i, chunk):
    start = jnp.minimum(i * chunk, codebook_vc.shape[0] - chunk).astype(jnp.int32)
    return start, jax.lax.dynamic_slice_in_dim(codebook_vc, start, chunk)


def _by_platform(loops, name, z_nc, codebook_vc, **options):
    """What the loops give or, on the platforms of `KERNELS`, the kernel of that name."""
    loops = partial(loops, **options)
    if not KERNELS:
        return loops(z_nc, codebook_vc)
    from spae import nearest_pallas  # which takes a third of a second

    kernel = partial(getattr(nearest_pallas, name), **options)
    kernels = {platform: partial(kernel, platform=platform) for platform in KERNELS}
    return jax.lax.platform_dependent(z_nc, codebook_vc, default=loops, **kernels)


def _check(z_nc, codebook_vc):
    if z_nc.ndim != 2 or codebook_vc.ndim != 2 or z_nc.shape[1] != codebook_vc.shape[1]:
        raise ValueError(
            f"wanted vectors (n, c) and a codebook (v, c) of one width c, got {z_nc.shape} and {codebook_vc.shape}"
        )
    if codebook_vc.shape[0] == 0:
        raise ValueError("wanted a codebook of at least one word, got none")
