"""What a model says is where: tuples read from its answer, strictly, with a reason for each that is refused."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from icl_runner.detection.instructions import Instruction
from icl_runner.detection.locations import Size
from spae.polygons import Box, Polygon, area

# Reason codes of faults -> what they mean.
REASONS = {
    "text": "something other than tuples and what may separate them (white space, commas, semicolons, brackets)",
    "unclosed": "a tuple without an end, such as one that was cut off",
    "arity": "not as many entries as the format has",
    "class": "the first entry is no class of the set, or spelled otherwise",
    "number": "an entry that is no whole number as it is spelled (NaN, fractions, words)",
    "range": "a number that is out of its range, or a point that lies outside of the image",
    "inverted": "a box whose second corner is not right of and below the first",
    "flat": "an outline that encloses nothing",
}
# Behind an answer's key: the log-probabilities of its tokens, JSON of [[token, log-probability], ..].
LOG_PROBS = " log-probabilities"
_TUPLE = re.compile(r"\(([^()]*)\)")
_BETWEEN = re.compile(r"[\s,;\[\]]*")


@dataclass(frozen=True)
class Detection:
    """One thing that was found.

    Args:
        name: of the class set.
        box: in pixels.
        polygon: its outline; None where only a box was asked for.
        score: how sure the model is, the larger the surer; None where that is not known.
        span: from where to where in the answer it stands, to sum up the log-probabilities of its tokens.
    """

    name: str
    box: Box
    polygon: Polygon | None = None
    score: float | None = None
    span: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Fault:
    """A code of REASONS, and what the answer had there."""

    reason: str
    text: str


@dataclass(frozen=True)
class Answer:
    """What was read from an answer, in its order, and what was refused."""

    detections: tuple[Detection, ...]
    faults: tuple[Fault, ...]

    def counts(self) -> dict[str, int]:
        """How often each reason occurs; `read` is the number of tuples that were accepted."""
        return {"read": len(self.detections), **Counter(fault.reason for fault in self.faults)}


def parse_rate(counts: Iterable[Mapping[str, int]]) -> float | None:
    """The share of tuples that were accepted, of these and all faults, given `Answer.counts`; None where there is
    neither (a model that finds nothing says nothing)."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return total["read"] / sum(total.values()) if sum(total.values()) else None


def parse(text: str, instruction: Instruction, size: Size) -> Answer:
    """The tuples of an answer to `instruction` about an image of `size`.

    A tuple is accepted as a whole or refused with the first reason that holds; nothing is repaired. An answer without a
    tuple, such as an empty one or "[]", says that there is nothing.

    Raises:
        InputError: of caption, vqa and name, which are answered in words.
    """
    instruction.check_located()
    detections: list[Detection] = []
    faults: list[Fault] = []
    end = 0

    def between(stop: int) -> None:
        rest = text[end:stop]
        before, opened, cut_off = rest.partition("(")
        if not _BETWEEN.fullmatch(before):
            faults.append(Fault("text", before.strip()))
        if opened:
            faults.append(Fault("unclosed", (opened + cut_off).strip()))

    for found in _TUPLE.finditer(text):
        between(found.start())
        end = found.end()
        one = _tuple(found[1], instruction, size)
        if isinstance(one, str):
            faults.append(Fault(one, found[0]))
        else:
            name, box, polygon = one
            detections.append(Detection(name, box, polygon, span=found.span()))
    between(len(text))
    return Answer(tuple(detections), tuple(faults))


def scores(answer: str, log_probs: str | None, spans: Sequence[tuple[int, int]]) -> list[float] | None:
    """Of each part of an answer the sum of its tokens' log-probabilities; None where they are not known, or are of
    another text.

    A token that begins before a part and ends in it counts with it.
    """
    if log_probs is None:
        return None
    tokens = json.loads(log_probs)
    start = "".join(token for token, _ in tokens).find(answer)
    if start < 0:
        return None
    ends, at = [], -start
    for token, value in tokens:
        at += len(token)
        ends.append((at - len(token), at, value))
    return [sum(value for begin, end, value in ends if begin < stop and end > first) for first, stop in spans]


def _tuple(inside: str, instruction: Instruction, size: Size) -> tuple[str, Box, Polygon | None] | str:
    """Name, box and outline of a tuple; or the reason why it is none."""
    locations, limits = instruction.locations, instruction.limits
    entries = [entry.strip() for entry in inside.split(",")]
    if len(entries) != 1 + len(limits):
        return "arity"
    index = locations.read_class(entries[0])
    if index is None or not 0 <= index < len(instruction.classes):
        return "class"
    numbers = [number for entry in entries[1:] if (number := locations.read(entry)) is not None]
    if len(numbers) < len(limits):
        return "number"
    if not all(least <= number <= most for number, (least, most) in zip(numbers, limits, strict=True)):
        return "range"
    points = locations.decode(numbers, size)
    if not all(0 <= x <= size[0] and 0 <= y <= size[1] for x, y in points):
        return "range"
    outline = instruction.task == "segment"
    if outline and not area(points):
        return "flat"
    if not outline and not (points[0][0] < points[1][0] and points[0][1] < points[1][1]):
        return "inverted"
    x, y = zip(*points, strict=True)
    box = Box(min(x), min(y), max(x) - min(x), max(y) - min(y))
    return instruction.classes[index], box, tuple(points) if outline else None
