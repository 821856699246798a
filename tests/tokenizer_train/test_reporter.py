"""How far a run has come, in its log: every half a minute, and never by the step that was compiled."""

import jax.numpy as jnp

from tokenizer_train import reporter
from tokenizer_train.config_file import load_config
from tokenizer_train.reporter import Reporter


class Lines:
    """Summaries that only keep the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def scalars(self, *_: object) -> None:
        pass


def test_the_time_that_is_left_is_told_every_half_a_minute(monkeypatch) -> None:
    now, said = [0.0], Lines()
    monkeypatch.setattr(reporter.time, "monotonic", lambda: now[0])
    shown = Reporter(load_config("default64", "tiny"), "float32", said, None)
    now[0] = 1000.0  # to compile
    for step in range(1, 7):
        shown.dispatched(step, {"loss": jnp.float32(1.0)})
        now[0] += 20.0
    assert said.lines == ["step 3/20, 5:40 left", "step 5/20, 5:00 left"]
