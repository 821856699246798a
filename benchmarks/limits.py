"""What the machine can do at most, measured in the same run as what is held against it; and what work is held."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.timing import Result, interleaved, result
from tokenizer_train.flops import step_flops, used

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


def work(traced: jax.stages.Traced) -> dict[str, float]:
    """What a jitted function must do at its arguments, `jax.jit(f).trace(..)`: the floating-point operations of its
    program, and the bytes of every argument that it reads, once, and of every result."""
    program = used(traced)
    read = {id(variable) for equation in program.eqns for variable in equation.invars}
    arrays: list[Any] = [variable.aval for variable in program.invars if id(variable) in read]
    arrays += [variable.aval for variable in program.outvars]
    moved = sum(array.size * array.dtype.itemsize for array in arrays)
    return {"flops": step_flops(traced, traced.lower()), "bytes_moved": float(moved)}


def beside_limits(
    results: Mapping[str, Mapping[str, Result]], limits: Mapping[str, Result]
) -> dict[str, dict[str, Result]]:
    """Of every entry that tells its work also `floor_s`, the time it would take at the speeds that `limits` found, and
    `of_limit`, the part of its median that this is."""
    flops_per_s, bytes_per_s = limits["product"]["flops_per_s"], limits["copy"]["bytes_per_s"]

    def with_floor(entry: Result) -> Result:
        if not {"flops", "bytes_moved"} <= entry.keys():
            return entry
        floor = max(entry["flops"] / flops_per_s, entry["bytes_moved"] / bytes_per_s)
        return {**entry, "floor_s": floor, "of_limit": floor / entry["seconds"]["median"]}

    return {group: {name: with_floor(e) for name, e in entries.items()} for group, entries in results.items()}
