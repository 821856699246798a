"""Being asked to stop: by SIGTERM, as clouds and schedulers do before they take a machine, or by Ctrl-C."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax._src import distributed  # the moment at which its service begins has no public door
from jax.experimental import multihost_utils


class Stopped(BaseException):
    """The run was asked to stop and has left everything in order.

    `signal` is what asked. `step` is the last one done, the same in all processes; 0 before the first, when the others
    do not know of the request.

    No Exception, as KeyboardInterrupt is none: it comes at any moment, and nothing that handles errors should keep it.
    """

    def __init__(self, message: str, asked: signal.Signals, step: int = 0) -> None:
        super().__init__(message)
        self.signal, self.step = asked, step


class Requests:
    """Whether somebody asked the run to stop; from `listen`.

    Before the first step there is nothing to save, and a request ends the run at once. From then on it is kept
    until the loop asks for it between two steps; a second Ctrl-C interrupts whatever goes on.

    With several processes all must stop after the same step. From `begin` on JAX's own preemption service listens for
    SIGTERM then and agrees on the step; Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self._training = False
        self._asked: signal.Signals | None = None

    def begin(self) -> None:
        """The steps begin: from now on there is something to save."""
        if jax.process_count() > 1 and not _taken():
            # It takes SIGTERM for itself and for good, so `mesh.start` has left it out.
            jax.config.update("jax_enable_preemption_service", True)
            distributed.global_state.initialize_preemption_sync_manager()
        # Not before: what comes while the service begins, and not to it, would never be heeded.
        self._training = True

    def after(self, step: int) -> signal.Signals | None:
        """What asked to stop after this step, or None; to be called after every step, by every process."""
        if jax.process_count() > 1:
            return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else None
        return self._asked

    def _take(self, number: int, frame: object) -> None:
        asked = signal.Signals(number)
        before, self._asked = self._asked, asked
        if not self._training:
            # Python drops what is raised while it runs a finalizer: then the request is heeded after the first step.
            raise Stopped(
                f"stopped by {asked.name} before the first step: the same command begins again, with those files "
                "of features that are whole",
                asked,
            )
        if before is not None and asked == signal.SIGINT:
            raise KeyboardInterrupt


@contextlib.contextmanager
def listen() -> Iterator[Requests]:
    """Take SIGTERM and SIGINT as requests to stop, until the end of the block.

    Signals reach only the main thread of Python: elsewhere nothing is taken. With several processes SIGINT is not.
    """
    requests = Requests()
    # What JAX's service has taken in an earlier run of this process stays its own.
    if _taken() or threading.current_thread() is not threading.main_thread():
        yield requests
        return
    numbers = [signal.SIGTERM] if jax.process_count() > 1 else [signal.SIGTERM, signal.SIGINT]
    before = {number: signal.signal(number, requests._take) for number in numbers}
    try:
        yield requests
    finally:
        if not _taken():
            for number, handler in before.items():
                signal.signal(number, handler)


def _taken() -> bool:
    """Whether JAX's service listens for SIGTERM, which it does until the end of the process."""
    return jax.process_count() > 1 and distributed.global_state.preemption_sync_manager is not None
