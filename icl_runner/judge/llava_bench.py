"""LLaVA-Bench's relative score (arXiv 2304.08485, section 5): a candidate's answers against a reference's.

The judge reads context, question and both answers, and gives both a score from 1 to 10. The relative score is
100 mean(candidate) / mean(reference), a ratio of means over the questions. The original counts a judgement that
cannot be read as -1 for both, which makes 100 of a category that failed altogether; here it is in no mean.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from icl_runner.answer_file import Answer
from icl_runner.figures import Figure, Measure, ratio_of_means
from icl_runner.judge.bench import Bench
from icl_runner.judge.cases import Case, Judged, Unreadable, by_id, first_line
from spae.conversations import read_answers, read_contexts, read_questions
from spae.errors import InputError

SYSTEM = (
    "Two assistants have answered the same question about an image. You cannot see the image: the context says what is "
    "in it. Judge how helpful, fitting, correct and detailed each answer is. In which order the answers come must make "
    "no difference. The first line of what you write holds nothing but two numbers from 1 to 10, higher for the better "
    "answer: that of assistant 1, a space, that of assistant 2. From the second line on give your reasons."
)
RELATIVE = Measure("relative", "relative score", 100, 1)
_CANDIDATE, _REFERENCE = attrgetter("candidate"), attrgetter("reference")
_SCORES = re.compile(r"(\d{1,2}(?:\.\d+)?)(?:\s*,\s*|\s+)(\d{1,2}(?:\.\d+)?)")


@dataclass(frozen=True)
class Pair:
    """Two scores from 1 to 10."""

    reference: float
    candidate: float


def two_scores(judgement: Answer) -> Pair:
    """The first line: two numbers from 1 to 10 with white space or a comma between, perhaps in Markdown's bold; the
    reference's comes first.

    Raises:
        Unreadable: anything else stands there.
    """
    found = _SCORES.fullmatch(first_line(judgement))
    if found is None:
        raise Unreadable("no two scores in the first line")
    pair = Pair(float(found[1]), float(found[2]))
    if not (1 <= pair.reference <= 10 and 1 <= pair.candidate <= 10):
        raise Unreadable("a score outside of 1 to 10")
    return pair


def cases(questions: Path, contexts: Path, references: Path, answers: Path) -> list[Case]:
    """What is to be judged: a case for every question.

    Raises:
        InputError: a file cannot be read or has broken entries; a question lacks its answer, reference or context.
    """
    asked = read_questions(questions)
    if asked.faults or not asked.entries:
        raise InputError(f"{questions}: wanted questions, {asked.summary()}")
    ids = [one.id for one in asked.entries]
    told = by_id(read_contexts(contexts), [one.image for one in asked.entries], f"contexts in {contexts}")
    wanted = by_id(read_answers(references), ids, f"reference answers in {references}")
    given = by_id(read_answers(answers), ids, f"answers in {answers}")
    return [
        Case(
            one.id,
            (one.category,) if one.category else (),
            f"Context:\n{told[one.image]}\n\nQuestion:\n{one.text}\n\nAssistant 1:\n{wanted[one.id]}\n\n"
            f"Assistant 2:\n{given[one.id]}",
        )
        for one in asked.entries
    ]


def relative(found: Judged[Pair], ids: Sequence[str]) -> Figure | None:
    """Over those of the questions that were judged, each with the means of its runs; None if none of them was."""
    candidate, reference = found.means(ids, _CANDIDATE), found.means(ids, _REFERENCE)
    return Figure(RELATIVE, *ratio_of_means(candidate, reference), len(candidate)) if candidate else None


BENCH = Bench(
    "LLaVA-Bench: relative score, %",
    SYSTEM,
    (),
    two_scores,
    relative,
    (("mean of the answers", _CANDIDATE), ("mean of the reference", _REFERENCE)),
)
