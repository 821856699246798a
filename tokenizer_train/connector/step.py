"""One step of training a connector: what a frozen language model would have said of the images, given its soft tokens.

The loss is the mean over the tokens of all answers of -log p, in nats. The language model and the trunk are constants
of the step: they get no gradient, and nothing of them changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from spae.connector_config import ConnectorConfig
from spae.guidance.features import features
from spae.splice import NO_LABEL
from tokenizer_train.processes.mesh import replicated, shardings
from tokenizer_train.training import Metrics


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ConnectorState:
    """Everything that changes, as one pytree: one checkpoint item."""

    step: Array  # () int32, steps done
    params: Any  # of the connector
    ema: Any  # their moving average: what is evaluated and exported
    optimizer: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frozen:
    """Arrays that the step reads and never changes."""

    trunk: Any
    language_model: Any


@dataclass(frozen=True)
class Networks:
    """The static side: graph definitions and the optimiser, and the frozen arrays."""

    config: ConnectorConfig
    layers: tuple[int, ...]  # of the trunk
    connector: nnx.GraphDef
    trunk: nnx.GraphDef
    language_model: nnx.GraphDef
    transform: optax.GradientTransformation
    ema: float  # decay of the averaged weights
    frozen: Frozen


def make_step(networks: Networks, mesh: Mesh) -> partial[tuple[ConnectorState, Metrics]]:
    """The jitted step, see `tokenizer_train.training.Training.make_step`; the batch is `pairs.Pairs`' records. Metrics:
    `loss`, `tokens` (how many were to be said)."""

    def in_parts(tree: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, shardings(tree, mesh))

    def gathered(tree: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, replicated(mesh))

    def step(
        state: ConnectorState, batch: Mapping[str, Array], constants: Frozen
    ) -> tuple[ConnectorState, Metrics]:
        def mean(params: Any) -> tuple[Array, Metrics]:
            nats_b, said_b = nats(networks, params, constants, batch["images"], batch)
            loss = jnp.sum(nats_b) / jnp.sum(said_b)
            return loss, {"loss": loss, "tokens": jnp.sum(said_b)}

        (_, metrics), gradient = jax.value_and_grad(mean, has_aux=True)(gathered(state.params))
        update, optimizer = networks.transform.update(in_parts(gradient), state.optimizer, state.params)
        params = optax.apply_updates(state.params, update)
        decay = jnp.minimum(networks.ema, (1 + state.step) / (10 + state.step))
        ema = jax.tree.map(lambda old, new: new + decay * (old - new), state.ema, params)
        after = replace(state, step=state.step + 1, params=params, ema=ema, optimizer=optimizer)
        return in_parts(after), gathered(metrics)

    return partial(jax.jit(step, donate_argnums=0), constants=networks.frozen)


def nats(
    networks: Networks, params: Any, frozen: Frozen, images_bhwc: Array, batch: Mapping[str, Array]
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """-log p of what is to be said of each image, float32 (b,), in nats over all its tokens; and their number.

    Args:
        params: of the connector.
        frozen: of the networks.
        images_bhwc: uint8 (B, S, S, 3).
        batch: the rest of `pairs.Pairs`' records.
    """
    frozen = jax.lax.stop_gradient(frozen)
    trunk = nnx.merge(networks.trunk, frozen.trunk)
    config = networks.config
    seen_bnc = features(
        trunk, images_bhwc.astype(jnp.float32) / 255, config.look, networks.layers, config.grid
    )
    soft_bmd = nnx.merge(networks.connector, params)(seen_bnc)
    decoder = nnx.merge(networks.language_model, frozen.language_model)
    soft_bn, at_bl, said_bl = batch["soft"], batch["at"], batch["said"]
    placed_bnd = jnp.take_along_axis(soft_bmd, jnp.maximum(soft_bn, 0)[..., None], 1)
    x_bnd = jnp.where(soft_bn[..., None] >= 0, placed_bnd, decoder.embed(batch["ids"]))
    b, n = soft_bn.shape
    positions_bn = jnp.broadcast_to(jnp.arange(n), (b, n))
    # Nothing sees what is behind it, so the places behind a text's end need no mask.
    hidden_bnd, _ = decoder(x_bnd, None, jnp.zeros(b, jnp.int32), positions_bn, jnp.zeros((b, n), jnp.int32))
    logits_blv = decoder.logits(jnp.take_along_axis(hidden_bnd, at_bl[..., None], 1))
    said = said_bl != NO_LABEL
    log_p_bl = optax.softmax_cross_entropy_with_integer_labels(logits_blv, jnp.maximum(said_bl, 0))
    return jnp.sum(jnp.where(said, log_p_bl, 0.0), 1), jnp.sum(said, 1).astype(jnp.float32)
