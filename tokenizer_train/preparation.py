"""All that a run needs before its first step: images, words, networks, and the state that they begin with."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import UInt8

from spae import bundle
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
from tokenizer_train.inflate import initial
from tokenizer_train.processes.mesh import check_same, is_main, local_rows
from tokenizer_train.start import beginning
from tokenizer_train.state import Modules, TrainState, create, tokenizer
from tokenizer_train.step import make_step
from tokenizer_train.summaries import Summaries
from tokenizer_train.training import Metrics
from tokenizer_train.validation import validate

VALIDATION_IMAGES = 64  # behind the figures during training


@dataclass(eq=False)
class Prepared:
    """What stays as it is through a tokenizer's run, and the stream of its batches (`tokenizer_train.training`)."""

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
    _made: Tokenizer | None = None  # brought up to date again and again, so that nothing is compiled anew

    @property
    def precision(self) -> str:
        return self.config.run.precision

    def tokenizer(self, state: TrainState, averaged: bool = True) -> Tokenizer:
        """`state.tokenizer` of this run, of the averaged weights or the last ones; by all processes together. One and
        the same object every time."""
        self._made = tokenizer(
            self.modules,
            state,
            self.config,
            self.vocabulary,
            self.trunk,
            self.mesh,
            ema=averaged,
            like=self._made,
            pursuit=self.pursuit,
        )
        return self._made

    def begin(
        self, state: TrainState, say: Callable[[str], None]
    ) -> tuple[TrainState, dict[str, Any] | None]:
        """With the weights of `run.initial`, if it names a bundle."""
        begun = self.config.run.initial
        if begun is None:
            return state, None
        params, before = initial(begun, self.config.tokenizer, self.vocabulary, state.params)
        say(f"beginning with the weights of {begun}")
        before = {**before, "sha256": bundle.sha256(begun)}
        return dataclasses.replace(state, params=params, ema=jax.tree.map(jnp.copy, params)), before

    def make_step(self) -> partial[tuple[TrainState, Metrics]]:
        """See `tokenizer_train.step`."""
        return make_step(self.config, self.modules, self.mesh)

    def validate(self, state: TrainState, summaries: Summaries, step: int) -> None:
        """See `tokenizer_train.validation`."""
        if self._made is None:
            summaries.line(f"validating on {len(self.validation)} images; compiling ..")
        validate(partial(self.tokenizer, state), self.validation, summaries, step)

    def export(self, state: TrainState, folder: epath.Path, told: Mapping[str, Any]) -> None:
        """The bundle of a tokenizer."""
        model = self.tokenizer(state)
        if is_main():
            model.save(folder, {"training": told})


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
