"""All that a run needs before its first step: images, words, networks, and the state that they begin with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import UInt8

from spae.pursuit import Pursuit
from spae.sources import Source
from spae.tokenizer import Tokenizer
from spae.vocabulary import Vocabulary
from tokenizer_train.config import Config
from tokenizer_train.damage import Damage
from tokenizer_train.data import Batches, fixed_images, mirrored_places, open_data
from tokenizer_train.guidance import Chosen, features, load
from tokenizer_train.held_out import hold_out
from tokenizer_train.identity import frozen_identity, identity
from tokenizer_train.processes.mesh import check_same, local_rows
from tokenizer_train.start import beginning
from tokenizer_train.state import Modules, TrainState, create, tokenizer

VALIDATION_IMAGES = 64  # behind the figures during training


@dataclass(frozen=True)
class Prepared:
    """What stays as it is through a run, and the stream of its batches."""

    config: Config
    mesh: Mesh
    identity: str  # what must not change while the run goes on
    vocabulary: Vocabulary
    images: int  # to train on
    batches: Batches
    validation: UInt8[np.ndarray, "n *T H W 3"]
    modules: Modules
    trunk: nnx.Module | None
    pursuit: Pursuit | None

    def tokenizer(self, state: TrainState, like: Tokenizer | None = None, averaged: bool = True) -> Tokenizer:
        """`state.tokenizer` of this run, of the averaged weights or the last ones; by all processes together."""
        return tokenizer(
            self.modules,
            state,
            self.config,
            self.vocabulary,
            self.trunk,
            self.mesh,
            ema=averaged,
            like=like,
            pursuit=self.pursuit,
        )


def prepare(config: Config, mesh: Mesh) -> tuple[Prepared, TrainState]:
    """What the run is made of, and its fresh state. The processes of a run share the work and must call this together.

    Raises:
        InputError: The config does not fit the data, the vocabulary or the devices.
    """
    vocabulary = config.vocabulary.load()
    sources, validation = open_sources(config)
    guidance = load(config)
    run_id = identity(config, vocabulary, sources, guidance)
    check_same(run_id, "config, words, guidance or images")
    begun, pursuit = beginning(config, vocabulary, guidance, sources[0][0])
    seen = Chosen(guidance, pursuit) if guidance is not None and pursuit is not None else guidance
    images_nf, words_vf, means_v = features(config, seen, vocabulary, sources)
    trunk = guidance.tower if guidance is not None and config.tokenizer.trunk != "none" else None
    mirrored = None
    if pursuit is not None:
        mirrored = mirrored_places(config.tokenizer.shape, config.tokenizer.meaning_layers)
    rows = local_rows(config.data.batch_size, mesh)
    size = config.tokenizer.image_size
    batches = Batches(sources, images_nf, size, config.data, config.run.seed, rows, mirrored)

    modules, state = create(config, vocabulary, words_vf, means_v, mesh, begun)
    run_id = f"{run_id} {frozen_identity(modules)}"
    if isinstance(seen, Chosen):
        run_id = f"{run_id} {seen.fingerprint}"
    check_same(run_id, "the weights of the perceptual network or the language model, or the words of meaning")
    images = sum(len(source) for source, _ in sources)
    prepared = Prepared(
        config, mesh, run_id, vocabulary, images, batches, validation, modules, trunk, pursuit
    )
    return prepared, state


def open_sources(
    config: Config,
) -> tuple[Sequence[tuple[Source, float]], UInt8[np.ndarray, "n *T H W 3"]]:
    """`data.train`, of weight 1, and the sources of `data.mixture` with theirs; and the fixed images of validation.

    Raises:
        InputError: Nothing there, or an image of validation cannot be read.
    """
    data = config.data
    first = open_data(data.train, data.train_split, config.tokenizer, data)
    if data.validation is None:
        first, validation = hold_out(first)
    else:
        validation = open_data(data.validation, data.validation_split, config.tokenizer, data)
    more = [(open_data(path, None, config.tokenizer, data), weight) for path, weight in data.mixture]
    images = fixed_images(validation, VALIDATION_IMAGES, config.tokenizer.image_size, Damage(data.damaged))
    return [(first, 1.0), *more], images
