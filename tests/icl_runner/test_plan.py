"""Plans: which images, words and questions a run has. Words are made up here: no tokenizer is loaded."""

import json
import shutil
from pathlib import Path

import pytest

from icl_runner import tasks
from icl_runner.data.images import Images
from icl_runner.episodes import files
from icl_runner.plan import Plan
from icl_runner.task import Task
from icl_runner.tasks.classify import PAPER
from spae import bundle
from spae.errors import InputError
from spae.weights.hub import Located


def settings(data, task="classify", **changes) -> Task:
    given = {"model": "fake/m", "data": str(data), "count": 4}
    given |= {"words": "class-name"} if task == "classify" else {}
    return tasks.find(task)(**(given | changes))


@pytest.fixture
def no_tokenizer(monkeypatch):
    """Of every image the words "<key> <layers>"."""
    monkeypatch.setattr(Images, "words", lambda self, keys, layers: {key: f"{key} {layers}" for key in keys})
    monkeypatch.setattr(Images, "tokens", lambda self, layers: {2: 5, 3: 21}[layers])


def queried(item) -> str:
    """The image key that a prompt of `no_tokenizer` asks about."""
    return item.calls[0].prompt.query.partition(": ")[2].partition("\n")[0].rpartition(" ")[0]


def test_plan_has_a_cell_for_each_combination(class_folders):
    plan = Plan(settings(class_folders, ways=(2, 3), shots=(1, 3), repeats=(0, 1)))
    assert [cell.name for cell in plan.cells][:3] == [
        "classify-2way-1shot-class-name",
        "classify-2way-1shot-repeats1-class-name",
        "classify-2way-3shot-class-name",
    ]
    assert len({cell.name for cell in plan.cells}) == 8
    assert all(len(cell.ids) == 4 for cell in plan.cells)
    spae = plan.metadata(plan.cells[1])["spae"]
    assert spae["cell"] == {
        "ways": 2,
        "shots": 1,
        "induction": True,
        "repeats": 1,
        "names": "real",
        "layers": 0,
        "tokens_per_image": 0,
        "words": "class-name",
    }
    # The report looks the bundle up by these two.
    assert (spae["bundle"], spae["bundle_sha256"]) == ("default", bundle.sha256("default"))
    assert len(spae["data_fingerprint"]) == 64


def test_the_revision_of_a_model_of_the_hub_is_part_of_the_plan(class_folders, monkeypatch):
    found = {"revision": "0123abcd"}
    monkeypatch.setattr("icl_runner.plan.locate", lambda name: Located(Path("m"), "m", name, **found))
    plan = Plan(settings(class_folders, model="spae-lm/hf:org/repo/m.gguf"))
    assert plan.metadata(plan.cells[0])["spae"]["model_revision"] == "0123abcd"
    found["revision"] = "4567cdef"  # the name stands for other weights now: another run
    assert Plan(plan.task).record() != plan.record()
    other = Plan(settings(class_folders, model="spae-lm/default"))
    assert "model_revision" not in other.metadata(other.cells[0])["spae"]


def test_what_is_known_of_the_images_and_the_episodes_are_part_of_the_plan(class_folders, tmp_path):
    folder = shutil.copytree(class_folders, tmp_path / "toys")
    before = Plan(settings(folder))
    spae = before.metadata(before.cells[0])["spae"]
    (folder / "classes.tsv").write_text("wnid\tname\nteddy\tbear\n")
    renamed = Plan(settings(folder))
    assert renamed.record() != before.record()
    other = renamed.metadata(renamed.cells[0])["spae"]
    assert {name for name in spae if spae[name] != other[name]} == {"examples_sha256", "episodes_sha256"}
    seed = Plan(settings(class_folders, seed=1))
    assert seed.metadata(seed.cells[0])["spae"]["episodes_sha256"] != spae["episodes_sha256"]


def test_plan_of_all_the_classes_there_are(class_folders):
    (cell,) = Plan(settings(class_folders, ways=(5,))).cells
    assert cell.setting["control"] == "another class of the episode"
    for item in cell.items:
        asked, other = (call.prompt.query for call in (item.calls[0], item.calls[2]))
        assert asked != other
        assert other.partition(": ")[2].partition("\n")[0] in item.shown["names"]
    (cell,) = Plan(settings(class_folders, ways=(5,), control=False)).cells
    assert "control" not in cell.setting
    with pytest.raises(InputError, match="need 6 classes"):
        Plan(settings(class_folders, ways=(6,), control=False))


def test_without_a_control_no_other_image_is_wanted(class_folders, no_tokenizer):
    one = settings(class_folders / "tower", task="interpret", count=7)
    with pytest.raises(InputError, match="class or a caption"):
        Plan(one)
    only = class_folders.parent / "one class"
    (only / "tower").mkdir(parents=True, exist_ok=True)
    (only / "tower/0.png").write_bytes((class_folders / "tower/0.png").read_bytes())
    of_one = settings(only, task="interpret", control=False)
    assert [len(item.calls) for item in Plan(of_one).cells[0].items] == [1]
    with pytest.raises(InputError, match=r"wanted another image .* or --no-control"):
        Plan(settings(only, task="interpret"))


def test_plan_of_the_published_columns(class_folders):
    plan = Plan(settings(class_folders, columns="paper", ways=(2,)))
    of_cells = [(c.setting["induction"], c.setting["shots"], c.setting["repeats"]) for c in plan.cells]
    assert of_cells == list(PAPER)
    # The same questions in every column.
    assert len({tuple(e.query for e in cell.episodes) for cell in plan.cells}) == 1


def test_plan_with_nonsense_names_keeps_the_class_as_words(class_folders):
    plan = Plan(settings(class_folders, names="nonsense"))
    for cell in plan.cells:
        for item, episode in zip(cell.items, cell.episodes, strict=True):
            assert item.calls[0].prompt.query == f"Input: {episode.query.label}\nOutput:"
            assert item.target == episode.names[episode.query.label]
            assert item.target not in {"beagle", "fishing boat", "red cup", "tower", "teddy"}


def test_plan_of_a_file_of_episodes(class_folders, tmp_path):
    drawn = Plan(settings(class_folders, ways=(3,)))
    files.write(tmp_path / "mine.episodes", drawn.cells[0].episodes)
    again = Plan(settings(class_folders, episodes_file=str(tmp_path / "mine.episodes")))
    assert again.cells == drawn.cells
    with pytest.raises(InputError, match="cannot read"):
        Plan(settings(class_folders, episodes_file=str(tmp_path / "none.json")))


@pytest.mark.parametrize("given", [{"ways": (5,)}, {"shots": (3,)}, {"names": "nonsense"}])
def test_what_a_file_of_episodes_says_is_not_asked_for_otherwise(class_folders, given):
    with pytest.raises(InputError, match=f"--episodes-file says itself .* leave --{next(iter(given))} out"):
        settings(class_folders, episodes_file="mine.episodes", **given)


def test_a_file_of_episodes_says_itself_what_they_are(class_folders, tmp_path):
    file = tmp_path / "mine.episodes"
    made_up = Plan(settings(class_folders, names="nonsense"))
    files.write(file, made_up.cells[0].episodes)
    again = Plan(settings(class_folders, episodes_file=str(file)))
    assert again.cells == made_up.cells
    assert again.cells[0].setting["names"] == "nonsense"
    mixed = Plan(settings(class_folders, shots=(1, 2), ways=(2,)))
    files.write(file, [one for cell in mixed.cells for one in cell.episodes])
    with pytest.raises(InputError, match=r"has 2-way 1-shot and 2-way 2-shot: .* a file for each"):
        Plan(settings(class_folders, episodes_file=str(file)))


@pytest.mark.usefixtures("no_tokenizer")
def test_words_of_layers_are_cells_of_their_own(class_folders):
    plan = Plan(settings(class_folders, words="image", layers=(2, 3), ways=(2,)))
    assert [cell.name for cell in plan.cells] == [
        "classify-2way-1shot-layers2",
        "classify-2way-1shot-layers3",
    ]
    assert [cell.setting["tokens_per_image"] for cell in plan.cells] == [5, 21]
    for cell, layers in zip(plan.cells, (2, 3), strict=True):
        for item, episode in zip(cell.items, cell.episodes, strict=True):
            assert item.calls[0].prompt.query == f"Input: {episode.query.key} {layers}\nOutput:"


@pytest.mark.usefixtures("no_tokenizer")
def test_captions_of_photographs():
    plan = Plan(settings("photographs", task="caption", shots=(1, 3), count=5))
    assert [cell.name for cell in plan.cells] == ["caption-1shot-layers2", "caption-3shot-layers2"]
    assert [len(cell.items) for cell in plan.cells] == [5, 5]
    for cell in plan.cells:
        assert cell.setting["tokens_per_image"] == 5
        # One context for all queries, and none of them in it.
        (context,) = {call.prompt.context for call in cell.calls()}
        assert context.count("Caption:") == cell.setting["shots"]
        for item in cell.items:
            assert queried(item) == item.shown["query_key"]
            assert item.shown["query_key"] not in context
            assert item.shown["other_key"] != item.shown["query_key"]


@pytest.mark.usefixtures("no_tokenizer")
def test_questions_about_shapes():
    plan = Plan(settings("easy-vqa", task="vqa", shots=(3,), count=20))
    (cell,) = plan.cells
    assert len(cell.items) == 20
    images = {plan.images.examples[id_].image_key for id_ in cell.ids}
    for item in cell.items:
        query = plan.images.examples[item.id]
        assert queried(item) == query.image_key
        assert f"Image: {query.image_key} 2\n" not in item.calls[0].prompt.context
        assert item.shown["humans"] == list(query.answers)
        assert item.shown["other_key"] != query.image_key
    assert len(images) > 10


@pytest.mark.usefixtures("no_tokenizer")
def test_interpretation_of_photographs():
    plan = Plan(settings("photographs", task="interpret", count=100, layers=(2, 3), control=False))
    assert [cell.name for cell in plan.cells] == ["interpret-layers2", "interpret-layers3"]
    assert [len(cell.items) for cell in plan.cells] == [14, 14]
    assert all(item.shown["names"] for cell in plan.cells for item in cell.items)
    assert sum(1 for cell in plan.cells for _ in cell.calls()) == 28


@pytest.mark.usefixtures("no_tokenizer")
def test_plan_of_frozens_questions(class_folders, tmp_path):
    question = {
        "image_1": "a.png",
        "caption_1": "This is a dax.",
        "image_2": "b.png",
        "caption_2": "This is a blicket.",
        "question_image": "c.png",
        "answer": "This is a dax.",
        "question_id": 7,
    }
    other = question | {"question_image": "d.png", "question_id": 8}
    names = sorted((class_folders / "tower").iterdir())
    for letter, source in zip("abcd", names, strict=False):
        (tmp_path / f"{letter}.png").write_bytes(source.read_bytes())
    listed = tmp_path / "open_ended_mi_shots_1_ways_2_all_questions.json"
    listed.write_text(json.dumps([question, other]))
    plan = Plan(settings(tmp_path, episodes_file=str(listed), words="image", repeats=(0, 2)))
    assert [cell.setting["repeats"] for cell in plan.cells] == [0, 2]
    assert {cell.setting["names"] for cell in plan.cells} == {"nonsense"}
    first, second = plan.cells[0].items
    assert first.target == second.target == "dax"
    assert [queried(first), queried(second)] == ["c.png", "d.png"]
    assert "Input: b.png 2\nOutput: blicket\n" in first.calls[0].prompt.context
    # There is no class to name: the ceiling cannot be measured.
    with pytest.raises(InputError, match="class-name"):
        Plan(settings(tmp_path, episodes_file=str(listed)))


def test_the_record_tells_runs_apart(class_folders):
    one, same = Plan(settings(class_folders)).record(), Plan(settings(class_folders)).record()
    assert one == same
    for change in ({"seed": 1}, {"count": 3}, {"model": "fake/other"}, {"model_args": {"batch": 2}}):
        assert Plan(settings(class_folders, **change)).record() != one


def test_wrong_settings(class_folders, tmp_path):
    with pytest.raises(InputError, match="wanted a task of classify"):
        Plan(settings(class_folders, task="paint"))
    with pytest.raises(InputError, match="ask for fewer ways"):
        Plan(settings(class_folders, ways=(6,)))
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/0.png").write_bytes((class_folders / "tower/0.png").read_bytes())
    with pytest.raises(InputError, match="interpret: wanted images with a class or a caption, bare has none"):
        Plan(settings(tmp_path / "bare", task="interpret"))
    with pytest.raises(InputError, match="ask for fewer shots"):
        Plan(settings("photographs", task="caption", shots=(14,)))


def test_secrets_are_no_settings(class_folders):
    headers = {"default_headers": {"Authorization": "Bearer sk-123"}}
    for given in (
        {"model_args": {"api_key": "sk-123"}},
        {"model_args": headers},
        {"model_args": {"clients": [headers]}},
        {"base_url": "https://me:sk-123@example.org/v1"},
        {"base_url": "https://example.org/v1?api-version=1&api-key=sk-123"},
    ):
        with pytest.raises(InputError, match="environment") as error:
            settings(class_folders, **given)
        assert "sk-123" not in str(error.value)
    settings(class_folders, model_args={"max_tokens": 5}, base_url="https://example.org/v1?api-version=1")
