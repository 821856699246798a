"""Pyramids of a set: what the tokenizer gives, once per image, through damage, kills and several writers."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from icl_runner.data.examples import Example, ExampleSet
from icl_runner.data.pyramids import Pyramids
from spae.errors import InputError

# The fake of the tokenizer's own tests, taken by its path: no folder of tests is a package.
_FAKE = Path(__file__).parents[2] / "spae" / "fake_tokenizer.py"
_SPEC = importlib.util.spec_from_file_location("fake_tokenizer_of_spae", _FAKE)
assert _SPEC is not None
assert _SPEC.loader is not None
fake = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fake)

IMAGES = np.random.default_rng(0).integers(0, 256, (600, 8, 8, 3), dtype=np.uint8)


class Counting(fake.FakeTokenizer):
    """Counts what it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def encode(self, image):
        self.calls.append(len(image))
        return super().encode(image)


def example_set(identity: str = "one") -> ExampleSet:
    examples = [Example(str(number)) for number in range(len(IMAGES))]
    return ExampleSet("noise", examples, {}, lambda key: IMAGES[int(key)], lambda: identity)


def test_each_image_is_encoded_once(tmp_path):
    tokenizer = Counting()
    pyramids = Pyramids(tokenizer, example_set(), tmp_path)
    found = pyramids(["3", "1", "3"])
    assert list(found) == ["3", "1"]
    assert tokenizer.calls == [2]
    assert found["3"] == fake.FakeTokenizer().encode(IMAGES[3])
    assert found["3"].text() == fake.FakeTokenizer().encode(IMAGES[3]).text()
    assert list(pyramids(["1", "2"])) == ["1", "2"]
    assert tokenizer.calls == [2, 1]

    again = Counting()
    assert Pyramids(again, example_set(), tmp_path)(["1", "2", "3"])["2"] == found["3"].__class__(
        tokenizer._encode(IMAGES[2]).ids, tokenizer.shape
    )
    assert again.calls == []
    assert pyramids([]) == {}


def test_many_images_are_written_as_they_come(tmp_path):
    """A run that breaks keeps what was done before."""

    class Breaking(Counting):
        def encode(self, image):
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().encode(image)

    keys = [str(number) for number in range(600)]
    with pytest.raises(KeyboardInterrupt):
        Pyramids(Breaking(), example_set(), tmp_path)(keys)
    second = Counting()
    assert len(Pyramids(second, example_set(), tmp_path)(keys)) == 600
    assert sum(second.calls) == 600 - 512


def test_photographs_are_cut_before_they_are_gathered(tmp_path):
    looked = []

    class Cutting(Counting):
        def square(self, image):
            looked.append(image.shape)
            return super().square(image)

        def encode(self, images):
            assert {image.shape for image in images} == {(16, 16, 3)}
            return super().encode(images)

    large = ExampleSet(
        "large", [Example("a"), Example("b")], {}, lambda key: np.zeros((90, 120, 3), np.uint8), str
    )
    Pyramids(Cutting(), large, tmp_path)(["a", "b"])
    assert looked == [(90, 120, 3)] * 2


def test_another_tokenizer_or_set_has_its_own_file(tmp_path):
    Pyramids(Counting(), example_set(), tmp_path)(["1"])
    other = Counting()
    other.fingerprint = "another"
    Pyramids(other, example_set(), tmp_path)(["1"])
    Pyramids(other, example_set("two"), tmp_path)(["1"])
    assert other.calls == [1, 1]
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_file_is_reported_and_made_again(tmp_path, damage, capsys):
    pyramids = Pyramids(Counting(), example_set(), tmp_path)
    whole = pyramids(["1", "2"])
    data = bytearray(pyramids.file.read_bytes())
    if damage == "flipped":
        data[-70] ^= 1
    pyramids.file.write_bytes({"cut": data[:-9], "flipped": data, "emptied": b""}[damage])
    again = Counting()
    assert Pyramids(again, example_set(), tmp_path)(["1", "2"]) == whole
    assert again.calls == [2]
    assert "damaged cache" in capsys.readouterr().err
    assert Pyramids(Counting(), example_set(), tmp_path)(["1"])["1"] == whole["1"]


def test_several_writers_lose_nothing(tmp_path):
    # Threads with their own lock files behave as processes do: the lock belongs to the open file.
    def work(part: int) -> None:
        for number in range(part, 60, 6):
            Pyramids(fake.FakeTokenizer(), example_set(), tmp_path)([str(number)])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    last = Counting()
    assert len(Pyramids(last, example_set(), tmp_path)([str(number) for number in range(60)])) == 60
    assert last.calls == []


def test_bad_requests(tmp_path):
    with pytest.raises(InputError, match="no image '600'"):
        Pyramids(Counting(), example_set(), tmp_path)(["600"])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to the cache folder"):
        Pyramids(Counting(), example_set(), tmp_path / "file" / "below")(["1"])
