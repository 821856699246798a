"""All that a connector's run needs before its first step, and what is measured and written of it."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from spae import frozen_lm
from spae.connector import Connector, ConnectorNetwork, Reader
from spae.connector_config import IMAGE
from spae.frozen_lm.model import Decoder
from spae.guidance.features import Trunk, features_shape, load_trunk
from spae.layers.rematerialize import rematerialize
from spae.sources import Source
from tokenizer_train.connector.config import ConnectorExperiment
from tokenizer_train.connector.dialogues import open_dialogues
from tokenizer_train.connector.pairs import Pairs, validation_batch
from tokenizer_train.connector.step import ConnectorState, Frozen, Networks, make_step, nats
from tokenizer_train.processes.mesh import (
    check_same,
    is_main,
    local_rows,
    replicate,
    replicated,
    shardings,
    to_host,
)
from tokenizer_train.state import transform
from tokenizer_train.stream import Stream
from tokenizer_train.summaries import Summaries
from tokenizer_train.training import Metrics


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedConnector:
    """What stays as it is through a connector's run, and the stream of its batches (`tokenizer_train.training`)."""

    config: ConnectorExperiment
    mesh: Mesh
    identity: str
    batches: Stream
    images: int  # to train on
    notes: list[str]  # lines about what is not trained on, and what may not be meant
    validation: Mapping[str, np.ndarray]
    networks: Networks
    trunk: Trunk
    reader: Reader
    measure: Callable[..., tuple[Array, Array]]  # `step.nats`, jitted
    precision: str = "highest"  # the frozen model's products are float32 in full

    def begin(
        self, state: ConnectorState, say: Callable[[str], None]
    ) -> tuple[ConnectorState, dict[str, Any] | None]:
        """From random weights."""
        for line in self.notes:
            say(line)
        return state, None

    def make_step(self) -> partial[tuple[ConnectorState, Metrics]]:
        """See `tokenizer_train.connector.step`."""
        return make_step(self.networks, self.mesh)

    def validate(self, state: ConnectorState, summaries: Summaries, step: int) -> None:
        """Nats a token of what is to be said of the fixed images, by the averaged weights: with the true images; with
        each image in the place of another, whose text differs (shuffled); and with black images in all places
        (blind). `preferred`: the share of texts that are likelier with their own image than with the other one; 0.5
        is blind."""
        true_b, said_b = self._nats(state, self.validation["images"])
        shuffled_b, _ = self._nats(state, self.validation["other_images"])
        blind_b, _ = self._nats(state, np.zeros_like(self.validation["images"]))
        figures = {"loss": true_b.sum(), "loss/shuffled": shuffled_b.sum(), "loss/blind": blind_b.sum()}
        figures = {name: float(value / said_b.sum()) for name, value in figures.items()}
        figures["preferred"] = float((true_b < shuffled_b).mean() + (true_b == shuffled_b).mean() / 2)
        summaries.scalars(step, figures, "validation")

    def _nats(self, state: ConnectorState, images_bhwc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """In batches of the training's size, each whole on every device: there are few."""
        size, rows = self.config.data.batch_size, len(images_bhwc)
        found = []
        for start in range(0, rows, size):
            # The last batch begins earlier, with rows that were measured before.
            part = slice(max(0, min(start, rows - size)), start + size)
            texts = {name: self.validation[name][part] for name in ("ids", "soft", "at", "said")}
            images, batch = replicate((images_bhwc[part], texts), self.mesh)
            measured = self.measure(state.ema, self.networks.frozen, images, batch)
            found.append([np.asarray(one.addressable_data(0))[start - part.start :] for one in measured])
        nats_b, said_b = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return nats_b, said_b

    def export(self, state: ConnectorState, folder: epath.Path, told: Mapping[str, Any]) -> None:
        """The bundle of a connector (`spae.connector.load`)."""
        params = jax.tree.map(jnp.asarray, to_host(state.ema, self.mesh))
        if is_main():
            network: ConnectorNetwork = nnx.merge(self.networks.connector, params)
            info = {"training": dict(told)}
            Connector(self.config.connector, network, self.trunk, self.reader, info).save(folder)


def prepare(config: ConnectorExperiment, mesh: Mesh) -> tuple[PreparedConnector, ConnectorState]:
    """What the run is made of, and its fresh state. The processes of a run must call this together.

    Raises:
        InputError: the config does not fit the data, the networks or the devices.
    """
    trunk, lm = load_trunk(config.trunk), frozen_lm.load(config.language_model)
    reader = Reader.of(lm)
    cells, width_in = features_shape(trunk, config.connector.look, config.connector.grid)
    (source, said), (others, said_of_others), notes = open_dialogues(config.data)
    first = sum(dialogue[0][0].startswith(IMAGE) for dialogue in said)
    if first and not lm.encode(""):
        # Measured: docs/connectors.md.
        notes.append(
            f"{lm.name} has no token of its own in front of texts, and {IMAGE} comes first in {first:,} of "
            f"{len(said):,}: the first place draws attention whatever stands there, so maps learn slowly; put a text "
            f'before it (data.prompt "Image: {IMAGE}")'
        )
    rows = local_rows(config.data.batch_size, mesh)
    build = partial(ConnectorNetwork, config.connector, width_in, reader.width)
    tokens = jax.eval_shape(lambda: build(rngs=nnx.Rngs(0))(jnp.zeros((1, cells, width_in)))).shape[1]
    pairs = Pairs(source, said, lm, tokens, trunk.image_size, config.data)
    held_out = Pairs(others, said_of_others, lm, tokens, trunk.image_size, config.data)
    run_id = identity(config, reader, trunk, pairs, source)
    check_same(run_id, "config, images, texts or frozen networks")
    networks, state = create(config, build, trunk, lm, mesh)
    prepared = PreparedConnector(
        config,
        mesh,
        run_id,
        Stream([(pairs, 1.0)], config.data, config.run.seed, rows),
        len(pairs),
        notes,
        validation_batch(held_out),
        networks,
        trunk,
        reader,
        jax.jit(partial(nats, networks), out_shardings=replicated(mesh)),
    )
    return prepared, state


def identity(config: ConnectorExperiment, reader: Reader, trunk: Trunk, pairs: Pairs, source: Source) -> str:
    """sha256 of what must not change while a run goes on, by what it is and not by where it lies."""
    parts = (
        dataclasses.asdict(config.connector),
        (config.run.seed, config.data.batch_size, config.data.prompt, config.data.length),
        (reader.sha256, reader.tokens_sha256, trunk.sha256),
        (source.identity, source.keys),
        pairs.dialogues,
    )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def create(
    config: ConnectorExperiment,
    build: Callable[..., ConnectorNetwork],
    trunk: Trunk,
    lm: frozen_lm.FrozenLM,
    mesh: Mesh,
) -> tuple[Networks, ConnectorState]:
    """The static side, its frozen arrays whole on every device, and a fresh state by `run.seed`, each array made where
    it will lie."""
    networks, fresh = static_side(config, build, trunk, nnx.merge(*lm.split()))
    key = jax.random.key(config.run.seed)
    state = jax.jit(fresh, out_shardings=shardings(jax.eval_shape(fresh, key), mesh))(key)
    return dataclasses.replace(networks, frozen=replicate(networks.frozen, mesh)), state


def static_side(
    config: ConnectorExperiment, build: Callable[..., ConnectorNetwork], trunk: Trunk, decoder: Decoder
) -> tuple[Networks, Callable[[Array], ConnectorState]]:
    """Graph definitions and frozen arrays, not yet put anywhere, and the function from a key to a fresh state. Of the
    frozen networks the shapes are enough."""
    optimizer = transform(config.optimizer)
    if config.run.rematerialize:
        rematerialize(decoder)
    decoder_graph, decoder_params = nnx.split(decoder)
    trunk_graph, trunk_params = nnx.split(trunk.network)

    @jax.jit  # traced once, for the graph and for the state
    def network(key: Array) -> tuple[nnx.GraphDef, Any]:
        return nnx.split(build(rngs=nnx.Rngs(key)), nnx.Param)

    def fresh(key: Array) -> ConnectorState:
        _, params = network(key)
        ema = jax.tree.map(jnp.copy, params)
        return ConnectorState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params))

    networks = Networks(
        config.connector,
        trunk.layers,
        jax.eval_shape(network, jax.eval_shape(jax.random.key, 0))[0],
        trunk_graph,
        decoder_graph,
        optimizer,
        config.optimizer.ema,
        Frozen(trunk_params, decoder_params),
    )
    return networks, fresh
