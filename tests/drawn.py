"""Networks with random parameters, for tests that any parameters do."""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from flax import nnx

from spae.weights.state_dict import abstract

Network = TypeVar("Network", bound=nnx.Module)


def drawn(build: Callable[[nnx.Rngs], Network], seed: int = 0) -> Network:
    """The network with parameters of the usual sizes, drawn by NumPy: scales are 1, biases 0, all else is normal with
    twice the variance that keeps a linear layer's output as large as its input (He et al., arXiv 1502.01852). JAX would
    compile a draw for every shape there is, which takes longer than most tests."""
    graph, state = nnx.split(abstract(build))
    rng = np.random.default_rng(seed)
    flat = []
    for path, variable in nnx.to_flat_state(state):
        name, inputs = str(path[-1]), np.prod(variable.shape[:-1])
        if name.endswith(("scale", "bias")):
            value = np.full(variable.shape, name.endswith("scale"))
        else:
            value = rng.normal(scale=np.sqrt(2 / inputs), size=variable.shape)
        flat.append((path, variable.replace(jax.device_put(value.astype(variable.dtype)))))
    return nnx.merge(graph, nnx.from_flat_state(flat))
