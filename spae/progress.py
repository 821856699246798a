"""How far something long has come: a bar on a terminal; elsewhere, as in a log, a plain line every 30 seconds.

What takes less than two seconds shows no bar, and what takes less than thirty leaves no line.
"""

import sys
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

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._bar.disable and now - self._said >= SECONDS and self._done != self._total:
            self._said = now
            print(f"{self._what} {self._told(now)}", file=sys.stderr, flush=True)

    def print(self, text: str, file: TextIO) -> None:
        """A line of something else, above the bar."""
        self._bar.write(text, file=file)

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
