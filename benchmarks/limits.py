"""What the machine can do at most, measured in the same run as what is held against it."""

import jax
import jax.numpy as jnp

from benchmarks.timing import Result, interleaved, result

SIDE = 4_096  # of the matrices
COPIED = 2**28  # bytes, more than any cache holds


def limits(repeats: int) -> dict[str, Result]:
    """A product of two float32 matrices, whose `flops_per_s` others are shares of, and a copy of memory."""
    a = jnp.ones((SIDE, SIDE), jnp.float32)
    block = jnp.ones(COPIED // 4, jnp.float32)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    # Adding keeps XLA from handing the same memory back.
    copy = jax.jit(lambda block: block + 1.0)
    seconds = interleaved({"product": lambda: product(a), "copy": lambda: copy(block)}, repeats)
    flops = 2 * SIDE**3
    entries = {
        "product": result(seconds["product"], dtype="float32", side=SIDE, flops=flops),
        "copy": result(seconds["copy"], bytes_moved=2 * COPIED),
    }
    entries["product"]["flops_per_s"] = flops / entries["product"]["seconds"]["median"]
    entries["copy"]["bytes_per_s"] = 2 * COPIED / entries["copy"]["seconds"]["median"]
    return entries
