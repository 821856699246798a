"""ViP-Bench's score (arXiv 2312.00784, section 4): each answer from 0 to 1 against what is right.

The right answer may hold <AND> between parts that are all needed and <OR> between parts of which one will do. The
score of a capability is the mean over the questions that need it, times 100; runs of the judge are averaged.
"""

import re
from collections.abc import Sequence
from math import fsum
from pathlib import Path

from icl_runner.answer_file import Answer
from icl_runner.figures import Figure, Measure, interval
from icl_runner.judge.bench import Bench
from icl_runner.judge.cases import Case, Judged, Unreadable, first_line, read_object
from spae.errors import InputError

SYSTEM = (
    "Compare an answer about a region of an image with what is right, and say how much of it the answer gets right: "
    "a number from 0 (nothing) to 1 (all) in steps of 0.1. Where the right answer holds <AND>, all parts around it "
    "are needed, and each counts its share; where it holds <OR>, one of the parts is enough. Other words for the "
    "same thing are right too. The first line of what you write holds that number and nothing else."
)
EXAMPLES = tuple(
    (f"Question: {question}\nRight: {right}\nAnswer: {answer}", score)
    for question, right, answer, score in (
        (
            "What is the animal within the red rectangle?",
            "goose <OR> grey goose",
            "It is a goose that looks up.",
            "1.0",
        ),
        (
            "Which fruits lie in the bowl within the blue ellipse?",
            "pear <AND> plum",
            "Two pears and a lemon.",
            "0.5",
        ),
        ("What does the sign pointed to by the lime arrow say?", "Mind the step", "Mind the gap", "0.4"),
        (
            "How much do the two cups with the orange scribble cost together?",
            "7 <OR> seven euros",
            "9 euros",
            "0.0",
        ),
    )
)
SCORE = Measure("vip", "score", 100, 1)


def score(judgement: Answer) -> float:
    """The first line: 0, 0.1, .. or 1, perhaps in Markdown's bold.

    Raises:
        Unreadable: anything else stands there.
    """
    line = first_line(judgement)
    if not re.fullmatch(r"\d*\.?\d+", line):
        raise Unreadable("no score in the first line")
    tenths = 10 * float(line)
    if tenths > 10 or abs(tenths - round(tenths)) > 1e-6:
        raise Unreadable("a score that is none of 0, 0.1, .. 1")
    return round(tenths) / 10


def cases(questions: Path, answers: Path) -> list[Case]:
    """What is to be judged: a case for every question.

    Args:
        questions: ViP-Bench's, one JSON object: id -> `question`, `answer`, `capability` (a list).
        answers: one JSON object: id -> text.

    Raises:
        InputError: a file cannot be read, or is another; a question without an answer.
    """
    asked, given = read_object(questions), read_object(answers)
    found = []
    for id, one in asked.items():
        fields = one if isinstance(one, dict) else {}
        question, right, needs = fields.get("question"), fields.get("answer"), fields.get("capability")
        named = [name.lower() for name in needs if isinstance(name, str)] if isinstance(needs, list) else []
        if not (isinstance(question, str) and isinstance(right, str | int | float) and named):
            raise InputError(
                f"{questions}: wanted question (a text), answer and capability (a list of texts) of {id!r}"
            )
        if not isinstance(given.get(id), str):
            raise InputError(f"{answers}: wanted an answer, a text, to every question; {id!r} has none")
        found.append(
            Case(
                id, tuple(dict.fromkeys(named)), f"Question: {question}\nRight: {right}\nAnswer: {given[id]}"
            )
        )
    if not found:
        raise InputError(f"{questions}: wanted at least one question, got none")
    return found


def mean_score(found: Judged[float], ids: Sequence[str]) -> Figure | None:
    """Over those of the questions that were judged, each with the mean of its runs; None if none of them was."""
    means = found.means(ids, float)
    return Figure(SCORE, fsum(means) / len(means), *interval(means), len(means)) if means else None


BENCH = Bench(
    "ViP-Bench: score, %",
    SYSTEM,
    EXAMPLES,
    score,
    mean_score,
    order=("rec", "ocr", "know", "math", "rel", "lang"),
)
