"""How far something long has come: a bar on a terminal; elsewhere, as in a log, a plain line 30 seconds after the last
one, if anything was done since.

What takes less than two seconds shows no bar, and what takes less than thirty leaves no line.
"""

import sys
import threading
import time
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")

SECONDS = 30.0  # from one line to the next
DELAY = 2.0  # seconds before there is a bar


class Progress:
    """Counts what is done, on standard error.

    Args:
        total: how many there are to do; None where nobody knows.
        what: is done.
        unit: what one of them is called, on the bar.
        done: of them, before this began.
    """

    def __init__(self, total: int | None, what: str, unit: str, done: int = 0) -> None:
        self._total, self._what, self._done = total, what, done
        self._bar = tqdm(
            total=total, initial=done, desc=what, unit=unit, disable=None, leave=False, delay=DELAY
        )
        self._begun = done
        self._started = self._said = time.monotonic()
        self._later: threading.Timer | None = None  # says what the last updates before it did
        self._saying = threading.Lock()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._saying:
            if self._later is not None:
                self._later.cancel()
                self._later = None
        self._bar.close()

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        self._bar.update(count)
        if not self._bar.disable:
            return
        with self._saying:
            wait = self._said + SECONDS - time.monotonic()
            if self._later is not None:
                return
            if wait <= 0:
                self._say()
                return
            self._later = threading.Timer(wait, self._say_later)
            self._later.daemon = True
            self._later.start()

    def print(self, text: str, file: TextIO) -> None:
        """A line of something else, above the bar."""
        self._bar.write(text, file=file)

    def _say_later(self) -> None:
        with self._saying:
            if self._later is not None:  # else it was over before the lock was free
                self._later = None
                self._say()

    def _say(self) -> None:
        if self._done == self._total:
            return
        self._said = time.monotonic()
        print(f"{self._what} {self._told(self._said)}", file=sys.stderr, flush=True)

    def _told(self, now: float) -> str:
        if self._total is None:
            return f"{self._done:,}"
        left = time_left(now - self._started, self._done - self._begun, self._total - self._done)
        return f"{self._done:,}/{self._total:,}, {left} left"


def counted(things: Collection[T], what: str, unit: str) -> Iterator[T]:
    """The things, each of them done when the next one is asked for."""
    with Progress(len(things), what, unit) as progress:
        for one in things:
            yield one
            progress.update()


def time_left(seconds: float, done: int, left: int) -> str:
    """The time that `left` things will take if `done` of them took so many seconds, such as "2:36" or "2 days 3:00:00".

    A question mark if nothing is done yet.
    """
    if done <= 0:
        return "?"
    minutes, rest = divmod(round(seconds / done * left), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{days} day{'s' * (days > 1)} {clock}" if days else clock
