"""COCO's average precision of detections on scenes, and the figures that belong beside it.

The ceiling is what a perfect model reaches that can only write whole numbers; the random control is what one reaches
that sees nothing. AP ranks detections by their scores: without scores, false ones cost far more than they would
(perfect boxes with one false one for each reach .5 in place of 1), so the result says whether there were any.
"""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icl_runner.detection.detections import Answer, Detection, parse
from icl_runner.detection.instructions import Instruction, Layout, Located
from icl_runner.detection.locations import Size
from icl_runner.dice import Dice
from spae.errors import InputError
from spae.polygons import Box, Polygon, fill

MOST = 100  # detections of one scene that count, as COCO has it


@dataclass(frozen=True)
class Precision:
    """COCO's figures, each 0..1, over IoU .50 to .95, at .50 and at .75; None where no thing of the class set is in
    any scene.

    Args:
        ap, ap50, ap75: average precision, averaged over the classes.
        ar: average recall, of at most MOST detections a scene.
        scored: whether every detection had a score; if not, all counted as equally sure ("unscored AP").
        dropped: detections beyond MOST of their scene, which COCO leaves out.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ar: float | None
    scored: bool
    dropped: int


def average_precision(
    scenes: Sequence[Layout], found: Sequence[Sequence[Detection]], instruction: Instruction
) -> Precision:
    """Of the detections in each scene, in answer to `instruction`: by boxes, of segment by masks. Things whose name is
    not in its class set are not asked for, and a class of which there is nothing in any scene does not count, as in
    COCO.

    Raises:
        InputError: not one list of detections for each scene; a class that is not in the class set; some detections
            with a score and some without, or a score that is no number; the package pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise InputError("average precision needs the package pycocotools: pip install spae[icl]") from None
    scored = _check(scenes, found, instruction)
    masks = instruction.task == "segment"
    truth = [
        _annotation(number, scene, thing.name, thing.box, thing.polygons, instruction)
        for number, scene in enumerate(scenes)
        for thing in scene.objects
        if thing.name in instruction.classes
    ]
    if not truth:
        return Precision(None, None, None, None, scored, 0)
    results = [
        _annotation(number, scene, one.name, one.box, (one.polygon or (),), instruction)
        | {"score": 1.0 if one.score is None else one.score}
        for number, (scene, detections) in enumerate(zip(scenes, found, strict=True))
        for one in detections
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells its progress there
        evaluation = COCOeval(
            _coco(COCO, scenes, truth), _coco(COCO, scenes, results), "segm" if masks else "bbox"
        )
        # Things of every size together: COCO's small, medium and large would take three times as long again.
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [MOST]
        evaluation.evaluate()
        evaluation.accumulate()
    # Thresholds .50, .55, .. .95 x recalls 0, .01, .. 1 x classes, and thresholds x classes.
    precision, recall = evaluation.eval["precision"][..., 0, 0], evaluation.eval["recall"][..., 0, 0]
    ap, ap50, ap75, ar = (
        float(figures.mean()) for figures in (precision, precision[0], precision[5], recall)
    )
    dropped = sum(max(0, len(detections) - MOST) for detections in found)
    return Precision(ap, ap50, ap75, ar, scored, dropped)


def oracle(scenes: Sequence[Layout], instruction: Instruction) -> list[Answer]:
    """The right answers, written and read back: their average precision is the ceiling of these locations."""
    return [parse(instruction.answer(scene.objects, scene.size), instruction, scene.size) for scene in scenes]


def random_answers(scenes: Sequence[Layout], instruction: Instruction, seed: int) -> list[Answer]:
    """Of each scene a `random_answer`."""
    return [random_answer(scene, instruction, seed, number) for number, scene in enumerate(scenes)]


def random_answer(scene: Layout, instruction: Instruction, *seed: int | str) -> Answer:
    """As many tuples as there are things that were asked for, of random classes at random places: a model that knows
    the format and the count, and sees nothing."""
    dice = Dice("random answer", *seed)
    count = sum(thing.name in instruction.classes for thing in scene.objects)
    text = "\n".join(_random_tuple(instruction, dice, place) for place in range(count))
    return parse(text, instruction, scene.size)


def f1(scene: Layout, found: Sequence[Detection], instruction: Instruction) -> float:
    """Of one scene, 0..1: 2 x hits / (detections + things asked for). A hit is the detection of a thing's class that
    overlaps most with it of those that no other thing has, with an IoU of .5 at least: of boxes, of segment by pixels.

    Scores play no part, so models with and without compare. 1 where nothing is there and nothing found.
    """
    asked = [thing for thing in scene.objects if thing.name in instruction.classes]

    def overlap(thing: Located, one: Detection) -> float:
        if instruction.task == "segment":
            return _iou_of_masks(thing.polygons, one.polygon or (), scene.size)
        return _iou(thing.box, one.box)

    left = list(found)
    hits = 0
    for thing in asked:
        overlaps = [overlap(thing, one) if one.name == thing.name else 0.0 for one in left]
        best = max(range(len(left)), key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] >= 0.5:
            hits += 1
            del left[best]
    return 2 * hits / (len(found) + len(asked)) if found or asked else 1.0


def _iou(one: Box, other: Box) -> float:
    (x1, y1, x2, y2), (x3, y3, x4, y4) = one.corners, other.corners
    shared = max(0.0, min(x2, x4) - max(x1, x3)) * max(0.0, min(y2, y4) - max(y1, y3))
    return shared / (one.width * one.height + other.width * other.height - shared)


def _iou_of_masks(one: Sequence[Polygon], other: Polygon, size: Size) -> float:
    first, second = fill(one, *size), fill([other] if other else [], *size)
    return float((first & second).sum() / max(1, (first | second).sum()))


def _random_tuple(instruction: Instruction, dice: Dice, place: int) -> str:
    """Of a box between any two columns and any two rows; of an outline, of the ellipse in it."""
    locations = instruction.locations
    index = dice.whole(f"class {place}", 0, len(instruction.classes) - 1)
    x, y = (sorted(dice.choose(f"{axis} {place}", range(locations.bins + 1), 2)) for axis in "xy")
    corners: list[tuple[float, float]] = [(x[0], y[0]), (x[1], y[1])]
    if instruction.task == "segment":
        turns = [math.tau * step / instruction.points for step in range(instruction.points)]
        corners = [
            (
                (x[0] + x[1] + (x[1] - x[0]) * math.cos(turn)) / 2,
                (y[0] + y[1] + (y[1] - y[0]) * math.sin(turn)) / 2,
            )
            for turn in turns
        ]
    size = (locations.bins, locations.bins)
    numbers = [locations.spell(step) for step in locations.encode(corners, size)]
    return f"({', '.join([locations.spell_class(index), *numbers])})"


def _check(scenes: Sequence[Layout], found: Sequence[Sequence[Detection]], instruction: Instruction) -> bool:
    """Whether the detections have scores."""
    instruction.check_located()
    if len(scenes) != len(found):
        raise InputError(f"wanted a list of detections for each of {len(scenes)} scenes, got {len(found)}")
    every = [one for detections in found for one in detections]
    for one in every:
        if one.name not in instruction.classes:
            raise InputError(f"{one.name!r} is no class of this class set")
        if instruction.task == "segment" and one.polygon is None:
            raise InputError(f"wanted an outline of every detection, that of {one.name!r} has none")
    scores = [one.score for one in every if one.score is not None]
    if len(scores) not in (0, len(every)) or not all(map(math.isfinite, scores)):
        raise InputError(
            f"wanted scores that are numbers of all {len(every)} detections or of none, {len(scores)} have one"
        )
    return bool(every) and len(scores) == len(every)


def _annotation(
    number: int, scene: Layout, name: str, box: Box, polygons: Sequence[Polygon], instruction: Instruction
) -> dict[str, Any]:
    """Of a thing, or of a detection, as COCO has it."""
    annotation = {
        "image_id": number,
        "category_id": instruction.classes.index(name),
        "bbox": list(map(float, box)),
        "area": float(box.width * box.height),
        "iscrowd": 0,
    }
    if instruction.task == "segment":
        from pycocotools import mask

        # By pixels: COCO's own polygons have no holes.
        pixels = np.asfortranarray(fill(polygons, *scene.size).astype(np.uint8))
        annotation["segmentation"] = mask.encode(pixels)
        annotation["area"] = float(pixels.sum())
    return annotation


def _coco(kind: Any, scenes: Sequence[Layout], annotations: Sequence[dict[str, Any]]) -> Any:
    """pycocotools' index of annotations, ids from 1 (0 stands for no match)."""
    coco = kind()
    coco.dataset = {
        "images": [
            {"id": number, "width": s.size[0], "height": s.size[1]} for number, s in enumerate(scenes)
        ],
        "categories": [{"id": i} for i in sorted({annotation["category_id"] for annotation in annotations})],
        "annotations": [annotation | {"id": i} for i, annotation in enumerate(annotations, start=1)],
    }
    coco.createIndex()
    return coco
