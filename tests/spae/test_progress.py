"""Progress in a log: where there is no terminal, a plain line now and then."""

import sys

import pytest

from spae import progress
from spae.progress import Progress, counted, time_left


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_thirty_seconds_and_none_for_what_is_quick(clock, capsys) -> None:
    with Progress(240, "features", "image", done=40) as shown:
        for _ in range(20):
            clock[0] += 4.0
            shown.update(10)
    assert capsys.readouterr().err.splitlines() == [
        "features 120/240, 0:48 left",
        "features 200/240, 0:16 left",
    ]
    assert list(counted(range(3), "things", "thing")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_what_nobody_knows_the_end_of(clock, capsys) -> None:
    with Progress(None, "round trips", "trip") as shown:
        for _ in range(3):
            clock[0] += 20.0
            shown.update()
        shown.print("a word of its own", sys.stdout)
    out, err = capsys.readouterr()
    assert (out, err) == ("a word of its own\n", "round trips 2\n")


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
