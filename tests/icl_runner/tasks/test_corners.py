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
    task = Corners(
        model="spae-lm/default",
        count=60,
        shots=(1,),
        layers=(2, 3),
        words=("image", "regions", "names"),
        content_free=2,
    )
    images = Images(task.examples(), "default")
    return images.examples, {cell.name: cell for cell in task.cells(images)}


def _read(call) -> str:
    """Looks the answer up in the words of the corners."""
    words, question = call.prompt.query.removeprefix("Image: ").split("\nQuestion: ")
    at = dict(entry.split(": ")[::-1] for entry in words.split("; "))
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
        "corners-corner-names-1shot",
        "corners-beside-image-1shot-layers2",
        "corners-beside-image-1shot-layers3",
        "corners-beside-regions-1shot",
        "corners-beside-names-1shot",
    ]
    for asked in ("corner", "beside"):
        cell = made[f"corners-{asked}-regions-1shot"]
        assert cell.ids == [scene.id for scene in found.scenes[1:]]
        for item in cell.items:
            assert len(item.calls[0].choices) == 4
            answers = {call.key: _read(call) for call in item.calls if not call.likelihoods}
            values, metadata = Corners.score(item.shown, answers)
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


def test_content_free_prompts_have_parts_of_several_other_mosaics(cells):
    found, made = cells
    said = {
        scene.id: [f"{thing.name}: {corner}" for corner, thing in zip(CORNERS, scene.objects, strict=True)]
        for scene in found.scenes
    }
    for item in made["corners-corner-names-1shot"].items:
        free = [call for call in item.calls if call.key.startswith("content-free")]
        assert [call.key for call in free] == ["content-free1", "content-free2"]
        for call in free:
            assert call.prompt.context == item.calls[0].prompt.context
            words, question = call.prompt.query.removeprefix("Image: ").split("\nQuestion: ")
            assert question.startswith(item.shown["question"])
            parts = words.split("; ")
            assert [part.split(": ")[1] for part in parts] == list(CORNERS)
            whose = [{scene for scene, its in said.items() if part in its} for part in parts]
            assert all(owners - {item.id} for owners in whose)
            assert words not in {"; ".join(its) for its in said.values()}
            # Nothing that the question could be about.
            assert not {part.split(": ")[0] for part in parts} & {
                part.split(": ")[0] for part in said[item.id]
            }


def test_calibration_takes_off_what_is_likely_anyway(cells):
    """A reader that always likes one corner best, and the right one a little more than it does without an image."""
    item = cells[1]["corners-corner-regions-1shot"].items[0]
    truth, liked = item.shown["truth"], next(one for one in CORNERS if one != item.shown["truth"])

    def log_probs(seen: bool) -> dict[str, float]:
        return {one: -5.0 + 4 * (one == liked) + (one == truth) * seen for one in CORNERS}

    answers = {"constrained": liked, "likeliest": log_probs(True), "likeliest_other": log_probs(False)}
    answers |= {"content-free1": log_probs(False), "content-free2": log_probs(False)}
    values, _ = Corners.score(item.shown, answers)
    assert {key: values[key] for key in ("constrained", "likeliest", "calibrated")} == {
        "constrained": 0,
        "likeliest": 0,
        "calibrated": 1,
    }
    assert {"likeliest_other", "calibrated_other"} <= set(values)


def test_likelihoods_want_a_model_that_tells_them():
    with pytest.raises(InputError, match="--content-free: wanted"):
        Corners(model="openai/gpt", content_free=2).cells(None)


def test_a_control_needs_another():
    with pytest.raises(InputError, match="2 mosaics at least"):
        Corners(model="spae-lm/default", count=1).cells(None)
    with pytest.raises(InputError, match="more than 4 mosaics, those in context included"):
        Corners(model="spae-lm/default", count=4, shots=(0,), content_free=1).cells(None)
