"""Being asked to stop: by SIGTERM, as clouds and schedulers do before they take a machine, or by Ctrl-C."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Stopped(BaseException):
    """The run was asked to stop and has left everything in order; `signal` is what asked.

    No Exception, as KeyboardInterrupt is none: it comes at any moment, and nothing that handles errors should keep it.
    """

    def __init__(self, message: str, asked: signal.Signals) -> None:
        super().__init__(message)
        self.signal = asked


class Requests:
    """Whether somebody asked the run to stop; from `listen`.

    Before the first step there is nothing to save, and a request ends the run at once. From then on it is kept
    until the loop asks for it between two steps; a second Ctrl-C interrupts whatever goes on.

    With several processes all must stop after the same step. JAX's own preemption service listens for SIGTERM
    then and agrees on the step; Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.training = False
        self._asked: signal.Signals | None = None

    def after(self, step: int) -> signal.Signals | None:
        """What asked to stop after this step, or None; to be called after every step, by every process."""
        if jax.process_count() > 1:
            return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else None
        return self._asked

    def _take(self, number: int, frame: object) -> None:
        asked = signal.Signals(number)
        before, self._asked = self._asked, asked
        if not self.training:
            # Python drops what is raised while it runs a finalizer: then the request is heeded after the first step.
            raise Stopped("stopped before the first step: nothing is lost", asked)
        if before is not None and asked == signal.SIGINT:
            raise KeyboardInterrupt


@contextlib.contextmanager
def listen() -> Iterator[Requests]:
    """Take SIGTERM and SIGINT as requests to stop, until the end of the block.

    Signals reach only the main thread of Python: elsewhere, as with several processes, nothing is taken.
    """
    requests = Requests()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield requests
        return
    before = {number: signal.signal(number, requests._take) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
