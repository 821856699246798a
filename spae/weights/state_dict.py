"""Networks that are, in use, always filled from a file: cheap initial values, and the filling."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from spae.errors import InputError

Model = TypeVar("Model", bound=nnx.Module)


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], deviation: float) -> Float[Array, "..."]:
    """float32 values of the normal distribution around 0.

    Outside of JAX's transformations NumPy draws them: XLA would compile one generator per shape, a third of a
    second each, and these networks have a hundred shapes. Inside, that is in `abstract`, only the
    shape matters, and zeros are traced ten times faster than a generator.
    """
    key = rngs.params()
    if isinstance(key, jax.core.Tracer):
        return jnp.zeros(shape, jnp.float32)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return jnp.asarray(generator.normal(0.0, deviation, shape), jnp.float32)


def constant(shape: tuple[int, ...], value: float = 0.0) -> Float[Array, "..."]:
    return jnp.asarray(np.full(shape, value), jnp.float32)


def abstract(make: Callable[[nnx.Rngs], Model]) -> Model:
    """The model with a `jax.ShapeDtypeStruct` in the place of every array; no initial value is computed."""

    def made() -> Model:
        # One key for all: `nnx.Rngs` counts those it gave, and each count makes JAX look for where the count is from,
        # which takes longer than the shapes.
        key = jax.random.key(0)
        return make(cast(nnx.Rngs, SimpleNamespace(params=lambda: key)))

    return nnx.eval_shape(made)


def hollow(make: Callable[[nnx.Rngs], Model]) -> Model:
    """The model with zeros everywhere, without computing initial values: fill every parameter next."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract(make))


def fill(variable: nnx.Variable | None, value: np.ndarray, name: str) -> None:
    """Set a parameter to float32 `value`.

    Raises:
        InputError: the shapes differ; `name` says which tensor of the file it is.
    """
    wanted = None if variable is None else np.shape(variable.get_value())
    if variable is None or wanted != value.shape:
        raise InputError(
            f"expected shape {wanted} for {name}, got {value.shape}: these are another model's weights"
        )
    variable.set_value(jnp.asarray(value, jnp.float32))


class StateDict:
    """The tensors of a PyTorch model by name, each to be taken exactly once."""

    def __init__(self, tensors: dict[str, np.ndarray], model: str):
        """model: for messages."""
        self._tensors = dict(tensors)
        self._model = model

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str) -> np.ndarray:
        """
        Raises:
            InputError: there is no such tensor (left).
        """
        if name not in self._tensors:
            raise InputError(
                f"expected weights of {self._model} with a tensor {name!r}, it is missing: check the file"
            )
        return self._tensors.pop(name)

    def ignore(self, *names: str) -> None:
        """Tensors that may be there, and that inference does not need."""
        for name in names:
            self._tensors.pop(name, None)

    def linear(self, layer: nnx.Linear, name: str) -> None:
        fill(layer.kernel, self.take(f"{name}.weight").T, f"{name}.weight")
        fill(layer.bias, self.take(f"{name}.bias"), f"{name}.bias")

    def norm(self, layer: nnx.LayerNorm, name: str) -> None:
        fill(layer.scale, self.take(f"{name}.weight"), f"{name}.weight")
        fill(layer.bias, self.take(f"{name}.bias"), f"{name}.bias")

    def embedding(self, layer: nnx.Embed, name: str) -> None:
        fill(layer.embedding, self.take(f"{name}.weight"), f"{name}.weight")

    def vector(self, variable: nnx.Variable, name: str) -> None:
        fill(variable, self.take(name), name)

    def finish(self) -> None:
        """
        Raises:
            InputError: tensors are left over, so the file is of another model.
        """
        if self._tensors:
            raise InputError(
                f"expected weights of {self._model}, the file has {len(self._tensors)} tensors more, "
                f"such as {min(self._tensors)!r}: it is another model's"
            )
