"""Questions about mosaics: the right answer is where the pixels say, and who reads the words of corners finds it."""

import pytest

from icl_runner.data.images import Images
from icl_runner.tasks.corners import CORNERS, Corners
from spae.errors import InputError


class _Names:
    """In place of a tokenizer: the words of a region are those of the thing whose box it is."""

    class shape:
        tokens = staticmethod(lambda layers: 5)


@pytest.fixture
def cells(monkeypatch):
    monkeypatch.setattr(Images, "tokenizer", _Names())
    monkeypatch.setattr(Images, "words", lambda self, keys, layers: dict.fromkeys(keys, "sky"))

    def region_words(self, regions, count):
        names = {(s.id, thing.box): thing.name for s in self.examples.scenes for thing in s.objects}
        return {one: names[one] for one in regions}

    monkeypatch.setattr(Images, "region_words", region_words)
    task = Corners(model="spae-lm/default", count=12, shots=(1,), layers=(2, 3))
    images = Images(task.examples(), "default")
    return images.examples, {cell.name: cell for cell in task.cells(images)}


def _read(call) -> str:
    """Looks the answer up in the words of the corners."""
    words, question = call.prompt.query.removeprefix("Image: ").split("\nQuestion: ")
    at = dict(entry.split(": ") for entry in words.split("; "))
    name = question.split(" the ")[-1].split("?")[0]
    corner = next((corner for corner, there in at.items() if there == name), None)
    if corner is None:
        return call.choices[0]
    if question.startswith("In which"):
        return corner
    there, side = corner.split()
    beside = {"left": "right", "right": "left"}[side]
    # Asked about another mosaic, what is wanted may lie outside.
    return at[f"{there} {beside}"] if f"to the {beside} of" in question else call.choices[0]


def test_who_reads_the_corners_finds_it(cells):
    found, made = cells
    assert list(made) == [
        "corners-corner-image-1shot-layers2",
        "corners-corner-image-1shot-layers3",
        "corners-corner-regions-1shot",
        "corners-beside-image-1shot-layers2",
        "corners-beside-image-1shot-layers3",
        "corners-beside-regions-1shot",
    ]
    for asked in ("corner", "beside"):
        cell = made[f"corners-{asked}-regions-1shot"]
        assert cell.ids == [scene.id for scene in found.scenes[1:]]
        for item in cell.items:
            assert len(item.calls[0].choices) == 4
            values, metadata = Corners.score(item.shown, {call.key: _read(call) for call in item.calls})
            assert values["constrained"] == 1
            assert metadata["truth"] in item.calls[0].choices
        truths = {item.shown["truth"] for item in cell.items}
        assert len(truths) > 2
    # The pixels agree with what the first mosaic is asked.
    scene, item = found.scenes[1], made["corners-corner-image-1shot-layers2"].items[0]
    thing = next(one for one in scene.objects if one.name in item.shown["question"])
    middle = (scene.size[0] / 2, scene.size[1] / 2)
    row, column = ("upper", "lower")[thing.box.y >= middle[1]], ("left", "right")[thing.box.x >= middle[0]]
    assert item.shown["truth"] == f"{row} {column}"
    assert item.calls[0].choices == CORNERS


def test_a_control_needs_another():
    with pytest.raises(InputError, match="2 mosaics at least"):
        Corners(model="spae-lm/default", count=1).cells(None)
