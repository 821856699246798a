"""Protocols as published: the authors' files in their own formats, with images that nobody looks at."""

import json
from pathlib import Path

import pytest

from icl_runner.data.images import Images
from icl_runner.episodes.protocols import PAPER
from icl_runner.plan import Plan
from icl_runner.run import _as_now
from icl_runner.tasks.classify import Classify
from spae.errors import InputError

SIZES = [(ways, shots) for ways in (2, 5) for shots in (1, 3, 5)]


@pytest.fixture(autouse=True)
def no_tokenizer(monkeypatch) -> None:
    monkeypatch.setattr(Images, "words", lambda self, keys, layers: {key: f"of {key}" for key in keys})
    monkeypatch.setattr(Images, "tokens", lambda self, layers: 5)


def task(data: Path, protocol: str, model: str = "spae-lm/default", **changes) -> Classify:
    return Classify(model=model, data=str(data), protocol=protocol, **changes)


def cells(made: Classify):
    return made.cells(Images(made.examples(), "default"))


@pytest.fixture
def frozen(tmp_path) -> Path:
    """Two questions for each size, as the published file of 2-way 1-shot has its 2,500."""
    names = ["dax", "blicket", "perpo", "slation", "shously"]
    for ways, shots in SIZES:
        questions = []
        for number in (1, 2):
            stem = f"open_ended_mi_shots_{shots}_ways_{ways}_id_{number:04}"
            support = names[:ways] * shots
            question = {"question_id": f"{number:04}", "question": "This is a", "answer": names[number - 1]}
            question["question_image"] = f"{stem}_question.jpg"
            for place, name in enumerate(support, 1):
                question |= {
                    f"caption_{place}": f"This is a {name}",
                    f"image_{place}": f"{stem}_image_{place}.jpg",
                }
            for key, file in question.items():
                if "image" in key:
                    (tmp_path / file).write_bytes(b"")
            questions.append(question)
        name = f"open_ended_mi_shots_{shots}_ways_{ways}_all_questions.json"
        (tmp_path / name).write_text(json.dumps(questions))
    return tmp_path


@pytest.fixture
def v2l(tmp_path) -> Path:
    """Lines that end in a comma, as their code wants them."""
    (tmp_path / "fewshot_split").mkdir()
    wnids = ["n02110341", "n01930112", "n02116738", "n02129165", "n02110063", "n02443484"]
    for wnid in wnids:
        (tmp_path / wnid).mkdir()
        for number in range(8):
            (tmp_path / wnid / f"{wnid}_{number}.JPEG").write_bytes(b"")
    for ways, shots in SIZES:
        lines = []
        for turn in (0, 1, 5):
            chosen = [wnids[(turn + place) % 6] for place in range(ways)]
            keys = [f"{wnid}/{wnid}_{n}.JPEG" for n in range(shots) for wnid in chosen]
            lines.append(",".join([*keys, f"{chosen[0]}/{chosen[0]}_7.JPEG", ""]))
        (tmp_path / "fewshot_split" / f"{ways}_way_{shots}_shot.csv").write_text("\n".join(lines))
    return tmp_path


def test_frozen_open_ended(frozen):
    made = cells(task(frozen, "frozen-open"))
    columns = [
        (one.setting["ways"], one.setting["induction"], one.setting["shots"], one.setting["repeats"])
        for one in made
    ]
    assert columns == [(ways, *column) for ways in (2, 5) for column in PAPER]
    assert {(one.setting["names"], one.setting["protocol"]) for one in made} == {("nonsense", "frozen-open")}
    for one in made:
        assert [[call.key for call in item.calls] for item in one.items] == [["open", "open_other"]] * 2
    assert (
        made[0]
        .items[0]
        .calls[0]
        .prompt.text.startswith("Input: of open_ended_mi_shots_1_ways_2_id_0001_image_1.jpg\n")
    )
    repeated = made[6].items[1]
    assert repeated.calls[0].prompt.context.count("_image_1.jpg\nOutput: dax\n") == 6
    assert "one of: dax, blicket." in repeated.calls[0].prompt.context
    assert (repeated.target, repeated.shown["names"]) == ("blicket", ["dax", "blicket"])


def test_v2l(v2l):
    made = cells(task(v2l, "v2l", count=2))
    assert len(made) == 14
    assert {len(one.items) for one in made} == {2}
    first = made[1].items[0]
    assert [call.key for call in first.calls] == ["constrained", "constrained_other"]
    assert list(first.calls[0].choices) == sorted(first.calls[0].choices)
    assert first.target == "Dalmatian"
    assert made[1].setting["names"] == "real"
    (chat, *_) = cells(task(v2l, "v2l", model="openai/gpt"))
    assert [call.key for call in chat.items[0].calls] == ["instructed", "instructed_other"]


def test_what_is_not_as_in_the_paper_is_said(frozen):
    told = "\n".join(task(frozen, "v2l", model="openai/gpt").notes())
    assert "2403.07874" in told
    assert "not restricted, this model is told the names" in told
    assert "the first 200 of each file" in told
    assert "Answer with dax or blicket" in "\n".join(task(frozen, "frozen-open").notes())
    assert Classify(model="fake/m", data="d").notes() == []


def test_what_a_protocol_refuses(frozen):
    with pytest.raises(InputError, match="leave --ways, --episodes-file out"):
        task(frozen, "v2l", ways=(5,), episodes_file="x")
    (frozen / "open_ended_mi_shots_3_ways_5_all_questions.json").rename(frozen / "kept.json")
    with pytest.raises(InputError, match=r"1 of 6 are not there, such as .*shots_3_ways_5"):
        cells(task(frozen, "frozen-open"))
    other = (frozen / "open_ended_mi_shots_5_ways_5_all_questions.json").read_bytes()
    (frozen / "open_ended_mi_shots_3_ways_5_all_questions.json").write_bytes(other)
    with pytest.raises(InputError, match="wanted 5-way 3-shot episodes, as its name says"):
        cells(task(frozen, "frozen-open"))


def test_a_run_of_before_there_was_a_setting_goes_on(class_folders):
    made = Classify(model="fake/m", data=str(class_folders), words="class-name", count=2)
    plan = Plan(made)
    now = plan.record()
    before = json.loads(json.dumps(now))
    for name in ("protocol", "content_free", "orders"):
        del before["settings"][name]
    assert _as_now(before, now, plan.defaults) == now
    asked = json.loads(json.dumps(now | {"settings": now["settings"] | {"orders": 4}}))
    assert _as_now(before, asked, plan.defaults) != asked
