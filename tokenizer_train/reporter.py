"""What a run says of its steps: metrics one step late, speed, how long it will take; and that it has diverged."""

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

import jax

from spae.progress import SECONDS, time_left
from tokenizer_train.checkpoint import Checkpoints
from tokenizer_train.speed import Speed
from tokenizer_train.summaries import Summaries
from tokenizer_train.training import Experiment


class Diverged(ArithmeticError):
    """A loss or a weight is no longer finite; the message names the step and the last good checkpoint."""


class Reporter:
    """Reads the metrics of a step when the next one is on its way; stops the run when they are not finite."""

    def __init__(
        self, config: Experiment, precision: str, summaries: Summaries, checkpoints: Checkpoints
    ) -> None:
        self._config, self._summaries, self._checkpoints = config, summaries, checkpoints
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._speed = Speed(config.data.batch_size, precision)
        # The first step, and when it was done; when the last line on the time that is left was said.
        self._first: tuple[int, float] | None = None
        self._said = 0.0

    def measure(self, flops: float) -> None:
        """From now on, with these operations a step."""
        self._speed.flops = flops

    def waiting(self) -> AbstractContextManager[None]:
        """Around what fetches the next batch."""
        return self._speed.waiting()

    def restart(self) -> None:
        """Leave what happened since the last line out of the next line's speed."""
        self._speed.restart()

    def dispatched(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """A step is on its way: report on the one before."""
        before, self._pending = self._pending, (step, metrics)
        if before is not None:
            self._report(*before)

    def flush(self) -> None:
        """Report on the last step too, which waits for it."""
        if self._pending is not None:
            before, self._pending = self._pending, None
            self._report(*before)

    def diverged(self, step: int, what: str) -> str:
        """What is said of a run that has diverged."""
        self._checkpoints.wait()
        good = self._checkpoints.latest
        kept = f"the last good checkpoint is step {good:,}" if good else "there is no checkpoint yet"
        return (
            f"{what} is not finite at step {step:,}; {kept} ({self._checkpoints.folder}): lower "
            "optimizer.learning_rate, set optimizer.clip_norm or run.precision float32, and run again"
        )

    def _report(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        if bad := [name for name, value in values.items() if not math.isfinite(value)]:
            raise Diverged(self.diverged(step, f"the metric {bad[0]!r}"))
        self._speed.stepped()
        if step % self._config.run.log_every == 0:
            self._summaries.scalars(step, values, "train")
            self._summaries.scalars(step, self._speed.figures(), "speed")
            self._speed.restart()
        self._tell(step)

    def _tell(self, step: int) -> None:
        """How far the run has come and how long it will take, every so many seconds."""
        now, last = time.monotonic(), self._config.optimizer.steps
        if self._first is None:
            # It was compiled as well, and says nothing of the others.
            self._first, self._said = (step, now), now
        elif now - self._said >= SECONDS:
            self._said = now
            first, since = self._first
            left = time_left(now - since, step - first, last - step)
            self._summaries.line(f"step {step:,}/{last:,}, {left} left")
