"""Progress in a log: where there is no terminal, a plain line now and then."""

import sys
from collections.abc import Callable
from threading import Timer

import pytest

from spae import progress
from spae.progress import Progress, counted, time_left


class Clock:
    """Time that passes when it is told to, and what is to be done at some time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Timer]] = []

    def timer(self, wait: float, function: Callable[[], None]) -> Timer:
        timer = Timer(0, function)
        timer.start = lambda: self.timers.append((self.now + wait, timer))
        return timer

    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for at, timer in self.timers if at <= self.now]
        self.timers = [(at, timer) for at, timer in self.timers if at > self.now]
        for timer in due:
            timer.run()


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(progress.threading, "Timer", clock.timer)
    return clock


def test_a_line_every_thirty_seconds_and_none_for_what_is_quick(clock, capsys) -> None:
    with Progress(240, "features", "image", done=40) as shown:
        for _ in range(20):
            clock.wait(4.0)
            shown.update(10)
    assert capsys.readouterr().err.splitlines() == [
        "features 110/240, 0:59 left",
        "features 190/240, 0:21 left",
    ]
    assert list(counted(range(3), "things", "thing")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_what_nobody_knows_the_end_of(clock, capsys) -> None:
    with Progress(None, "round trips", "trip") as shown:
        for _ in range(3):
            clock.wait(20.0)
            shown.update()
        shown.print("a word of its own", sys.stdout)
    out, err = capsys.readouterr()
    assert (out, err) == ("a word of its own\n", "round trips 1\n")


def test_what_comes_at_once_is_told_though_nothing_follows(clock, capsys) -> None:
    with Progress(20, "samples", "sample") as shown:
        clock.wait(600.0)
        for _ in range(10):
            shown.update()
        clock.wait(600.0)
        assert capsys.readouterr().err.splitlines() == [
            "samples 1/20, 3:10:00 left",
            "samples 10/20, 20:00 left",
        ]
        shown.update()
        shown.update()
        capsys.readouterr()
    clock.wait(600.0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "done", "left", "said"),
    [
        (60, 120, 280, "2:20"),
        (1, 1, 0, "0:00"),
        (0, 0, 5, "?"),
        (1, 1, 3_729, "1:02:09"),
        (1, 1, 90_000, "1 day 1:00:00"),
        (1, 1, 2 * 86_400 + 5, "2 days 0:00:05"),
    ],
)
def test_the_time_that_is_left(seconds: float, done: int, left: int, said: str) -> None:
    assert time_left(seconds, done, left) == said
