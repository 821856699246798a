"""A bundle: what is written is what is read, and damage of any kind is one clear error that loses nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

from spae import bundle
from spae.errors import BundleError, InputError

FILES = {
    "params.safetensors": {"a": np.arange(6, dtype=np.float32).reshape(2, 3)},
    "words.json": ["été", "dog"],
}


@pytest.fixture
def folder(tmp_path):
    bundle.write(tmp_path / "b", {"name": "test"}, FILES)
    return tmp_path / "b"


def test_round_trip(folder):
    info, files = bundle.read(folder)
    assert info["name"] == "test"
    assert files["words.json"] == ["été", "dog"]
    np.testing.assert_array_equal(files["params.safetensors"]["a"], FILES["params.safetensors"]["a"])
    assert sorted(p.name for p in folder.parent.iterdir()) == ["b"]


def test_a_second_write_replaces_the_first(folder):
    bundle.write(folder, {"name": "second"}, {"words.json": ["cat"]})
    info, files = bundle.read(folder)
    assert (info["name"], list(files)) == ("second", ["words.json"])
    assert sorted(p.name for p in folder.parent.iterdir()) == ["b"]


@pytest.mark.parametrize("name", ["params.safetensors", "words.json"])
def test_a_flipped_byte(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} is not as it was written"):
        bundle.read(folder)


def test_a_missing_file(folder):
    (folder / "words.json").unlink()
    with pytest.raises(BundleError, match=r"words\.json .* missing"):
        bundle.read(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not JSON"), ("[]", "no format"), ('{"format": "other"}', "no format")],
)
def test_a_bundle_json_that_is_none(folder, content, message):
    (folder / "bundle.json").write_text(content)
    with pytest.raises(BundleError, match=message):
        bundle.read(folder)


def test_another_version(folder):
    info = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**info, "version": 99}))  # said before the checksum
    with pytest.raises(BundleError, match=r"version 1.*version 99"):
        bundle.read(folder)


def test_no_bundle_there(tmp_path):
    with pytest.raises(BundleError, match=r"bundle\.json"):
        bundle.read(tmp_path / "nothing")


def test_a_flipped_value_in_bundle_json(folder):
    path = folder / "bundle.json"
    path.write_text(path.read_text().replace('"test"', '"tesu"'))
    with pytest.raises(BundleError, match=r"bundle\.json is not as it was written"):
        bundle.read(folder)


def test_a_failure_between_the_two_renames_puts_the_old_bundle_back(folder, monkeypatch):
    rename, calls = Path.rename, []

    def second_fails(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OSError, match="Input/output"):
        bundle.write(folder, {"name": "second"}, FILES)
    assert bundle.read(folder)[0]["name"] == "test"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["b"]


def test_what_is_no_bundle_is_not_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    with pytest.raises(InputError, match="something else"):
        bundle.write(tmp_path / "thesis", {}, FILES)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    bundle.write(tmp_path / "empty", {}, FILES)


def test_a_full_disk_leaves_the_old_bundle_whole(folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    write_through = bundle._write_through

    def full(path: Path, data: bytes):
        if path.name == "bundle.json":
            raise OSError(28, "No space left on device", str(path))
        write_through(path, data)

    monkeypatch.setattr(bundle, "_write_through", full)
    with pytest.raises(OSError, match="No space left"):
        bundle.write(folder, {"name": "second"}, FILES)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert sorted(p.name for p in folder.parent.iterdir()) == ["b"]
