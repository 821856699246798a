"""Blocks whose activations are made again for the gradient instead of being kept (Chen et al., arXiv 1604.06174)."""

from abc import abstractmethod
from typing import Any

import jax
from flax import nnx


class Rematerializable(nnx.Module):
    """A block of a network, written as `forward`; calling it computes that, and where `rematerialize` was asked for, of
    the block's arrays only the inputs are kept for the gradient."""

    rematerialized = False

    @abstractmethod
    def forward(self, *inputs: Any) -> Any:
        """What the block computes."""

    def __call__(self, *inputs: Any) -> Any:
        return jax.checkpoint(self.forward)(*inputs) if self.rematerialized else self.forward(*inputs)


def rematerialize(network: nnx.Module) -> None:
    """From now on no block of the network keeps its activations. Outputs and parameters stay the same."""
    for _, module in nnx.iter_modules(network):
        if isinstance(module, Rematerializable):
            module.rematerialized = True
