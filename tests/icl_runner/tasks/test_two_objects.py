"""The two-object test: what is asked in each way of pointing, and who passes it."""

import numpy as np
import pytest

from icl_runner import constraints
from icl_runner.data.images import Images
from icl_runner.tasks.regions import Regions, names, pair
from spae.errors import InputError

pytestmark = pytest.mark.usefixtures("toys")


def _cells(**options):
    task = Regions(model="spae-lm/default", data="toys", count=6, shots=(2,), **options)
    images = Images(task.examples(), "default")
    return images.examples, {cell.setting["pointing"]: cell for cell in task.cells(images)}


def _answers(item, says) -> dict[str, str]:
    return {call.key: says(call) for call in item.calls}


def _scores(cell, says):
    every = [cell.score(item.shown, _answers(item, says))[0] for item in cell.items]
    return {key: np.mean([one[key] for one in every]) for key in every[0]}


def _believes_the_question(call) -> str:
    """Who takes the words of the region for what is there, and looks at nothing else."""
    region = call.prompt.query.partition("words ")[2].split(",")[0].split()
    return next((name for name in call.choices if name in region), call.choices[0])


def test_nothing_is_asked_that_an_example_names():
    """Its crop would stand in the context, with its name."""
    _, cells = _cells()
    for cell in cells.values():
        lines = cell.items[0].calls[0].prompt.context.splitlines()
        named = {line.partition(": ")[2] for line in lines if line.startswith("Answer: ")}
        assert len(named) == 2
        assert all(named.isdisjoint(item.shown["names"]) for item in cell.items)


def test_what_is_asked():
    found, cells = _cells()
    assert list(cells) == ["mark", "none", "words", "crop"]
    for pointing, cell in cells.items():
        assert len(cell.items) == 6
        for item in cell.items:
            assert [call.key for call in item.calls] == [
                "constrained_0",
                "constrained_1",
                "constrained_0_other",
                "constrained_1_other",
            ]
            assert {call.choices for call in item.calls} == {tuple(item.shown["names"])}
            assert len({call.prompt.context for call in item.calls}) == 1
            # A mark is said alike of both: only the words of the image can tell which of them has it.
            one, two = (call.prompt.query.split("Question")[1] for call in item.calls[:2])
            if pointing != "crop":
                assert (one == two) == (pointing != "words")
    asked = [[(i.id, i.shown["truth"]) for i in cell.items] for cell in cells.values()]
    assert all(one == asked[0] for one in asked)
    marked = [found.image(f"{found.scenes[0].id}/mark{place}") for place in (0, 1)]
    assert (marked[0] != found.scenes[0].image).any()
    assert (marked[0] != marked[1]).any()
    crop = found.image(f"{found.scenes[0].id}/crop1")
    assert crop.shape[0] == crop.shape[1]
    assert crop.shape[0] == max(pair(found.scenes[0])[1].box[2:])


def test_who_sees_where_passes_and_who_does_not_fails():
    _, cells = _cells()
    seeing = _scores(cells["words"], _believes_the_question)
    assert seeing["constrained_right"] == seeing["constrained_flip"] == 1
    assert seeing["constrained_right_swapped"] == seeing["constrained_flip_swapped"] == 0
    assert seeing["constrained_flip_other"] < 1
    stubborn = _scores(cells["none"], lambda call: call.choices[0])
    assert stubborn["constrained_right"] == stubborn["constrained_right_swapped"] == 0.5
    assert stubborn["constrained_flip"] == stubborn["constrained_flip_other"] == 0


def test_chat_models_are_told_in_a_column_of_their_own(monkeypatch):
    monkeypatch.setattr(constraints, "supports", lambda model: False)
    _, cells = _cells(pointing=("words",), control=False)
    item = cells["words"].items[0]
    assert [call.key for call in item.calls] == ["instructed_0", "instructed_1"]
    assert "exactly one of" in item.calls[0].system
    values, metadata = Regions.score(
        item.shown, _answers(item, lambda call: f"It is the {item.shown['truth'][0]}.")
    )
    assert values == {
        "instructed_right": 0.5,
        "instructed_flip": 0,
        "instructed_right_swapped": 0.5,
        "instructed_flip_swapped": 0,
    }
    assert metadata["truth"].split(" / ") == item.shown["truth"]
    assert sorted(item.shown["truth"]) == item.shown["names"]
    said = f"It is the {item.shown['truth'][0]}."
    assert metadata["answers"] == {"instructed_flip": f"{said} / {said}"}


def test_mosaics_and_what_cannot_be_asked():
    task = Regions(model="spae-lm/default", count=2, shots=(0,), pointing=("none",))
    scene = task.examples().scenes[0]
    assert len(scene.objects) == 4
    assert names(scene) == sorted(thing.name for thing in pair(scene))
    with pytest.raises(InputError, match="2 images at least"):
        _ = Regions(model="spae-lm/default", data="toys", count=1).cells(None)
    with pytest.raises(InputError, match="toys has no splits"):
        Regions(model="spae-lm/default", data="toys", split="train").examples()
