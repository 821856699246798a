"""What is judged: cases, each with a question of its own to the judge; and what became of its judgements."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import Any, Generic, TypeVar

from icl_runner.answer_file import Answer, AnswerFile
from icl_runner.endpoint import Question
from spae.conversations import Reading, Reply
from spae.errors import InputError
from spae.files import file_size

T = TypeVar("T")
MAX_BYTES = 1 << 30
TEMPERATURE = 0.2  # of every judgement: as LLaVA's own
_MARKED = re.compile(r"([*_]{1,3})(.*)\1")


@dataclass(frozen=True)
class Case:
    """One answer to be judged.

    Args:
        id: of its question.
        groups: what its score counts for, besides all: its category, its capabilities.
        text: what the judge reads.
    """

    id: str
    groups: tuple[str, ...]
    text: str


class Unreadable(ValueError):
    """A judgement without a score; the message says why, and is counted."""


def first_line(judgement: Answer) -> str:
    """Where the scores stand, without Markdown's marks of bold or italics around it."""
    line = judgement.text.strip().partition("\n")[0].strip()
    marked = _MARKED.fullmatch(line)
    return marked[2].strip() if marked else line


@dataclass(frozen=True)
class Judged(Generic[T]):
    """Id of a case -> run -> its score, of all that have one; and how many judgements have none, by reason."""

    scores: Mapping[str, Mapping[int, T]]
    failed: Counter[str]

    def means(self, ids: Iterable[str], value: Callable[[T], float]) -> list[float]:
        """Of each of these cases that was judged, the mean of `value` over its runs."""
        found = [self.scores[id].values() for id in ids if id in self.scores]
        return [fsum(map(value, of_case)) / len(of_case) for of_case in found]

    def run(self, number: int) -> "Judged[T]":
        """What one run has found."""
        of_run = {id: {number: runs[number]} for id, runs in self.scores.items() if number in runs}
        return Judged(of_run, Counter())


def questions(
    cases: Sequence[Case], system: str, examples: tuple[tuple[str, str], ...], runs: int
) -> list[list[Question]]:
    """Of each case what the judge is asked, in every run with another seed."""
    return [
        [
            Question(f"{case.id} run {run}", system, examples, case.text, TEMPERATURE, seed=run)
            for run in range(1, runs + 1)
        ]
        for case in cases
    ]


def judged(
    cases: Sequence[Case],
    asked: Sequence[Sequence[Question]],
    answers: AnswerFile,
    failures: Mapping[str, str],
    read: Callable[[Answer], T],
) -> Judged[T]:
    """The scores. A judgement that failed is in no mean, and counted.

    Args:
        asked: as `questions` gives them.
        failures: key of a question -> why it has no answer.
        read: a judgement -> its score; raises Unreadable.

    Raises:
        InputError: not one judgement has a score.
    """
    scores: dict[str, dict[int, T]] = {}
    failed: Counter[str] = Counter()
    for case, of_case in zip(cases, asked, strict=True):
        for run, question in enumerate(of_case, start=1):
            if question.key in failures:
                failed["no answer"] += 1
                continue
            try:
                score = read(answers[question.digest])
            except Unreadable as unreadable:
                failed[str(unreadable)] += 1
            else:
                scores.setdefault(case.id, {})[run] = score
    if not scores:
        reasons = [*failures.values(), *failed]
        raise InputError(f"none of {failed.total()} judgements has a score: {reasons[0]}")
    return Judged(scores, failed)


def by_id(reading: Reading[Reply], wanted: Sequence[str], what: str) -> dict[str, str]:
    """Texts of a file by their ids, all that are wanted; others may stand beside them.

    Raises:
        InputError: one is not there, or the file has broken entries.
    """
    if reading.faults:
        raise InputError(f"wanted {what}, whole: {reading.summary()}")
    found = {one.id: one.text for one in reading.entries}
    if missing := [id for id in wanted if id not in found]:
        raise InputError(
            f"wanted {what} for all {len(wanted)} questions, {len(missing)} have none, such as {missing[0]!r}"
        )
    return found


def read_object(path: Path) -> dict[str, Any]:
    """A file of one JSON object.

    Raises:
        InputError: it cannot be read, is too large, or is none.
    """
    if file_size(path) > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES:,} bytes")
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not whole JSON ({error}): copy it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: wanted one JSON object by the ids of questions")
    return value
