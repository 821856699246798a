"""What sets one benchmark's judge apart from another's, and the scores of either as a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from icl_runner.answer_file import Answer
from icl_runner.figures import Figure, finite
from icl_runner.judge.cases import Case, Judged
from icl_runner.report.table import Row

T = TypeVar("T")


@dataclass(frozen=True)
class Bench(Generic[T]):
    """A benchmark.

    Args:
        title: of its table.
        system: what the judge is to do.
        examples: of judgements.
        read: a judgement -> its score; raises `Unreadable`.
        figure: the score of some cases; None if none of them was judged.
        means: further columns, means of a value of the scores.
        order: of the groups that come first.
    """

    title: str
    system: str
    examples: tuple[tuple[str, str], ...]
    read: Callable[[Answer], T]
    figure: Callable[[Judged[T], Sequence[str]], Figure | None]
    means: tuple[tuple[str, Callable[[T], float]], ...] = ()
    order: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scored:
    """The cases of one group: their score, that of each run, and the further means."""

    group: str
    figure: Figure | None
    runs: tuple[Figure | None, ...]
    means: tuple[float, ...]


def scored(bench: Bench[T], cases: Sequence[Case], found: Judged[T], runs: int) -> list[Scored]:
    """All cases together, then those of each group."""
    names = {group for case in cases for group in case.groups}
    order = sorted(names, key=lambda name: (name not in bench.order, _place(bench.order, name), name))
    groups = [("all", [case.id for case in cases])]
    groups += [(name, [case.id for case in cases if name in case.groups]) for name in order]
    made = []
    for name, ids in groups:
        of_value = [found.means(ids, value) for _, value in bench.means]
        means = tuple(sum(values) / len(values) for values in of_value if values)
        each = tuple(bench.figure(found.run(number), ids) for number in range(1, runs + 1))
        made.append(Scored(name, bench.figure(found, ids), each, means))
    return made


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def columns(bench: Bench[Any]) -> tuple[str, ...]:
    return ("score", "lowest and highest run", *(title for title, _ in bench.means), "questions")


def row(bench: Bench[Any], one: Scored) -> Row:
    """As it is shown."""
    if one.figure is None:
        return Row("result", one.group, ("–", "–", *("–" for _ in bench.means), "0"))
    runs = sorted((figure for figure in one.runs if figure), key=lambda figure: figure.mean)
    spread = f"{runs[0].text()}–{runs[-1].text()}" if len(one.runs) > 1 else "–"
    means = (f"{mean:.2f}" for mean in one.means)
    return Row("result", one.group, (one.figure, spread, *means, str(one.figure.count)))


def as_json(bench: Bench[Any], one: Scored) -> dict[str, Any]:
    """The same, unrounded: shares and means as they are, null for what was not judged."""
    figure = one.figure
    return {
        "score": figure and figure.mean,
        "low": figure and finite(figure.low),
        "high": figure and finite(figure.high),
        "runs": [of_run and of_run.mean for of_run in one.runs],
        **{title: mean for (title, _), mean in zip(bench.means, one.means, strict=False)},
        "questions": figure.count if figure else 0,
    }
