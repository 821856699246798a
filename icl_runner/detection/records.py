"""What a log says of an image's things and of what was found in it, and the same read again: plain JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icl_runner.detection.detections import Detection
from icl_runner.detection.instructions import Instruction, Located
from icl_runner.detection.locations import Locations, Size
from spae.polygons import Box, Polygon, rectangle


@dataclass(frozen=True)
class Thing:
    """A thing with its place (`instructions.Located`)."""

    name: str
    box: Box
    polygons: tuple[Polygon, ...]


@dataclass(frozen=True)
class Recorded:
    """An image's size, and what lies where (`instructions.Layout`)."""

    size: Size
    objects: tuple[Thing, ...]


def of_layout(size: Size, things: Sequence[Located], outlines: bool) -> dict[str, Any]:
    """`outlines`: of things, too; else their boxes alone, which are much shorter."""
    recorded = [
        {"name": one.name, "box": list(one.box)} | ({"polygons": one.polygons} if outlines else {})
        for one in things
    ]
    return {"size": list(size), "things": recorded}


def layout(record: Mapping[str, Any]) -> Recorded:
    """Things whose outlines were left out have those of their boxes."""
    things = []
    for one in record["things"]:
        box = Box(*one["box"])
        polygons = tuple(map(_polygon, one["polygons"])) if "polygons" in one else (rectangle(box),)
        things.append(Thing(one["name"], box, polygons))
    width, height = record["size"]
    return Recorded((width, height), tuple(things))


def of_detection(found: Detection) -> dict[str, Any]:
    """Without its place in the answer."""
    return {"name": found.name, "box": list(found.box), "polygon": found.polygon, "score": found.score}


def detection(record: Mapping[str, Any]) -> Detection:
    polygon = record["polygon"] and _polygon(record["polygon"])
    return Detection(record["name"], Box(*record["box"]), polygon, record["score"])


def of_instruction(instruction: Instruction) -> dict[str, Any]:
    """Of one that is answered in tuples."""
    where = instruction.locations
    return {
        "task": instruction.task,
        "classes": list(instruction.classes),
        "points": instruction.points,
        "wording": instruction.wording,
        "locations": {"bins": where.bins, "offsets": where.offsets, "tokens": where.tokens},
    }


def instruction(record: Mapping[str, Any]) -> Instruction:
    return Instruction(**{**record, "locations": Locations(**record["locations"])})


def _polygon(corners: Any) -> Polygon:
    return tuple((x, y) for x, y in corners)
