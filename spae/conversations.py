"""Conversations about images as LLaVA's files have them, with ViP-LLaVA's regions, and LLaVA-Bench's questions.

A file of conversations is a JSON list of objects (or one object a line): `id`, `image` (a path, absent for text alone)
and `conversations`, a list of `{"from": "human" | "gpt", "value": text}` with `<image>` where the image stands;
ViP-LLaVA's also `bboxes`, lists x1, y1, x2, y2 in pixels (its documentation's example says `bbox`), which the text
calls `<bbox>` or `<bbox0>`, `<bbox1>`, .., and perhaps `segmentations`, of each box null or lists x, y, x, y, .. .
A file of questions has an object a line: `question_id`, `image`, `text` and perhaps `category`; of answers
`question_id` and `text`; of contexts `image` and `caption` (a text, or some), what a judge reads in place of the image.

What is no such object is left out, and told of: every reader returns what it read with a list of faults.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from spae.connector_config import IMAGE
from spae.errors import InputError
from spae.files import file_size, write_file
from spae.polygons import Box, Polygon

MAX_BYTES = 1 << 31
_PLACEHOLDER = re.compile(r"<bbox(\d*)>")
# Reason codes of faults -> what was wanted.
REASONS = {
    "blank": "an object, not an empty line",
    "json": "a line of whole JSON in UTF-8",
    "object": "an object with the fields of this format, each of its type",
    "id": "an id, a text or a whole number, that no earlier entry has",
    "turns": "turns of human and gpt in alternation, human first, each with a text",
    "image": "<image> in the text if there is an image, and only then",
    "boxes": "boxes of four finite numbers x1, y1, x2, y2 with x1 < x2 and y1 < y2",
    "polygons": "for every box null or lists of three or more points x, y, x, y, ..",
    "placeholder": "<bbox> and <bboxN> only where there is such a box",
}


@dataclass(frozen=True)
class Turn:
    speaker: str  # human or gpt
    text: str


@dataclass(frozen=True)
class Conversation:
    """`image` is a path, None where only text is; `polygons` has an entry for each box, None where only the box is
    known, or is empty."""

    id: str
    image: str | None
    turns: tuple[Turn, ...]
    boxes: tuple[Box, ...] = ()
    polygons: tuple[tuple[Polygon, ...] | None, ...] = ()


@dataclass(frozen=True)
class Question:
    id: str
    image: str
    text: str
    category: str = ""


@dataclass(frozen=True)
class Reply:
    """An answer to a question, by its id; or what is to be seen in an image, by the image."""

    id: str
    text: str


@dataclass(frozen=True)
class Fault:
    """An entry that was left out: "line 3" or "entry 3" (counted from 1), and a code of REASONS."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: wanted {REASONS[self.reason]}"


T = TypeVar("T", Conversation, Question, Reply)


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What a file held, in its order, and what was left out of it."""

    entries: tuple[T, ...]
    faults: tuple[Fault, ...]

    def summary(self) -> str:
        """One line, such as "98 read, 2 left out (1 boxes, 1 json; first: line 7: wanted ..)"."""
        read = f"{len(self.entries)} read, {len(self.faults)} left out"
        if not self.faults:
            return read
        counts = Counter(fault.reason for fault in self.faults)
        kinds = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
        return f"{read} ({kinds}; first: {self.faults[0]})"


class _Wrong(Exception):
    """Carries a reason code."""


def read_conversations(path: str | Path) -> Reading[Conversation]:
    """The conversations of a file.

    Raises:
        InputError: the file cannot be read, is too large, or is a list that is not whole JSON.
    """
    return _read(Path(path), _conversation)


def read_questions(path: str | Path) -> Reading[Question]:
    """The questions of a file.

    Raises:
        InputError: as `read_conversations`.
    """
    return _read(Path(path), _question)


def read_answers(path: str | Path) -> Reading[Reply]:
    """The answers of a file, by the id of their question.

    Raises:
        InputError: as `read_conversations`.
    """
    return _read(Path(path), partial(_reply, key="question_id", text="text"))


def read_contexts(path: str | Path) -> Reading[Reply]:
    """What is to be seen in images, by the image.

    Raises:
        InputError: as `read_conversations`.
    """
    return _read(Path(path), partial(_reply, key="image", text="caption"))


def write_conversations(path: str | Path, conversations: Sequence[Conversation]) -> None:
    """Write a JSON list that `read_conversations` reads back without a fault.

    Raises:
        InputError: a conversation that would not be read back, or a file that cannot be written.
    """
    known: set[str] = set()
    entries = []
    for number, conversation in enumerate(conversations, start=1):
        entry = _entry(conversation)
        try:
            _conversation(entry, known)
        except _Wrong as wrong:
            raise InputError(f"cannot write {path}: {Fault(f'entry {number}', str(wrong))}") from None
        entries.append(entry)
    write_file(path, (json.dumps(entries, ensure_ascii=False, indent=1) + "\n").encode())


def _read(path: Path, parse: Callable[[Any, set[str]], T]) -> Reading[T]:
    entries: list[T] = []
    faults: list[Fault] = []
    known: set[str] = set()
    for place, value in _values(path):
        try:
            if isinstance(value, _Wrong):
                raise value
            if not _is_text(value):
                raise _Wrong("json")
            entries.append(parse(value, known))
        except _Wrong as wrong:
            faults.append(Fault(place, str(wrong)))
    return Reading(tuple(entries), tuple(faults))


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """Of every entry its place and its value, or what is wrong with it."""
    if file_size(path) > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES:,} bytes: split it")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if data.lstrip()[:1] == b"[":
        try:
            values = json.loads(data)
        except ValueError as error:
            raise InputError(f"{path} is not a whole JSON list ({error}): copy it again") from error
        yield from ((f"entry {number}", value) for number, value in enumerate(values, start=1))
        return
    for number, line in enumerate(data.rstrip().split(b"\n"), start=1):
        value: Any
        try:
            value = json.loads(line) if line.strip() else _Wrong("blank")
        except ValueError:
            value = _Wrong("json")
        yield f"line {number}", value


def _is_text(value: Any) -> bool:
    """Whether every text in it is one; JSON can spell halves of characters ("\\ud800"), which UTF-8 cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _conversation(value: Any, known: set[str]) -> Conversation:
    """Of its object; `known` are the ids of those before it, and gets its own."""
    if not isinstance(value, dict):
        raise _Wrong("object")
    image = value.get("image")
    if image is not None and not (isinstance(image, str) and image):
        raise _Wrong("object")
    turns = _turns(value.get("conversations"))
    text = " ".join(turn.text for turn in turns if turn.speaker == "human")
    if (image is not None) != (IMAGE in text):
        raise _Wrong("image")
    boxes = _boxes(value.get("bboxes", value.get("bbox")))
    polygons = _polygons(value.get("segmentations"), len(boxes))
    numbers = [int(number or 0) for turn in turns for number in _PLACEHOLDER.findall(turn.text)]
    if numbers and max(numbers) >= len(boxes):
        raise _Wrong("placeholder")
    return Conversation(_id(value.get("id"), known), image, turns, boxes, polygons)


def _question(value: Any, known: set[str]) -> Question:
    if not isinstance(value, dict):
        raise _Wrong("object")
    image, text, category = value.get("image"), value.get("text"), value.get("category", "")
    if not (
        isinstance(image, str) and isinstance(text, str) and image and text and isinstance(category, str)
    ):
        raise _Wrong("object")
    return Question(_id(value.get("question_id"), known), image, text, category)


def _reply(value: Any, known: set[str], *, key: str, text: str) -> Reply:
    if not isinstance(value, dict):
        raise _Wrong("object")
    said = value.get(text)
    lines: list[Any] = said if isinstance(said, list) and said else [said]
    if not all(isinstance(line, str) for line in lines):
        raise _Wrong("object")
    return Reply(_id(value.get(key), known), "\n".join(lines))


def _id(value: Any, known: set[str]) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "" or str(value) in known:
        raise _Wrong("id")
    known.add(str(value))
    return str(value)


def _turns(value: Any) -> tuple[Turn, ...]:
    if not isinstance(value, list) or not value:
        raise _Wrong("turns")
    turns = []
    for number, turn in enumerate(value):
        speaker = ("human", "gpt")[number % 2]
        if not isinstance(turn, dict) or turn.get("from") != speaker:
            raise _Wrong("turns")
        text = turn.get("value")
        if not isinstance(text, str) or not text.strip():
            raise _Wrong("turns")
        turns.append(Turn(speaker, text))
    return tuple(turns)


def _boxes(value: Any) -> tuple[Box, ...]:
    boxes = []
    for corners in [] if value is None else _list(value, "boxes"):
        x1, y1, x2, y2 = _finite(corners, "boxes") if len(_list(corners, "boxes")) == 4 else (0, 0, 0, 0)
        if not (x1 < x2 and y1 < y2):
            raise _Wrong("boxes")
        boxes.append(Box(x1, y1, x2 - x1, y2 - y1))
    return tuple(boxes)


def _polygons(value: Any, boxes: int) -> tuple[tuple[Polygon, ...] | None, ...]:
    if value is None:
        return ()
    found: list[tuple[Polygon, ...] | None] = []
    for parts in _list(value, "polygons"):
        if parts is None:
            found.append(None)
            continue
        polygons = []
        for flat in _list(parts, "polygons"):
            numbers = _finite(flat, "polygons")
            if len(numbers) < 6 or len(numbers) % 2:
                raise _Wrong("polygons")
            polygons.append(tuple(zip(numbers[::2], numbers[1::2], strict=True)))
        if not polygons:
            raise _Wrong("polygons")
        found.append(tuple(polygons))
    if len(found) != boxes:
        raise _Wrong("polygons")
    return tuple(found)


def _list(value: Any, reason: str) -> list[Any]:
    if not isinstance(value, list):
        raise _Wrong(reason)
    return value


def _finite(value: Any, reason: str) -> list[float]:
    numbers = _list(value, reason)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise _Wrong(reason)
    return numbers


def _entry(conversation: Conversation) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": conversation.id}
    if conversation.image is not None:
        entry["image"] = conversation.image
    entry["conversations"] = [{"from": turn.speaker, "value": turn.text} for turn in conversation.turns]
    if conversation.boxes:
        entry["bboxes"] = [list(box.corners) for box in conversation.boxes]
    if conversation.polygons:
        entry["segmentations"] = [
            None
            if parts is None
            else [[number for point in polygon for number in point] for polygon in parts]
            for parts in conversation.polygons
        ]
    return entry
