"""The nearest word and log-sum-exp over a vocabulary, beside the forms that hold the whole matrix, and peers."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.limits import work
from benchmarks.peer import Peer
from benchmarks.timing import Result, interleaved, result
from spae import nearest_pallas
from spae.nearest import _nearest_narrow, _nearest_wide, log_sum_exp, nearest

Function = Callable[[jax.Array, jax.Array], jax.Array]

MATRIX_BYTES = 2**28
TEMPERATURE = 100.0  # keeps the softmax of random vectors from being one word


def nearest_word(
    positions: int, words: int, width: int, repeats: int, peer: Peer | None = None
) -> dict[str, Result]:
    """Ours; where it fits into `MATRIX_BYTES` the full matrix with XLA's argmin and with two minima; and the peer's
    PyTorch and faiss; one run."""
    functions: dict[str, Function] = {"streamed": nearest}
    if 4 * positions * words <= MATRIX_BYTES:
        functions |= {"full matrix": _argmin, "full matrix, two minima": two_minima}
    return _compare(
        functions,
        tuple(map(jax.device_put, _arrays(positions, words, width))),
        repeats,
        {} if peer is None else {"PyTorch": (peer, "nearest"), "faiss": (peer, "faiss")},
        _least(positions, words, width),
    )


def widths(repeats: int) -> dict[str, Result]:
    """Both ways in which `nearest` searches, from which `NARROW` was chosen; one run for each width."""
    return {
        f"{width} wide, {name}": entry
        for width in (12, 16, 32, 64, 128)
        for name, entry in _compare(
            {"narrow": _nearest_narrow, "wide": _nearest_wide},
            tuple(map(jax.device_put, _arrays(2_048, 16_384, width))),
            repeats,
        ).items()
    }


def kernels(
    platform: str, sizes: Sequence[tuple[int, int, int]], repeats: int, interpret: bool = False
) -> dict[str, Result]:
    """The Pallas kernels beside the loops that they would replace; one run for each (positions, words, width).

    Of every kernel also how far its results are from the loops': of the search how many words are others, of
    log-sum-exp the largest difference. `interpret`: without an accelerator, to try this out.
    """
    if platform not in nearest_pallas.TILINGS:
        known = ", ".join(nearest_pallas.TILINGS)
        return {"all": {"seconds": None, "reason": f"the kernels are for {known}, and this is a {platform}"}}
    options = {"platform": platform, "interpret": interpret}
    results = {}
    for n, v, c in sizes:
        arguments = tuple(map(jax.device_put, _arrays(n, v, c)))
        functions: dict[str, Function] = {
            "narrow loops": _nearest_narrow,
            "wide loops": _nearest_wide,
            "kernel": partial(nearest_pallas.nearest, **options),
            "log-sum-exp, loops": _streamed,
            "log-sum-exp, kernel": partial(nearest_pallas.log_sum_exp, temperature=TEMPERATURE, **options),
        }
        entries = _compare(functions, arguments, repeats, least=_least(n, v, c))
        found = {name: np.asarray(jax.jit(function)(*arguments)) for name, function in functions.items()}
        entries["kernel"]["other_words"] = int(np.sum(found["kernel"] != found["wide loops"]))
        difference_n = found["log-sum-exp, kernel"] - found["log-sum-exp, loops"]
        entries["log-sum-exp, kernel"]["largest_difference"] = float(np.max(np.abs(difference_n)))
        results |= {f"{n:,} x {v:,} x {c}, {name}": entry for name, entry in entries.items()}
    return results


def log_sum_exp_words(positions: int, words: int, width: int, repeats: int) -> dict[str, Result]:
    """log sum exp(-distance^2 / temperature), alone and with its gradient by the vectors; one run."""
    z_nc, e_vc = _arrays(positions, words, width)
    return _compare(
        {
            "streamed": _streamed,
            "full matrix": _full,
            "streamed, gradient": jax.grad(lambda z, e: jnp.sum(_streamed(z, e))),
            "full matrix, gradient": jax.grad(lambda z, e: jnp.sum(_full(z, e))),
        },
        (jax.device_put(z_nc), jax.device_put(e_vc)),
        repeats,
    )


def _compare(
    functions: Mapping[str, Function],
    arguments: tuple[jax.Array, ...],
    repeats: int,
    peers: Mapping[str, tuple[Peer, str]] | None = None,
    least: Mapping[str, float] | None = None,
) -> dict[str, Result]:
    """`peers`: name -> who is asked, and for what. `least`: what any program must do, as `work` gives it; without, each
    is held to what itself does."""
    (n, c), v = arguments[0].shape, arguments[1].shape[0]
    sizes = {"positions": n, "words": v, "width": c}
    shape: dict[str, Any] = {"dtype": "float32", **sizes}
    calls: dict[str, Callable[[], Any]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for name, function in functions.items():
        start = time.perf_counter()
        traced = jax.jit(function).trace(*arguments)
        compiled = traced.lower().compile()
        calls[name] = partial(compiled, *arguments)
        seconds = time.perf_counter() - start
        memory = compiled.memory_analysis()  # None where the platform does not say
        temporary = memory and memory.temp_size_in_bytes
        facts[name] = {"compile_s": seconds, "temporary_bytes": temporary, **work(traced)}
    for name, (peer, what) in (peers or {}).items():
        calls[name] = partial(peer.ask, call=what, **sizes)
        facts[name] = peer.facts
    repeated = interleaved(calls, repeats)
    return {
        name: result(repeated[name], **(shape | more | dict(least or {}))) for name, more in facts.items()
    }


def _least(positions: int, words: int, width: int) -> dict[str, float]:
    """The work that no search can do without."""
    return {
        "flops": 2.0 * positions * words * width,
        "bytes_moved": 4.0 * (positions * width + words * width + positions),
    }


def _arrays(positions: int, words: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return (
        generator.normal(size=(positions, width)).astype(np.float32),
        generator.normal(size=(words, width)).astype(np.float32),
    )


def _scores(z_nc, e_vc):
    """||e||^2 - 2 <z, e>, (n, v): the squared distance up to what all words share."""
    return jnp.sum(e_vc**2, axis=1) - 2 * jnp.matmul(z_nc, e_vc.T, precision=jax.lax.Precision.HIGHEST)


def _argmin(z_nc, e_vc):
    return jnp.argmin(_scores(z_nc, e_vc), axis=1)


def two_minima(z_nc, e_vc):
    # On CPUs XLA's argmin is a slow scalar loop; this is the fastest full-matrix form we know.
    score_nv = _scores(z_nc, e_vc)
    least_n1 = jnp.min(score_nv, axis=1, keepdims=True)
    v = e_vc.shape[0]
    return jnp.min(jnp.where(score_nv == least_n1, jnp.arange(v), v), axis=1)


def _streamed(z_nc, e_vc):
    return log_sum_exp(z_nc, e_vc, TEMPERATURE)


def _full(z_nc, e_vc):
    distance_nv = jnp.sum(z_nc**2, axis=1)[:, None] + _scores(z_nc, e_vc)
    return jax.nn.logsumexp(-distance_nv / TEMPERATURE, axis=1)
