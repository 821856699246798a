"""Floating-point operations of a step, and what a device could do at most: the two sides of utilisation."""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import partial_eval

# Dense FLOP/s of one device by JAX's name for its kind and `run.precision`, from the makers' data sheets (NVIDIA's
# figures "with sparsity" halved). float32: what JAX does with it unless told otherwise, TF32 on NVIDIA's GPUs and
# one bfloat16 product on TPUs. highest: float32 in full, as the products with the vocabulary are computed; NVIDIA's
# figure for FP32, and six bfloat16 products on TPUs. NVIDIA A100, H100 and H200 data sheets; of the GeForce cards,
# whose bfloat16 products are added up in float32, the appendices of NVIDIA's papers on the architectures GA102, Ada and
# RTX Blackwell; cloud.google.com/tpu/docs/v4, v5e, v5p, v6e.
PEAKS: dict[str, dict[str, float]] = {
    "NVIDIA A100": {"bfloat16": 312e12, "float32": 156e12, "highest": 19.5e12},
    "NVIDIA H100 PCIe": {"bfloat16": 756e12, "float32": 378e12, "highest": 51e12},
    "NVIDIA H100 NVL": {"bfloat16": 835e12, "float32": 417e12, "highest": 60e12},
    "NVIDIA H100": {"bfloat16": 989e12, "float32": 494e12, "highest": 67e12},
    "NVIDIA H200": {"bfloat16": 989e12, "float32": 494e12, "highest": 67e12},
    "NVIDIA GeForce RTX 3090": {"bfloat16": 71e12, "float32": 35.6e12, "highest": 35.6e12},
    "NVIDIA GeForce RTX 4090": {"bfloat16": 165.2e12, "float32": 82.6e12, "highest": 82.6e12},
    "NVIDIA GeForce RTX 5090": {"bfloat16": 209.5e12, "float32": 104.8e12, "highest": 104.8e12},
    "TPU v4": {"bfloat16": 275e12, "float32": 275e12, "highest": 275e12 / 6},
    "TPU v5 lite": {"bfloat16": 197e12, "float32": 197e12, "highest": 197e12 / 6},
    "TPU v5e": {"bfloat16": 197e12, "float32": 197e12, "highest": 197e12 / 6},
    "TPU v5p": {"bfloat16": 459e12, "float32": 459e12, "highest": 459e12 / 6},
    "TPU v5": {"bfloat16": 459e12, "float32": 459e12, "highest": 459e12 / 6},
    "TPU v6 lite": {"bfloat16": 918e12, "float32": 918e12, "highest": 918e12 / 6},
    "TPU v6e": {"bfloat16": 918e12, "float32": 918e12, "highest": 918e12 / 6},
}
# What people call them, for the command line.
DEVICES = {
    "a100": "NVIDIA A100",
    "h100": "NVIDIA H100",
    "h200": "NVIDIA H200",
    "rtx3090": "NVIDIA GeForce RTX 3090",
    "rtx4090": "NVIDIA GeForce RTX 4090",
    "rtx5090": "NVIDIA GeForce RTX 5090",
    "v4": "TPU v4",
    "v5e": "TPU v5e",
    "v5p": "TPU v5p",
    "v6e": "TPU v6e",
}

_PRODUCTS = 10


def peak(device_kind: str, precision: str) -> float | None:
    """Dense FLOP/s of a device at `run.precision`, None for a kind that the table does not have.

    Kinds are longer than the table's names ("NVIDIA H100 80GB HBM3"); the first name that begins one counts. A GeForce
    with more behind its name ("Ti", "Laptop GPU") is another chip.
    """
    for kind, speeds in PEAKS.items():
        if device_kind == kind or (device_kind.startswith(kind) and "GeForce" not in kind):
            return speeds[precision]
    return None


def measured_peak() -> float:
    """FLOP/s of this machine's first device: the best of a few products of two matrices of float32."""
    side = 1_024
    a = jnp.ones((side, side), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()  # compiled
    seconds = []
    for _ in range(_PRODUCTS):
        started = time.perf_counter()
        product(a, a).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


def step_flops(traced: jax.stages.Traced, lowered: jax.stages.Lowered) -> float:
    """Floating-point operations of one call of a jitted function, over all devices together.

    XLA's own count of the program as it is given to the compiler: before a backend replaces operations by calls
    that it cannot count, and before it computes anything twice to save memory, so the same on every device. XLA
    counts the body of a loop once; the loops of known length (the walks over the vocabulary are such) are counted
    as often as they run.

    Args:
        traced: the function at its arguments, `jax.jit(f).trace(..)`.
        lowered: `traced.lower()`.

    Raises:
        ValueError: this backend does not count.
    """
    return _once(lowered) + _repeated(used(traced))


def exact_flops(traced: jax.stages.Traced) -> float:
    """Those of them that are matrix products of float32 in full (`Precision.HIGHEST`), which devices are slowest at."""
    return _exact(used(traced))


def used(traced: jax.stages.Traced) -> core.Jaxpr:
    """The program as lowering leaves it: what nobody reads, such as a frozen codebook's gradient, is not computed."""
    jaxpr = traced.jaxpr.jaxpr
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)[0]


def _once(lowered: jax.stages.Lowered) -> float:
    cost = lowered.cost_analysis()
    if not cost:
        raise ValueError("this backend does not count floating-point operations")
    return float(cost.get("flops", 0.0))


def _repeated(jaxpr: core.Jaxpr) -> float:
    """Operations that counting every loop's body once leaves out."""
    total = 0.0
    for equation in jaxpr.eqns:
        bodies = list(_bodies(equation.params))
        if equation.primitive.name != "scan":
            total += sum(_repeated(body.jaxpr) for body in bodies)
            continue
        (body,) = bodies
        length = equation.params["length"]
        total += length * _repeated(body.jaxpr)
        if length > 1:
            shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in body.in_avals]
            total += (length - 1) * _once(jax.jit(core.jaxpr_as_fun(body)).lower(*shapes))
    return total


def _exact(jaxpr: core.Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += times * sum(_exact(body.jaxpr) for body in _bodies(equation.params))
        if equation.primitive.name == "dot_general" and _is_exact(equation.params["precision"]):
            (contracted, _), _ = equation.params["dimension_numbers"]
            left: Any = equation.invars[0].aval
            result: Any = equation.outvars[0].aval
            total += 2 * result.size * math.prod(left.shape[axis] for axis in contracted)
    return total


def _is_exact(precision: Any) -> bool:
    """A product's precision is that of both its sides, or the name of one algorithm, or not given."""
    if isinstance(precision, tuple):
        return jax.lax.Precision.HIGHEST in precision
    return precision == jax.lax.DotAlgorithmPreset.F32_F32_F32


def _bodies(value: Any):
    """The jaxprs in an equation's parameters, closed."""
    if isinstance(value, core.ClosedJaxpr):
        yield value
    elif isinstance(value, core.Jaxpr):
        yield core.ClosedJaxpr(value, ())
    elif isinstance(value, dict):
        for one in value.values():
            yield from _bodies(one)
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _bodies(one)
