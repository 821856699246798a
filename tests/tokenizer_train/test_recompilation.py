"""What a run costs beside its steps: nothing is compiled twice, nothing crosses to a device unasked."""

import dataclasses

import jax
import pytest

from spae.vocabulary import Vocabulary
from tokenizer_train import preparation
from tokenizer_train.loop import train
from tokenizer_train.summaries import Summaries


def test_nothing_recompiles_in_a_run_that_validates_and_saves(linear_config, monkeypatch) -> None:
    config = dataclasses.replace(
        linear_config,
        optimizer=dataclasses.replace(linear_config.optimizer, steps=8),
        run=dataclasses.replace(linear_config.run, evaluate_every=2, checkpoint_every=3),
    )
    compiled: list[str] = []
    after: dict[int, list[str]] = {}

    def count(event: str, duration: float, **_: object) -> None:
        if "trace" in event or "compile" in event:
            compiled.append(event)

    def scalars(self, step, values, group):
        if group == "validation":
            # Everything since the validation before: two steps, a save, this validation.
            after[step] = list(compiled)
            compiled.clear()

    monkeypatch.setattr(Summaries, "scalars", scalars)
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        train(config)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert after[2]
    assert {step: events for step, events in after.items() if step > 4} == {6: [], 8: []}


def test_a_forgotten_transfer_is_an_error(linear_config, monkeypatch) -> None:
    make_step = preparation.make_step

    def careless(*arguments):
        step = make_step(*arguments)
        words = Vocabulary.load(linear_config.vocabulary.path).codebook("appearance")

        class Careless:
            func, keywords = step.func, step.keywords

            def __call__(self, state, batch):
                jax.jit(lambda x: x + 1)(words)  # a NumPy array goes to the device with every step
                return step(state, batch)

        return Careless()

    monkeypatch.setattr(preparation, "make_step", careless)
    with pytest.raises(Exception, match=r"Disallowed host-to-device transfer"):
        train(linear_config)
