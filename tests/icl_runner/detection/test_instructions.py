"""Instructions and what is read from their answers: there and back within half a bin; a reason for every refusal."""

import re
from dataclasses import replace

import numpy as np
import pytest

from icl_runner.constraints import Choices
from icl_runner.data.scenes import SceneObject
from icl_runner.detection.detections import REASONS, parse, parse_rate
from icl_runner.detection.instructions import TASKS, WORDINGS, Instruction, fill
from icl_runner.detection.locations import Locations
from spae.errors import InputError
from spae.polygons import Box, rectangle

SIZE = (640, 480)
CLASSES = ("cat", 'a "big" dog', "black cat")
DETECT = Instruction(task="detect", classes=CLASSES)
WAYS = [
    Locations(bins=bins, offsets=o, tokens=t)
    for bins in (128, 1000)
    for o in (False, True)
    for t in (False, True)
]


def _thing(name: str, x1: float, y1: float, x2: float, y2: float) -> SceneObject:
    box = Box(x1, y1, x2 - x1, y2 - y1)
    return SceneObject(name, name, "thing", f"a {name}", box, (rectangle(box),))


@pytest.mark.parametrize("locations", WAYS, ids=str)
def test_boxes_and_outlines_come_back(locations):
    rng = np.random.default_rng(0)
    for task, most in (("detect", 2), ("segment", 12)):
        instruction = Instruction(task=task, classes=CLASSES, locations=locations, points=12)
        things = []
        for _ in range(150):
            x1, y1 = rng.uniform(0, 630), rng.uniform(0, 470)
            x2, y2 = rng.uniform(x1 + 640 / locations.bins, 640), rng.uniform(y1 + 480 / locations.bins, 480)
            things.append(_thing(CLASSES[rng.integers(3)], x1, y1, min(x2, 640), min(y2, 480)))
        things = [thing for thing in things if thing.box.width * locations.bins >= 640]
        things = [thing for thing in things if thing.box.height * locations.bins >= 480]
        text = instruction.answer(things, SIZE)
        assert re.fullmatch(instruction.pattern(), text)
        answer = parse(text, instruction, SIZE)
        assert answer.counts() == {"read": len(things)}
        half = (320 / locations.bins + 1e-9, 240 / locations.bins + 1e-9)
        for thing, found in zip(things, answer.detections, strict=True):
            assert found.name == thing.name
            given = np.array(instruction.points_of(thing))
            got = found.polygon if task == "segment" else (found.box.corners[:2], found.box.corners[2:])
            assert len(got) == most
            assert (abs(np.array(got) - given) <= half).all()
            assert text[slice(*found.span)].startswith("(")


def test_a_box_narrower_than_a_bin_is_a_bin():
    locations = Locations(bins=10)
    assert locations.encode(((33, 0.5), (34, 479.5)), (100, 480)) == [3, 0, 4, 10]
    assert locations.encode(((99.9, 0), (100, 480)), (100, 480)) == [9, 0, 10, 10]
    with pytest.raises(InputError, match="outside of the image"):
        locations.encode(((-1, 0), (5, 5)), (100, 480))
    for bins in (1, 10_000):
        with pytest.raises(InputError, match="bins"):
            Locations(bins=bins)


def test_how_it_reads():
    text = DETECT.text("dog park grass")
    assert "dog park grass" in text
    assert '{"cat": 0, "a \\"big\\" dog": 1, "black cat": 2}' in text
    assert "(c, x1, y1, x2, y2)" in text
    assert "1000 at the right edge" in text
    tokens = Locations(bins=512, offsets=True, tokens=True)
    outline = Instruction(task="segment", classes=("cat",), locations=tokens, points=8)
    assert outline.format.startswith("(c, cx, cy, x1, y1, ")
    assert outline.format.endswith(", x8, y8)")
    assert "<p512> at the right edge" in outline.text()
    assert outline.answer([_thing("cat", 64, 48, 320, 240)], SIZE).startswith(
        "(<c0>, <p153>, <p153>, <p-102>"
    )
    assert Instruction(task="vqa", question="What is {this}?").text() == (
        "The image is <image>. Answer this question about it in a word or two: What is {this}?"
    )
    named = Instruction(task="name", classes=("cat", "dog"), place=(0, 0, 500, 1000))
    assert (
        "(0, 0, 500, 1000). These numbers are x1, y1, x2, y2: x1, y1 is its upper left corner" in named.text()
    )
    for task in TASKS:
        given = {"classes": ("cat",)} if task in ("detect", "ground", "segment", "name") else {}
        given |= {"question": "Why?"} if task == "vqa" else {"place": (1, 2, 3, 4)} if task == "name" else {}
        texts = {Instruction(task=task, wording=n, **given).text() for n in range(len(WORDINGS[task]))}
        assert len(texts) == 3
        assert all("<image>" in text and "{" not in text.replace('{"cat": 0}', "") for text in texts)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(0, 1, 2, 3)", "arity"),
        ("(0, 1, 2, 3, 4, 5)", "arity"),
        ("()", "arity"),
        ("(3, 1, 2, 3, 4)", "class"),
        ("(-1, 1, 2, 3, 4)", "class"),
        ("(cat, 1, 2, 3, 4)", "class"),
        ("(<c0>, 1, 2, 3, 4)", "class"),
        ("(0, 1, NaN, 3, 4)", "number"),
        ("(0, 1, 2.5, 3, 4)", "number"),
        ("(0, 1, , 3, 4)", "number"),
        ("(0, 1, ٣, 3, 4)", "number"),
        ("(0, 1, 2, 1001, 4)", "range"),
        ("(0, -1, 2, 3, 4)", "range"),
        ("(0, 1, 2, 1, 4)", "inverted"),
        ("(0, 1, 9, 3, 4)", "inverted"),
        ("I see a cat.", "text"),
        ("(0, 1, 2, 3", "unclosed"),
    ],
)
def test_refusals(text, reason):
    good = "(1, 10, 20, 30, 40)"
    for whole in (text, f"{text}\n{good}", f"[{good}, {text}]"):
        counts = parse(whole, DETECT, SIZE).counts()
        # What is cut off takes the tuple behind it along only where it is cut off at the end.
        assert counts == {"read": int(good in whole), reason: 1}
    assert reason in REASONS


def test_nothing_is_an_answer():
    for text in ("", " \n", "[]"):
        answer = parse(text, DETECT, SIZE)
        assert answer.counts() == {"read": 0}
        assert parse_rate([answer.counts()]) is None
    good = parse("(1, 10, 20, 30, 40)", DETECT, SIZE)
    assert good.detections[0].box == pytest.approx((6.4, 9.6, 12.8, 9.6))
    assert parse_rate([good.counts(), parse("nothing", DETECT, SIZE).counts()]) == 0.5
    offsets = replace(DETECT, locations=Locations(bins=100, offsets=True))
    assert parse("(0, 90, 50, -10, -10, 20, 10)", offsets, SIZE).counts() == {"read": 0, "range": 1}
    flat = Instruction(task="segment", classes=("cat",))
    assert parse(f"(0{', 5, 5' * 8})", flat, SIZE).counts() == {"read": 0, "flat": 1}
    with pytest.raises(InputError, match="in words"):
        parse("A cat.", Instruction(task="caption"), SIZE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "paint"}, "unknown task 'paint'"),
        ({"task": "detect"}, "wanted a class set"),
        ({"task": "caption", "classes": ("cat",)}, "wanted a class set"),
        ({"task": "detect", "classes": [f"class {n}" for n in range(600)]}, "at most 512 classes, got 600"),
        ({"task": "detect", "classes": ("cat", "dog", "cat")}, "'cat' is there twice"),
        ({"task": "detect", "classes": ("cat", " ")}, "on one line"),
        ({"task": "ground", "classes": ("cat", "dog")}, "one description"),
        ({"task": "vqa"}, "wanted a question"),
        ({"task": "caption", "question": "Why?"}, "wanted a question"),
        ({"task": "segment", "classes": ("cat",), "points": 7}, "8 to 24 points"),
        ({"task": "detect", "classes": ("cat",), "wording": 3}, "wordings 0 to 2"),
        ({"task": "name", "classes": ("cat",)}, "wanted a box"),
        ({"task": "name", "classes": ("cat",), "place": (1, 2, 3, 1001)}, "wanted a box"),
    ],
)
def test_what_is_no_instruction(given, message):
    with pytest.raises(InputError, match=message):
        Instruction(**given)


def test_a_skeleton_is_filled():
    coarse = Instruction(task="detect", classes=("cat", "dog"), locations=Locations(bins=10, tokens=True))
    skeleton = coarse.skeleton(2)
    choices = [part for part in skeleton if isinstance(part, Choices)]
    assert [len(choice.texts) for choice in choices] == [2, 11, 11, 11, 11] * 2
    text = fill(skeleton, ["<c1>", "<p0>", "<p1>", "<p5>", "<p10>", "<c0>", *["<p1>"] * 2, *["<p2>"] * 2])
    assert text == "(<c1>, <p0>, <p1>, <p5>, <p10>)\n(<c0>, <p1>, <p1>, <p2>, <p2>)"
    assert re.fullmatch(coarse.pattern(), text)
    assert parse(text, coarse, SIZE).counts() == {"read": 2}
    with pytest.raises(InputError, match="wanted 10 texts"):
        fill(skeleton, ["<c1>"])
    with pytest.raises(InputError, match="'<p11>' is none of the 11"):
        fill(coarse.skeleton(1), ["<c1>", "<p0>", "<p1>", "<p5>", "<p11>"])
    with pytest.raises(InputError, match="at least 1 tuple"):
        coarse.skeleton(0)
