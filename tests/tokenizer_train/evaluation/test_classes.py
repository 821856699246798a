"""Naming and mosaics where every answer is known: words, names and photographs are levels of brightness, and one class
looks like another."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import spae
from spae.images import to_square
from spae.pyramid import Pyramid, PyramidShape
from spae.sources import open_source
from spae.vocabulary import View, Vocabulary
from tokenizer_train.cli import main
from tokenizer_train.evaluation.classes import Classes
from tokenizer_train.evaluation.mosaics import MOST, draw_groups, mosaic
from tokenizer_train.evaluation.naming import another, naming

WORDS = ("black", "coal", "dusk", "grey", "mist", "pale", "snow", "white")
SMALL, LARGE = 32, 64
# Class -> the level that its photographs have: those of snow look grey.
SEEN = {"black": 0, "grey": 3, "pale": 5, "snow": 3}
OF_CLASS = 6


class Levels:
    """The brightness of every place, looked at in squares of two sizes."""

    shape = PyramidShape((1, 2, 4))
    image_size, sight, frames = SMALL, LARGE, 1
    config = SimpleNamespace(codebook="frozen")
    views = {"meaning": View.raw(), "appearance": View.raw()}  # noqa: RUF012
    vocabulary = Vocabulary(WORDS, np.arange(8), np.eye(8, dtype=np.float32), views, {})

    def square(self, image):
        return to_square(image, SMALL, LARGE)

    def encode(self, images):
        pyramids = []
        for image in images:
            assert len(image) in (SMALL, LARGE)
            grey = Image.fromarray(image).convert("L")
            grids = [np.asarray(grey.resize(grid, Image.Resampling.BOX)) // 32 for grid in self.shape.layers]
            pyramids.append(Pyramid(tuple(grids), self.shape, self.vocabulary))
        return pyramids

    def decode(self, pyramids, layers=None):
        return np.zeros((len(pyramids), SMALL, SMALL, 3), np.uint8)


class Eye:
    """One axis for each level, and for each word."""

    name, templates, image_size, width, fingerprint = "eye", ("{}",), LARGE, 8, "eye"

    def images(self, images_bhwc):
        return np.eye(8, dtype=np.float32)[(np.asarray(images_bhwc).mean(axis=(1, 2, 3)) * 8).astype(int)]

    def regions(self, images_bhwc, sides):
        assert tuple(sides) == (2,)
        half = images_bhwc.shape[1] // 2
        cut = [images_bhwc[:, y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        return np.stack([self.images(one) for one in cut], axis=1)

    def texts(self, texts):
        return np.eye(8, dtype=np.float32)[[WORDS.index(text) for text in texts]]


@pytest.fixture
def photographs(tmp_path):
    for name, level in SEEN.items():
        (tmp_path / name).mkdir()
        for number in range(OF_CLASS):
            # Some are larger than what is looked at, some no larger than what is encoded.
            size = (SMALL, SMALL) if number == 0 else (90, 70)
            Image.new("RGB", size, (32 * level + 16,) * 3).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_both_through_the_command(photographs, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(spae, "load", lambda name: Levels())
    monkeypatch.setattr("tokenizer_train.evaluation.evaluate.Conse", Eye)
    output = tmp_path / "figures.json"
    skip = ["--skip", "stlpips", "frechet", "codecs"]
    assert main(["eval", "levels", str(photographs), "--output", str(output), *skip]) == 0
    table = capsys.readouterr().out
    result = json.loads(output.read_text())

    named = result["naming"]
    assert (named["images"], named["names"], named["chance"]) == (24, 4, 0.25)
    own, others, vector = named["accuracy"].values()
    assert own == vector == 0.75  # all but snow
    assert others < 0.5
    assert next(iter(named["interval"].values())) == pytest.approx(1.96 * (20 / 28 * 8 / 28 / 28) ** 0.5)

    placed = result["mosaics"]
    assert (placed["mosaics"], placed["chance"]) == (OF_CLASS, 0.25)
    own, others, vectors = placed["accuracy"].values()
    assert own == vectors == 0.75
    assert others < 0.6
    assert next(iter(placed["interval"].values())) == 0  # the same quarter of each is wrong

    # Too few classes for the few-shot check's five ways: said, and the rest measured.
    assert "few_shot" not in result
    assert (
        result["not_measured"]["few_shot"]
        == "5-way 1-shot episodes need 5 classes of at least 2 images, got 4"
    )
    assert "| represented by | named, of 4 |" in table
    assert f"| represented by | quadrants named, of {OF_CLASS} mosaics |" in table
    assert "| 5 words | 0.750 ± 0.167 |" in table
    assert "few-shot check (5-way 1-shot" in table


def reasons(folder, wanted=("few_shot", "naming", "mosaics")) -> dict[str, str]:
    source = open_source(folder)
    return Classes(source, np.arange(len(source)), str(folder), wanted, 10, 0).not_measured


def test_why_not(photographs, tmp_path):
    assert set(reasons(photographs)) == {"few_shot"}
    one = photographs / "black"
    assert reasons(one) == dict.fromkeys(("few_shot", "naming", "mosaics"), "not every image has a label")
    assert reasons(one, ("naming",)) == {"naming": "not every image has a label"}
    assert reasons(one, ()) == {}

    def renamed(folder, names):
        for name, label in zip(SEEN, names, strict=True):
            target = tmp_path / folder / label
            target.mkdir(parents=True, exist_ok=True)
            for file in (photographs / name).iterdir():
                (target / f"{name}{file.name}").hardlink_to(file)
        return tmp_path / folder

    two = reasons(renamed("two", ("a", "a", "b", "b")))
    assert two["mosaics"] == "needs two times four images of four classes, got 24 of 2"
    assert "naming" not in two
    assert reasons(renamed("one", "aaaa"))["naming"] == "needs images of two classes, got one"
    numbers = reasons(renamed("numbers", "0123"))
    assert numbers["naming"] == numbers["mosaics"] == "the classes have numbers and no names"
    unknown = renamed("unknown", ("n00000001", "n00000002", "n00000003", "n00000004"))
    assert f"give its name in {unknown / 'classes.tsv'}" in reasons(unknown)["naming"]
    lines = [f"n0000000{i + 1}\ttest\t{name}\t{name}\n" for i, name in enumerate(SEEN)]
    (unknown / "classes.tsv").write_text("wnid\tsplit\tname\tsynonyms\n" + "".join(lines))
    assert set(reasons(unknown)) == {"few_shot"}


def test_of_many_names_some_are_drawn():
    generator = np.random.default_rng(0)
    vectors = {f"name {i}": generator.normal(size=20).astype(np.float32) for i in range(300)}
    names_n = [name for name in vectors for _ in range(2)]
    x_nd = np.stack([vectors[name] for name in names_n])
    found = naming(names_n, vectors, x_nd, x_nd, seed=0)
    assert (found["names"], found["images"], found["chance"]) == (250, 500, 1 / 250)
    assert found["accuracy"]["5 words"] == 1
    assert found["accuracy"]["5 words of another image"] < 0.05
    assert naming(names_n, vectors, x_nd, -x_nd, seed=0)["accuracy"]["guidance's vector of the image"] == 0


@given(st.lists(st.sampled_from("abcdefg"), max_size=60), st.integers(0, 3))
def test_the_photographs_of_mosaics(names, seed):
    groups = draw_groups(names, seed)
    assert len(np.unique(groups)) == groups.size
    assert all(len({names[place] for place in group}) == 4 for group in groups)
    # What is left has no four classes.
    assert len({names[place] for place in set(range(len(names))) - set(groups.ravel().tolist())}) < 4


def test_no_more_mosaics_than_needed():
    assert draw_groups(["a", "b", "c", "d"] * (MOST + 3), 0).shape == (MOST, 4)


def test_the_quadrants_of_a_mosaic():
    made = mosaic([np.full((side, side, 3), value, np.uint8) for value, side in enumerate((6, 4, 8, 4))])
    np.testing.assert_array_equal(made[..., 0], np.kron([[0, 1], [2, 3]], np.ones((4, 4))))


@given(st.integers(2, 50))
def test_another_is_never_the_same_and_each_once(count):
    others = another(count, np.random.default_rng(0))
    assert sorted(others) == list(range(count))
    assert (others != np.arange(count)).all()
