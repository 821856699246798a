"""The searches of `nearest.py` as Pallas kernels for TPUs and GPUs: product, norms and minimum in one pass over a tile.

A program of the grid computes the scores of one tile of words and positions in fast memory, and writes two numbers of
each position: the least score and its word, or the least score and the sum of the exponentials. XLA then brings the
tiles of words together. No tile waits for another, so the same kernel serves TPUs, whose grids run in order, and GPUs,
whose grids do not; besides its arguments it holds (tiles of words x positions).

The form is that of FlashAttention's first pass (arXiv 2205.14135), with words for keys and without values. Words lie
along the rows of a tile and positions along its lanes, where minima over the words are quickest.

Nothing here has run on an accelerator yet: see `KERNELS` in `nearest.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, BFloat16, Float, Int

_MANY = 2**30  # no word's id


@dataclass(frozen=True)
class Tiling:
    """How a platform cuts scores into tiles and multiplies.

    Attributes:
        words, positions: of a tile, at most.
        step: components that are multiplied at a time; None: all, where the compiler cuts products itself.
        precision: of products of float32. All are made of six products of bfloat16, and as exact as float32.
        parts: vectors of fewer components are multiplied in parts, see `_in_parts`.
        words_axis: of the grid. Positions go along the axis that runs fastest, so that a tile of the codebook, which is
            the larger array, is read once.
        options: for the platform's compiler. A function, because they come from a module of its own.
    """

    words: int
    positions: int
    step: int | None
    precision: jax.lax.Precision | jax.lax.DotAlgorithmPreset
    parts: int
    words_axis: int
    options: Callable[[], Any]


def _tpu_options() -> Any:
    from jax.experimental.pallas import tpu

    return tpu.CompilerParams(dimension_semantics=("parallel", "parallel"))


def _cuda_options() -> Any:
    # Not by Mosaic, Pallas's other way to GPUs, whose kernels are written for one generation of them. From JAX 0.11 on
    # this way is deprecated; where it is gone, so is the kernel for GPUs.
    from jax.experimental.pallas import triton

    return triton.CompilerParams(num_warps=4, num_stages=2)


# By JAX's name of the platform. The sizes are those that its compiler has room for; none was tuned on a device.
TILINGS: Mapping[str, Tiling] = {
    "tpu": Tiling(512, 256, None, jax.lax.Precision.HIGHEST, 64, words_axis=0, options=_tpu_options),
    "cuda": Tiling(
        128, 64, 32, jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X6, 0, words_axis=1, options=_cuda_options
    ),
}
# Numbers in a TPU's two tiles: as large as fit its 16 MiB of fast memory twice, with what is made of them beside.
TPU_NUMBERS = 768 * 1_024


def nearest(
    z_nc: Float[Array, "n c"], codebook_vc: Float[Array, "v c"], platform: str, interpret: bool = False
) -> Int[Array, " n"]:
    """The word nearest to each vector, see `spae.nearest.nearest`.

    Scores are rounded in another order than there: of two words that are equally near but for the last bits of float32
    either may be found. Equal words, and vectors whose products are whole numbers, have equal scores in both.

    Args:
        z_nc: (n, c) float vectors; computed in float32 whatever comes.
        codebook_vc: (v, c) float embeddings, v > 0.
        platform: a key of `TILINGS`.
        interpret: run the kernel as a program of XLA's, on any platform, to check it.

    Returns:
        (n,) int32 ids in 0 .. v - 1; of equally near words the lowest id.
    """
    if not len(z_nc):
        return jnp.zeros(0, jnp.int32)
    least_bn, id_bn = _by_tiles(_search, jnp.int32, z_nc, codebook_vc, platform, interpret)
    return jnp.min(jnp.where(least_bn > jnp.min(least_bn, axis=0), _MANY, id_bn), axis=0)


def log_sum_exp(
    z_nc: Float[Array, "n c"],
    codebook_vc: Float[Array, "v c"],
    temperature: float,
    platform: str,
    interpret: bool = False,
) -> Float[Array, " n"]:
    """The value of `spae.nearest.log_sum_exp`, which has the derivative; arguments and result as there and above.

    There is no kernel for the derivative. Its two products outweigh what is done between them, which XLA fuses, and the
    sum over words of (positions x width) could only be cut by tiles of words that wait for each other.
    """
    if not len(z_nc):
        return jnp.zeros(0, jnp.float32)
    kernel = partial(_sum, temperature=temperature)
    least_bn, total_bn = _by_tiles(kernel, jnp.float32, z_nc, codebook_vc, platform, interpret)
    logit_bn = -(jnp.sum(z_nc.astype(jnp.float32) ** 2, axis=1) + least_bn) / temperature
    return jax.nn.logsumexp(logit_bn, axis=0, b=total_bn)


def _search(z_ref, e_ref, least_ref, id_ref, *, scores):
    score_kn, id_kn = scores(z_ref, e_ref)
    least_n = jnp.min(score_kn, axis=0)
    # Of equals the lowest id. "Not greater" is "equal" but for NaN, of which all are, so that an id is found.
    nearest_n = jnp.min(jnp.where(score_kn > least_n[None], _MANY, id_kn), axis=0)
    least_ref[...], id_ref[...] = least_n[None], nearest_n[None]


def _sum(z_ref, e_ref, least_ref, total_ref, *, scores, temperature):
    score_kn, _ = scores(z_ref, e_ref)
    least_n = jnp.min(score_kn, axis=0)
    total_n = jnp.sum(jnp.exp((least_n[None] - score_kn) / temperature), axis=0)
    least_ref[...], total_ref[...] = least_n[None], total_n[None]


def _scores(z_ref, e_ref, *, words: int, step: int, axis: int, precision: Any):
    """||e||^2 - 2 <e, z> of a tile, (k, n), inf behind the last of so many words; and the words' ids, (k, n)."""
    k, n = e_ref.shape[0], z_ref.shape[0]
    parts = e_ref.dtype == jnp.bfloat16  # which hold the norms, too

    def add(i, score_kn):
        at = pl.ds(i * step, step)
        z_nc, e_kc = z_ref[:, at], e_ref[:, at]
        product_kn = jax.lax.dot_general(
            e_kc,
            z_nc,
            (((1,), (1,)), ((), ())),
            precision=None if parts else precision,
            preferred_element_type=jnp.float32,
        )
        return score_kn + (product_kn if parts else jnp.sum(e_kc**2, axis=1, keepdims=True) - 2 * product_kn)

    steps = e_ref.shape[1] // step
    score_kn = jnp.zeros((k, n), jnp.float32)
    score_kn = add(0, score_kn) if steps == 1 else jax.lax.fori_loop(0, steps, add, score_kn)
    id_kn = pl.program_id(axis) * k + jax.lax.broadcasted_iota(jnp.int32, (k, n), 0)
    return jnp.where(id_kn < words, score_kn, jnp.inf), id_kn


def _in_parts(
    z_nc: Float[Array, "n c"], e_vc: Float[Array, "v c"]
) -> tuple[BFloat16[Array, "n w"], BFloat16[Array, "v w"]]:
    """bfloat16 vectors of w = 6 c + 3 components, whose products are the scores as exactly as float32's are.

    Three of bfloat16 add up to a float32. Of the nine products of two such sums six are not below what float32 itself
    rounds off, and six products one after the other are how a TPU multiplies float32. It multiplies 128 components (256
    in later ones) in the time of one: side by side the six take half as many passes or fewer below 64 components. The
    norms are three more.
    """

    def three(x: jax.Array) -> list[jax.Array]:
        parts = []
        for _ in range(3):
            # A conversion there and back would be taken for nothing by XLA.
            part = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
            parts.append(part.astype(jnp.bfloat16))
            x = x - part
        return parts

    (high_z, middle_z, low_z), (high_e, middle_e, low_e) = three(z_nc), three(-2 * e_vc)
    norms = three(jnp.sum(e_vc**2, axis=1, keepdims=True))
    ones_n3 = jnp.ones((len(z_nc), 3), jnp.bfloat16)
    # The small first, so that they are not rounded as the large are.
    return (
        jnp.concatenate([low_z, high_z, middle_z, middle_z, high_z, high_z, ones_n3], axis=1),
        jnp.concatenate([high_e, low_e, middle_e, high_e, middle_e, high_e, *norms[::-1]], axis=1),
    )


def _by_tiles(
    kernel, second: jax.typing.DTypeLike, z_nc, codebook_vc, platform: str, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    """Of every tile of words and every position, (b, n), what a kernel writes: float32, and the `second` type."""
    tiling, n, v = TILINGS[platform], len(z_nc), len(codebook_vc)
    z, e = z_nc.astype(jnp.float32), codebook_vc.astype(jnp.float32)
    if z.shape[1] < tiling.parts:
        z, e = _in_parts(z, e)
    if tiling.step is None:
        step = z.shape[1]
        # Products with a single vector are other ones to a TPU's compiler, and not for bfloat16.
        z = jnp.pad(z, ((0, max(0, 8 - n)), (0, 0)))
        rows, lanes = _fitting(tiling, step)
        rows, lanes = min(rows, v), min(lanes, len(z))
    else:
        # Tiles of a GPU are whole, or would read and write behind an array's end.
        step, rows, lanes = tiling.step, tiling.words, tiling.positions
        z, e = (
            jnp.pad(x, ((0, -len(x) % size), (0, -x.shape[1] % step))) for x, size in ((z, lanes), (e, rows))
        )
    blocks, axis = pl.cdiv(v, rows), tiling.words_axis
    grid = (blocks, pl.cdiv(len(z), lanes))
    scores = partial(_scores, words=v, step=step, axis=axis, precision=tiling.precision)
    first_bpn, second_bpn = pl.pallas_call(
        partial(kernel, scores=scores),
        # An axis of one before the positions: the last two of a block must be whole, or of whole registers.
        out_shape=[jax.ShapeDtypeStruct((blocks, 1, len(z)), dtype) for dtype in (jnp.float32, second)],
        grid=grid if axis == 0 else grid[::-1],
        in_specs=[
            pl.BlockSpec((lanes, z.shape[1]), lambda *at: (at[1 - axis], 0)),
            pl.BlockSpec((rows, e.shape[1]), lambda *at: (at[axis], 0)),
        ],
        out_specs=[pl.BlockSpec((None, 1, lanes), lambda *at: (at[axis], 0, at[1 - axis]))] * 2,
        compiler_params=None if interpret else tiling.options(),
        interpret=interpret,
    )(z, e)
    return first_bpn[:, 0, :n], second_bpn[:, 0, :n]


def _fitting(tiling: Tiling, width: int) -> tuple[int, int]:
    """Words and positions of a TPU's tile: halved until `TPU_NUMBERS` has them; positions fill at least a register."""
    words, positions = tiling.words, tiling.positions
    while (words + positions) * width > TPU_NUMBERS and words > 8:
        if words > positions or positions == 128:
            words //= 2
        else:
            positions //= 2
    return words, positions
