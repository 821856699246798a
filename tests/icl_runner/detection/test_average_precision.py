"""Average precision: the oracle reaches the ceiling and no more, a random model next to nothing."""

from dataclasses import replace

import numpy as np
import pytest

from icl_runner.data.scenes import Composition, Scene, SceneObject, compose
from icl_runner.data.sprites import Sprite, SpriteSet
from icl_runner.detection.average_precision import average_precision, f1, oracle, random_answers
from icl_runner.detection.detections import Detection
from icl_runner.detection.instructions import Instruction
from icl_runner.detection.locations import Locations
from spae.errors import InputError
from spae.polygons import Box, rectangle

NAMES = ("disc", "bar", "ell")


def _picture(name: str) -> np.ndarray:
    y, x = np.mgrid[-20:20, -20:20] + 0.5
    inside = {"disc": np.hypot(x, y) < 19, "bar": abs(y) < 6, "ell": (x < -8) | (y > 8)}[name]
    return np.dstack([*[np.zeros((40, 40))] * 3, inside * 255]).astype(np.uint8)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    toys = SpriteSet("toys", [Sprite(n, n, "toy", f"a {n}") for n in NAMES], _picture, str)
    return [compose(toys, 0, number, Composition(most=3)) for number in range(20)]


def _boxes(*names_and_boxes: tuple[str, tuple]) -> Scene:
    things = [SceneObject(n, n, "", n, Box(*b), (rectangle(Box(*b)),)) for n, b in names_and_boxes]
    return Scene("s", np.zeros((100, 100, 3), np.uint8), tuple(things), "")


def test_ceiling_and_floor(scenes):
    measured = {}
    for task in ("detect", "segment"):
        for bins in (64, 1000):
            instruction = Instruction(task=task, classes=NAMES, locations=Locations(bins=bins), points=24)
            right = oracle(scenes, instruction)
            assert all(answer.counts().keys() == {"read"} for answer in right)
            found = average_precision(scenes, [answer.detections for answer in right], instruction)
            assert not found.scored
            measured[task, bins] = found.ap
            by_chance = random_answers(scenes, instruction, 0)
            assert average_precision(scenes, [a.detections for a in by_chance], instruction).ap < 0.05
    assert measured["detect", 64] < measured["detect", 1000]
    assert measured["detect", 1000] > 0.98
    assert measured["segment", 1000] > 0.6
    again = random_answers(scenes, instruction, 0)
    assert again == by_chance
    assert again != random_answers(scenes, instruction, 1)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_a_hit_is_of_its_class(task):
    scene = _boxes(("cat", (0, 0, 10, 10)))
    instruction = Instruction(task=task, classes=("cat", "dog"))
    there = Box(0, 0, 10, 10)
    right, wrong = (Detection(name, there, rectangle(there)) for name in ("cat", "dog"))
    assert f1(scene, [right], instruction) == 1
    assert f1(scene, [wrong], instruction) == 0


def test_by_hand():
    """One class, IoU of exactly .6 for one of two things: precision 1 up to recall 1 at .50, .55 and .60, then up to
    recall 1/2, where COCO samples 51 of its 101 recalls."""
    scene = _boxes(("cat", (0, 0, 10, 10)), ("cat", (50, 50, 10, 10)))
    found = [Detection("cat", Box(0, 0, 10, 10), score=0.9), Detection("cat", Box(50, 50, 10, 6), score=0.8)]
    instruction = Instruction(task="detect", classes=("cat", "dog"))
    measured = average_precision([scene], [found], instruction)
    assert measured.scored
    assert measured.ap50 == pytest.approx(1)
    assert measured.ap75 == pytest.approx(51 / 101)
    assert measured.ap == pytest.approx((3 + 7 * 51 / 101) / 10)
    assert measured.ar == pytest.approx((3 + 7 / 2) / 10)


def test_false_ones_cost_by_their_place():
    """Perfect boxes and a false one for each: ordered by scores they cost nothing; without scores, half."""
    scenes = [_boxes(("cat", (10, 10, 30, 30))) for _ in range(20)]
    right, wrong = Detection("cat", Box(10, 10, 30, 30)), Detection("cat", Box(60, 60, 30, 30))
    instruction = Instruction(task="detect", classes=("cat",))
    unscored = average_precision(scenes, [[wrong, right]] * 20, instruction)
    assert unscored.ap == pytest.approx(0.5, abs=0.05)
    scored = [replace(wrong, score=0.1), replace(right, score=0.9)]
    assert average_precision(scenes, [scored] * 20, instruction).ap == pytest.approx(1)


def test_nothing_asked_for_nothing_found(scenes):
    cats = Instruction(task="detect", classes=("cat",))
    assert average_precision(scenes, [[]] * 20, cats).ap is None
    assert average_precision(scenes, [[]] * 20, Instruction(task="detect", classes=NAMES)).ap == 0
    bars = Instruction(task="detect", classes=("bar",))
    answers = oracle(scenes, bars)
    assert {one.name for answer in answers for one in answer.detections} == {"bar"}
    assert average_precision(scenes, [answer.detections for answer in answers], bars).ap > 0.95
    many = [Detection("bar", Box(0, 0, 9, 9))] * 103
    assert average_precision(scenes[:1], [many], bars).dropped == 3


def test_what_cannot_be_measured(scenes):
    bars = Instruction(task="detect", classes=("bar",))
    one = Detection("bar", Box(0, 0, 9, 9))
    with pytest.raises(InputError, match="each of 20 scenes, got 1"):
        average_precision(scenes, [[one]], bars)
    for found, message in (
        ([replace(one, name="cat")], "no class"),
        ([one, replace(one, score=0.5)], "1 have one"),
        ([replace(one, score=float("nan"))], "scores that are numbers"),
    ):
        with pytest.raises(InputError, match=message):
            average_precision(scenes[:1], [found], bars)
    with pytest.raises(InputError, match="outline"):
        average_precision(scenes[:1], [[one]], Instruction(task="segment", classes=("bar",)))
    with pytest.raises(InputError, match="in words"):
        average_precision(scenes[:1], [[]], Instruction(task="caption"))
