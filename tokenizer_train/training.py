"""What the loop asks of that which it trains: a tokenizer (`preparation.py`) or a connector (`connector/`)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import jax
from etils import epath
from jax.sharding import Mesh

from tokenizer_train.config import FeedConfig, OptimizerConfig, RecordConfig
from tokenizer_train.stream import Stream
from tokenizer_train.summaries import Summaries

State = TypeVar("State")
Metrics = dict[str, jax.Array]
Step = partial[tuple[State, Metrics]]


class Experiment(Protocol):
    """A config: the sections that every run has."""

    @property
    def data(self) -> FeedConfig: ...
    @property
    def optimizer(self) -> OptimizerConfig: ...
    @property
    def run(self) -> RecordConfig: ...


class Training(Protocol[State]):
    """What a run has before its first step, besides its state: one pytree, whose arrays lie where they belong.

    Attributes:
        config: the experiment.
        mesh: the devices.
        identity: what must not change while the run goes on.
        batches: what the steps take, an endless stream.
        images: how many there are to train on.
        precision: of most products, a key of `flops.PEAKS`' entries.
    """

    @property
    def config(self) -> Experiment: ...
    @property
    def mesh(self) -> Mesh: ...
    @property
    def identity(self) -> str: ...
    @property
    def batches(self) -> Stream: ...
    @property
    def images(self) -> int: ...
    @property
    def precision(self) -> str: ...

    def begin(self, state: State, say: Callable[[str], None]) -> tuple[State, dict[str, Any] | None]:
        """The state that a new run begins with, and what is told of the training of what that is from, if from
        anything.

        Raises:
            InputError: what it begins with does not fit.
        """

    def make_step(self) -> Step[State]:
        """The jitted step (state, batch) -> (state, metrics), float32 scalars; the old state's memory is reused. A
        partial of the jitted function with its constants, so that its cost can be counted."""

    def validate(self, state: State, summaries: Summaries, step: int) -> None:
        """Measure and show, by all processes together."""

    def export(self, state: State, folder: epath.Path, told: Mapping[str, Any]) -> None:
        """Write what was trained, with what is told of its training, by all processes together; the first writes."""
