"""Episodes: the same everywhere, no image of a query in its own context, files checked; the published files."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_runner.episodes import files, nonsense
from icl_runner.episodes.draw import Episode, Shot, controlled_within, draw
from spae.errors import InputError

LABELS = {f"{label}/{number}.jpg": label for label in "abcdefg" for number in range(8)}


@st.composite
def drawn(draw_value):
    classes = draw_value(st.integers(3, 8))
    sizes = draw_value(st.lists(st.integers(4, 9), min_size=classes, max_size=classes))
    labels = {f"{c}-{i}": f"class {c}" for c, size in enumerate(sizes) for i in range(size)}
    ways, shots = draw_value(st.integers(1, classes)), draw_value(st.integers(1, 3))
    names = draw_value(st.sampled_from(["nonsense", None]))
    seed = draw_value(st.integers(0, 5))
    return labels, ways, shots, draw(labels, ways, shots, 5, seed, names=names)


@settings(max_examples=60)
@given(drawn())
def test_no_image_of_the_query_or_the_control_in_the_context(case):
    labels, ways, shots, found = case
    assert len({episode.id for episode in found}) == 5
    for episode in found:
        context = [shot.key for shot in episode.support]
        assert episode.query.key not in context
        assert episode.other not in [*context, episode.query.key]
        if ways < len(set(labels.values())):
            assert labels[episode.other] not in episode.names
        assert labels[episode.other] != episode.query.label
        assert (episode.ways, episode.shots) == (ways, shots)
        assert len(set(context)) == len(context) == ways * shots
        assert set(Counter(shot.label for shot in episode.support).values()) == {shots}
        assert all(labels[shot.key] == shot.label for shot in (*episode.support, episode.query))
        assert episode.query.label in episode.names
        assert len(set(episode.names.values())) == ways


def test_the_same_on_every_machine():
    # The digests were taken on Python 3.11, NumPy 2.4; nothing but sha256 and JSON goes into them.
    found = draw(LABELS, 5, 3, 50, seed=7, names="nonsense")
    text = repr([(e.id, list(e.names.items()), e.support, e.query, e.other) for e in found])
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == "5a660215ad9b3d47e5c8ce25fbbb6b166bf412147c4f6741eb24adfc3c489ca8"
    )
    assert found[0].query == Shot(key="a/6.jpg", label="a")
    assert found == draw(dict(reversed(LABELS.items())), 5, 3, 50, seed=7, names="nonsense")
    assert found != draw(LABELS, 5, 3, 50, seed=8, names="nonsense")


def test_all_the_classes_there_are():
    """The control is then of another class of the episode, by an image that is set aside for it."""
    found = draw(LABELS, 7, 2, 300, seed=0, names=None)
    assert all(sorted(episode.names) == list("abcdefg") for episode in found)
    controls = Counter((episode.query.label, LABELS[episode.other]) for episode in found)
    assert {query for query, _ in controls} == {other for _, other in controls} == set("abcdefg")
    assert all(query != other for query, other in controls)
    more = draw(LABELS, 7, 5, 300, seed=0, names=None)
    assert [(e.query, e.other) for e in more] == [(e.query, e.other) for e in found]
    assert controlled_within(found, LABELS)
    assert not controlled_within(draw(LABELS, 6, 2, 300, seed=0, names=None), LABELS)
    with pytest.raises(InputError, match="need 2 classes of at least 2 images, got 1 of 1"):
        draw(dict.fromkeys(LABELS, "a"), 1, 1, 1, seed=0, names=None)


def test_cells_share_their_questions():
    one = draw(LABELS, 5, 1, 30, seed=0, names=None)
    five = draw(LABELS, 5, 5, 30, seed=0, names="nonsense", induction=False, repeats=2)
    for a, b in zip(one, five, strict=True):
        assert (a.query, a.other, list(a.names)) == (b.query, b.other, list(b.names))
        assert set(a.support) < set(b.support)
        assert (b.induction, b.repeats) == (False, 2)


def test_every_place_is_equally_likely():
    """The right answer has no favourite place, neither in the induction nor in the context, and no favourite class."""
    found = draw(LABELS, 4, 1, 4000, seed=3, names=None)
    places = Counter(list(episode.names).index(episode.query.label) for episode in found)
    order = Counter([shot.label for shot in episode.support].index(episode.query.label) for episode in found)
    # 4000 / 4 = 1000, standard deviation 27; 4000 / 7 = 571, 22; 4000 / 56 = 71, 8.4.
    assert all(abs(count - 1000) < 140 for count in (*places.values(), *order.values()))
    classes = Counter(episode.query.label for episode in found)
    controls = Counter(episode.other for episode in found)
    assert len(classes) == 7
    assert all(abs(count - 571) < 110 for count in classes.values())
    assert len(controls) == 56
    assert all(abs(count - 71) < 43 for count in controls.values())


def test_nonsense_names_are_no_words():
    wordfreq = pytest.importorskip("wordfreq")
    assert len(nonsense.WORDS) == len(set(nonsense.WORDS)) > 900
    assert [word for word in nonsense.WORDS if wordfreq.zipf_frequency(word, "en") > 0] == []
    names = [tuple(e.names.values()) for e in draw(LABELS, 2, 1, 40, seed=0, names="nonsense")]
    assert len(set(names)) == 40


def test_written_and_read(tmp_path):
    found = draw(
        LABELS, 3, 2, 4, seed=1, names={label: f"the {label}" for label in "abcdefg"}, induction=False
    )
    files.write(tmp_path / "e.json", found)
    back = files.read(tmp_path / "e.json")
    assert back == found
    assert [list(e.names.items()) for e in back] == [list(e.names.items()) for e in found]  # order, too


def test_a_changed_file(tmp_path):
    path = tmp_path / "e.json"
    files.write(path, draw(LABELS, 2, 1, 2, seed=0, names=None))
    document = json.loads(path.read_text())
    document["episodes"][1]["query"]["label"] = (
        "b" if document["episodes"][1]["query"]["label"] == "a" else "a"
    )
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="not as it was written"):
        files.read(path)
    path.write_text("[]")
    with pytest.raises(InputError, match="wanted a file of episodes"):
        files.read(path)
    path.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        files.read(path)
    with pytest.raises(InputError, match="cannot read"):
        files.read(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ways": 8}, "need 8 classes of at least 2 images, got 7 of 7"),
        ({"shots": 8}, "at least 9 images"),
        ({"episodes": 0}, "at least 1"),
        ({"names": {"a": "apple"}}, "6 have none, such as b"),
        ({"names": dict.fromkeys("abcdefg", "thing")}, "a and b are both 'thing'"),
        ({"names": "silly"}, '"nonsense" or None'),
        ({"repeats": -1}, "repeats of 0 or more"),
    ],
)
def test_what_cannot_be_drawn(change, message):
    arguments = {"ways": 2, "shots": 1, "episodes": 2, "seed": 0, "names": None} | change
    with pytest.raises(InputError, match=message):
        draw(LABELS, **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": Shot("1", "a")}, "query 1 is in its own context"),
        ({"other": "2"}, "control 2 is an image of the episode"),
        ({"other": "q"}, "control q is an image of the episode"),
        ({"query": Shot("q", "c")}, "the names are of"),
        (
            {"support": (Shot("1", "a"), Shot("1", "a"), Shot("2", "b"), Shot("3", "b"))},
            "twice in the context",
        ),
        ({"support": (Shot("1", "a"), Shot("2", "b"), Shot("3", "b"))}, "as many images of each class"),
        ({"names": {"a": "x", "b": "x"}}, "same name"),
        ({"names": {"a": "x", "b": "y\nz"}}, r"'y\\nz' holds a line break"),
        ({"names": {"a": "x ###", "b": "y"}}, "'x ###' holds a line break or ###"),
    ],
)
def test_what_is_no_episode(change, message):
    whole = {
        "id": "e",
        "names": {"a": "a", "b": "b"},
        "support": (Shot("1", "a"), Shot("2", "b")),
        "query": Shot("q", "a"),
        "other": "o",
    }
    assert Episode(**whole).shots == 1
    with pytest.raises(InputError, match=message):
        Episode(**whole | change)


def frozen_question(number: int, names=("dax", "blicket"), task="open_ended_mi") -> dict:
    stem = f"{task}_shots_1_ways_2_id_{number}"
    return {
        "question_id": number,
        "image_1": f"{stem}_image_1.jpg",
        "caption_1": f"This is a {names[0]}.",
        "image_2": f"{stem}_image_2.jpg",
        "caption_2": f"this is an {names[1]}",
        "question": "What is this?",
        "question_image": f"{stem}_question.jpg",
        "answer": names[number % 2],
    }


def write_frozen(folder: Path, questions: list[dict]) -> Path:
    for question in questions:
        for field, name in question.items():
            if "image" in field:
                (folder / name).write_bytes(b"")
    path = folder / "open_ended_mi_shots_1_ways_2_all_questions.json"
    path.write_text(json.dumps(questions))
    return path


def test_frozen_open_ended(tmp_path):
    path = write_frozen(tmp_path, [frozen_question(number) for number in range(4)])
    found = files.read_frozen(path, tmp_path)
    assert [(e.ways, e.shots, e.query.label) for e in found] == [
        (2, 1, "dax"),
        (2, 1, "blicket"),
        (2, 1, "dax"),
        (2, 1, "blicket"),
    ]
    assert found[0].names == {"dax": "dax", "blicket": "blicket"}
    assert found[3].support[1] == Shot("open_ended_mi_shots_1_ways_2_id_3_image_2.jpg", "blicket")
    for number, episode in enumerate(found):
        assert episode.other.endswith("_question.jpg")
        assert f"_id_{number}_" not in episode.other
    assert found == files.read_frozen(path, tmp_path)


def test_frozen_real_name_controls_are_of_other_classes(tmp_path):
    names = [("eagle", "golden retriever"), ("ant", "trifle"), ("eagle", "ant")]
    path = write_frozen(tmp_path, [frozen_question(n, pair, "real_name_mi") for n, pair in enumerate(names)])
    found = files.read_frozen(path, tmp_path)
    # Answers: eagle, trifle, eagle. Only the second question's image is outside the first and third episode.
    assert [episode.query.label for episode in found] == ["eagle", "trifle", "eagle"]
    assert "_id_1_" in found[0].other
    assert "_id_1_" in found[2].other
    assert "_id_1_" not in found[1].other


def test_bad_frozen_files(tmp_path):
    path = write_frozen(tmp_path, [frozen_question(0), frozen_question(1)])
    (tmp_path / "open_ended_mi_shots_1_ways_2_id_1_question.jpg").unlink()
    with pytest.raises(InputError, match=r"question 1 wants open_ended.*_id_1_question\.jpg"):
        files.read_frozen(path, tmp_path)
    broken = frozen_question(0)
    del broken["caption_2"]
    path.write_text(json.dumps([broken]))
    with pytest.raises(InputError, match="question 0 lacks 'caption_2'"):
        files.read_frozen(path, tmp_path)
    path.write_text("[]")
    with pytest.raises(InputError, match="list of questions"):
        files.read_frozen(path, tmp_path)


def test_v2l(tmp_path):
    path = tmp_path / "2_way_2_shot.csv"
    path.write_text(
        "n01/1.JPEG,n02/1.JPEG,n01/2.JPEG,n02/2.JPEG,n02/9.JPEG,\n"
        "n03/1.JPEG,n01/2.JPEG,n03/2.JPEG,n01/5.JPEG,n03/9.JPEG,\n"
    )
    names = {"n01": "dog", "n02": "cat", "n03": "boat"}
    first, second = files.read_v2l(path, names)
    assert (first.ways, first.shots, first.query) == (2, 2, Shot("n02/9.JPEG", "n02"))
    assert first.names == {"n01": "dog", "n02": "cat"}
    assert (first.other, second.other) == ("n03/9.JPEG", "n02/9.JPEG")
    assert first.id == "2_way_2_shot-00001"
    assert files.read_v2l(path)[0].names == {"n01": "n01", "n02": "n02"}
    made_up = files.read_v2l(path, "nonsense")[0].names.values()
    assert set(made_up) < set(nonsense.WORDS)


def test_published_files_of_all_the_classes_there_are(tmp_path):
    path = tmp_path / "2_way_1_shot.csv"
    path.write_text(
        "n01/1.JPEG,n02/1.JPEG,n01/8.JPEG\nn02/2.JPEG,n01/2.JPEG,n01/9.JPEG\nn02/3.JPEG,n01/3.JPEG,n02/9.JPEG\n"
    )
    assert [episode.other for episode in files.read_v2l(path)][:2] == ["n02/9.JPEG"] * 2
    questions = write_frozen(tmp_path, [frozen_question(number, ("ant", "trifle")) for number in range(4)])
    for episode in files.read_frozen(questions, tmp_path):
        other = int(episode.other.split("_id_")[1].split("_")[0])
        assert ("ant", "trifle")[other % 2] != episode.query.label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one episode a line"),
        ("n01/1.JPEG\n", "line 1: wanted files"),
        ("a,b,c\n", "line 1: wanted files"),
        ("n01/1.JPEG,n02/1.JPEG,n02/9.JPEG,\n", "no query of another class"),
        (
            "n01/1.JPEG,n02/9.JPEG,n02/9.JPEG,\nn03/1.JPEG,n02/1.JPEG,n03/9.JPEG",
            "query n02/9.JPEG is in its own context",
        ),
    ],
)
def test_bad_v2l_files(tmp_path, text, message):
    path = tmp_path / "2_way_1_shot.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        files.read_v2l(path)
