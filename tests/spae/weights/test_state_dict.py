"""Networks that wait for their weights."""

import jax
import jax.numpy as jnp
from flax import nnx

from spae.cnn import DepthwiseBlock
from spae.guidance.efficientnet import STAGES, Block
from spae.weights.state_dict import abstract, hollow


def two(rngs: nnx.Rngs) -> nnx.List:
    """Of Flax's layers and of those that are always filled."""
    return nnx.List([DepthwiseBlock(4, dtype=jnp.bfloat16, rngs=rngs), Block(8, STAGES[1], 2, rngs=rngs)])


def test_an_abstract_network_is_flaxes_own():
    graph, state = nnx.split(abstract(two))
    wanted_graph, wanted = nnx.split(nnx.eval_shape(lambda: two(nnx.Rngs(0))))
    assert graph == wanted_graph
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), wanted
    )


def test_a_hollow_network_is_zeros():
    assert all(not leaf.any() for leaf in jax.tree.leaves(nnx.state(hollow(two))))
