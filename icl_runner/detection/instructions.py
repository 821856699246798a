"""Instructions in VisionLLM's manner (arXiv 2305.11175, section 3.1): task, class set, range and format, in words.

The format that an instruction names is also the skeleton of its answer: texts, and choices between them. A model that
can be held to a choice fills one after the other; `icl_runner.detection.detections` reads what any other model writes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from icl_runner.constraints import Choices
from icl_runner.detection.locations import Locations, Points, Size
from spae.connector_config import IMAGE
from spae.errors import InputError
from spae.polygons import Box, Polygon, area, with_corners

MAX_CLASSES = 512  # VisionLLM's <c0> .. <c511>
POINTS = (8, 24)  # least and most corners of an outline
# Of each task the ways to put it; filled in by `Instruction.text`.
WORDINGS = {
    "detect": (
        "The image is {image}. Find every object in it of the class set {classes}. Answer with a list of tuples "
        "{format}, one for each object. {meaning} Write nothing but the tuples.",
        "Here is an image: {image}. Identify the objects that belong to {classes} and draw a box around each: write "
        "one tuple {format} for every object and no other text. {meaning}",
        "{image}\nFor each thing in this image whose class is in {classes}, write {format}. {meaning} Nothing else.",
    ),
    "ground": (
        "The image is {image}. Find what this describes: {classes}. Answer with one tuple {format}. {meaning} Write "
        "nothing but the tuple.",
        "Here is an image: {image}. Where is {classes}? Write its box as {format} and no other text. {meaning}",
        "{image}\nDraw a box around {classes}: write {format}. {meaning} Only this tuple.",
    ),
    "segment": (
        "The image is {image}. Find every object in it of the class set {classes}. Answer with a list of tuples "
        "{format}, one for each object. {meaning} Write nothing but the tuples.",
        "Here is an image: {image}. Outline the objects that belong to {classes}: write one tuple {format} for every "
        "object and no other text. {meaning}",
        "{image}\nFor each thing in this image whose class is in {classes}, write {format}. {meaning} Nothing else.",
    ),
    "name": (
        "The image is {image}. Look at its part {place}. {meaning} Which of {classes} is there? Write only the name.",
        "Here is an image: {image}. Which of {classes} is in the box {place}? {meaning} Answer with its name.",
        "{image}\nWhat is at {place} in this image? {meaning} Answer with one of {classes}.",
    ),
    "caption": (
        "The image is {image}. Write a caption for it.",
        "Here is an image: {image}. Describe it in one sentence.",
        "{image}\nWhat does this image show? Answer in one sentence.",
    ),
    "vqa": (
        "The image is {image}. Answer this question about it in a word or two: {question}",
        "Here is an image: {image}. Question: {question} Short answer:",
        "{image}\n{question} Answer in a word or two.",
    ),
}
TASKS = tuple(WORDINGS)
_LOCATED = ("detect", "ground", "segment")  # answered in tuples
_CLASSED = (*_LOCATED, "name")


class Located(Protocol):
    """What has a name and a place: the objects of a scene do."""

    @property
    def name(self) -> str: ...

    @property
    def box(self) -> Box: ...

    @property
    def polygons(self) -> tuple[Polygon, ...]: ...


class Layout(Protocol):
    """What is known of an image: its size, and what lies where. A scene is one."""

    @property
    def size(self) -> Size: ...

    @property
    def objects(self) -> Sequence[Located]: ...


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One question to a model.

    Args:
        task: one of TASKS.
        classes: the class set of detect, segment and name; of ground, one description.
        question: of vqa.
        place: of name, the numbers of a box that something else proposes, as `locations.encode` gives them.
        locations: how places are counted and spelled.
        points: corners of an outline (segment).
        wording: which of the task's ways to put it.

    Raises:
        InputError: an unknown task; a class set that is empty, too large (ask in several), of no single lines, or
            holds a name twice; what another task needs; points or wording out of range.
    """

    task: str
    classes: tuple[str, ...] = ()
    question: str = ""
    place: tuple[int, ...] = ()
    locations: Locations = field(default_factory=Locations)
    points: int = 8
    wording: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.task not in TASKS:
            raise InputError(f"unknown task {self.task!r}: wanted one of {', '.join(TASKS)}")
        if not 0 <= self.wording < len(WORDINGS[self.task]):
            raise InputError(
                f"{self.task} has wordings 0 to {len(WORDINGS[self.task]) - 1}, got {self.wording}"
            )
        if (self.task == "vqa") != bool(self.question.strip()):
            raise InputError(
                f"wanted a question for vqa, and for no other task, got {self.question!r} for {self.task}"
            )
        if (self.task in _CLASSED) != bool(self.classes):
            raise InputError(
                f"wanted a class set for {', '.join(_CLASSED)}, and for no other task, got {len(self.classes)} classes "
                f"for {self.task}"
            )
        wanted = self.limits if self.task == "name" else []
        if len(self.place) != len(wanted) or not all(
            least <= number <= most for number, (least, most) in zip(self.place, wanted, strict=True)
        ):
            raise InputError(
                f"wanted a box as locations.encode gives it for name, and for no other task, got {self.place} for "
                f"{self.task}"
            )
        self._check_classes()
        if self.task == "segment" and not POINTS[0] <= self.points <= POINTS[1]:
            raise InputError(f"wanted outlines of {POINTS[0]} to {POINTS[1]} points, got {self.points}")

    def _check_classes(self) -> None:
        if self.task == "ground" and len(self.classes) > 1:
            raise InputError(
                f"grounding is of one description, got {len(self.classes)}: ask for each, or detect"
            )
        if len(self.classes) > MAX_CLASSES:
            raise InputError(
                f"wanted at most {MAX_CLASSES} classes, got {len(self.classes)}: ask in several sets"
            )
        for name in self.classes:
            if not name.strip() or "\n" in name:
                raise InputError(f"wanted names of classes on one line, got {name!r}")
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise InputError(f"wanted different classes, {twice!r} is there twice")

    @property
    def corners(self) -> int:
        """How many points a tuple holds: two of a box, or those of an outline."""
        return self.points if self.task == "segment" else 2

    @property
    def format(self) -> str:
        """Such as "(c, x1, y1, x2, y2)"."""
        middle = ["cx", "cy"] if self.locations.offsets else []
        return f"({', '.join(['c', *middle, *(f'{a}{n + 1}' for n in range(self.corners) for a in 'xy')])})"

    @property
    def limits(self) -> list[tuple[int, int]]:
        """Least and most of each number behind the class."""
        return self.locations.limits(self.corners)

    def check_located(self) -> None:
        """That the task is answered in tuples.

        Raises:
            InputError: it is answered in words.
        """
        if self.task not in _LOCATED:
            raise InputError(f"{self.task} is answered in words, not in tuples")

    def text(self, image: str = IMAGE) -> str:
        """The instruction; `image` is what stands for the image: the mark, or its words."""
        return WORDINGS[self.task][self.wording].format(
            image=image,
            classes=self._class_set(),
            question=self.question.strip(),
            format=self.format,
            place=f"({', '.join(map(self.locations.spell, self.place))})",
            meaning=self._meaning(),
        )

    def points_of(self, thing: Located) -> Points:
        """What is written of a thing: two corners of its box, or of the largest of its outlines as many as wanted."""
        if self.task != "segment":
            x1, y1, x2, y2 = thing.box.corners
            return (x1, y1), (x2, y2)
        return with_corners(max(thing.polygons, key=area), self.points)

    def answer(self, things: Sequence[Located], size: Size) -> str:
        """The right answer about things in an image of `size`, one tuple a line: what an oracle says. Things whose name
        is not in the class set are not asked for.

        Raises:
            InputError: of caption, vqa and name, which have no such answer; a thing outside of the image.
        """
        self.check_located()
        lines = []
        for thing in things:
            if thing.name in self.classes:
                numbers = self.locations.encode(self.points_of(thing), size)
                lines.append(self._tuple(self.classes.index(thing.name), numbers))
        return "\n".join(lines)

    def skeleton(self, count: int) -> list[str | Choices]:
        """The texts of an answer of `count` tuples, and between them what there is to choose.

        Raises:
            InputError: no tuple; of caption, vqa and name, which have no such answer.
        """
        self.check_located()
        if count < 1:
            raise InputError(f"wanted at least 1 tuple, got {count}")
        classes = Choices(tuple(map(self.locations.spell_class, range(len(self.classes)))))
        numbers = {
            (least, most): Choices(tuple(map(self.locations.spell, range(least, most + 1))))
            for least, most in set(self.limits)
        }
        parts: list[str | Choices] = []
        for place in range(count):
            parts += ["\n(" if place else "(", classes]
            for limits in self.limits:
                parts += [", ", numbers[limits]]
            parts.append(")")
        return parts

    def pattern(self) -> str:
        """A regular expression of any number of tuples, a line each, for endpoints that can be held to one. It knows
        how many digits a number has, not its range."""
        number = rf"{'-?' if self.locations.offsets else ''}\d{{1,{len(str(self.locations.bins))}}}"
        index = "(?:" + "|".join(map(str, range(len(self.classes)))) + ")"
        if self.locations.tokens:
            number, index = f"<p{number}>", f"<c{index}>"
        one = rf"\({index}(?:, {number}){{{len(self.limits)}}}\)"
        return rf"(?:{one}(?:\n{one})*)?"

    def _tuple(self, index: int, numbers: Sequence[int]) -> str:
        return f"({', '.join([self.locations.spell_class(index), *map(self.locations.spell, numbers)])})"

    def _class_set(self) -> str:
        names = [json.dumps(name, ensure_ascii=False) for name in self.classes]
        if self.task == "name":
            return ", ".join(names)
        return "{" + ", ".join(f"{n}: {self.locations.spell_class(i)}" for i, n in enumerate(names)) + "}"

    def _meaning(self) -> str:
        """What c, x and y are."""
        spell, bins = self.locations.spell, self.locations.bins
        edges = (
            f"from {spell(0)} at the left edge of the image to {spell(bins)} at the right edge, and from {spell(0)} at "
            f"the upper edge to {spell(bins)} at the lower edge"
        )
        if self.task == "segment":
            points = f"x1, y1 to x{self.points}, y{self.points} are {self.points} points along its outline"
        else:
            points = "x1, y1 is its upper left corner and x2, y2 its lower right corner"
        named = f"These numbers are {self.format[4:-1]}:" if self.task == "name" else "c is the class,"
        if not self.locations.offsets:
            return f"{named} {points}, {edges}."
        return f"{named} cx, cy is the middle, {edges}; {points}, counted from that middle, left and up below zero."


def fill(skeleton: Sequence[str | Choices], chosen: Sequence[str]) -> str:
    """The text of a skeleton with what was chosen.

    Raises:
        InputError: not one text for each choice, or one that is not among its texts.
    """
    choices = [part for part in skeleton if isinstance(part, Choices)]
    if len(chosen) != len(choices):
        raise InputError(
            f"wanted {len(choices)} texts, one for each choice of the skeleton, got {len(chosen)}"
        )
    for text, choice in zip(chosen, choices, strict=True):
        if text not in choice.texts:
            raise InputError(
                f"{text!r} is none of the {len(choice.texts)} texts of this place, such as {choice.texts[0]!r}"
            )
    left = iter(chosen)
    return "".join(part if isinstance(part, str) else next(left) for part in skeleton)
