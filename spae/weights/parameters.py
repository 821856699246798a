"""A module's parameters as flat names and NumPy arrays, and back: what a bundle keeps."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from spae.errors import BundleError, InputError
from spae.weights.state_dict import abstract


def flatten(state: Any, prefix: str) -> dict[str, np.ndarray]:
    """An NNX state as flat names and arrays: 'autoencoder.encoder.stem.kernel'."""
    flat = nnx.to_flat_state(state)
    return {prefix + ".".join(map(str, path)): np.asarray(value[...]) for path, value in flat}


def cast(value: np.ndarray, dtype: str) -> np.ndarray:
    """Floating-point numbers as `dtype`, whole numbers as they are.

    Raises:
        InputError: a finite number that would become infinite.
    """
    if not np.issubdtype(value.dtype, np.floating):
        return value
    with np.errstate(over="ignore"):
        found = value.astype(dtype)
    if (np.isinf(found) & np.isfinite(value)).any():
        raise InputError(f"a weight of {np.abs(value).max():.3g} is more than {dtype} can hold: take float32")
    return found


def restore(build: Callable[[nnx.Rngs], nnx.Module], params: Mapping[str, np.ndarray], prefix: str) -> Any:
    """A module whose every variable is read from `params`; nothing may lack, be left over or differ in shape."""
    graph, state = nnx.split(abstract(build))
    flat, seen = [], set()
    for path, variable in nnx.to_flat_state(state):
        name = prefix + ".".join(map(str, path))
        if name not in params or params[name].shape != variable.shape:
            found = f"of shape {params[name].shape}" if name in params else "missing"
            raise BundleError(f"wanted parameter {name} of shape {variable.shape}, it is {found}")
        seen.add(name)
        # Cast by NumPy and only then moved: JAX would compile a program for every shape, half a second in all.
        value = jax.device_put(params[name].astype(variable.dtype))
        flat.append((path, variable.replace(value)))
    extra = sorted(key for key in params if key.startswith(prefix) and key not in seen)
    if extra:
        raise BundleError(f"the bundle has parameters that its architecture does not: {extra[:3]}")
    return nnx.merge(graph, nnx.from_flat_state(flat))
