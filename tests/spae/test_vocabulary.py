"""Vocabularies: views against their definitions, storage to the bit."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spae.errors import BundleError, InputError
from spae.vocabulary import View, Vocabulary

RNG = np.random.default_rng(0)
TABLE = (RNG.normal(size=(300, 32)) @ RNG.normal(size=(32, 32)) + 3).astype(np.float32)


def tiny(table: np.ndarray = TABLE, **changes) -> Vocabulary:
    n = len(table)
    views = {"meaning": View.centred(TABLE), "appearance": View.whitened(TABLE, 8)}
    parts = {
        "words": tuple(f"w{i}" for i in range(n)),
        "token_ids": np.arange(n) * 3,
        "embeddings": table,
        "views": views,
        "provenance": {"model": {"name": "tiny"}},
    }
    return Vocabulary(**(parts | changes))


# Views


def test_centred_view():
    codebook = View.centred(TABLE).apply(TABLE)
    np.testing.assert_allclose(codebook.mean(0), 0, atol=1e-6)
    assert np.median(np.linalg.norm(codebook, axis=1)) == pytest.approx(1, rel=1e-6)
    queries = RNG.normal(size=(50, 32)).astype(np.float32) * 5 + 3
    view = View.centred(TABLE)

    def nearest(q, c):
        return np.argmin(((q[:, None].astype(np.float64) - c[None]) ** 2).sum(-1), axis=1)

    np.testing.assert_array_equal(nearest(queries, TABLE), nearest(view.apply(queries), codebook))


def test_whitened_view_against_svd():
    view = View.whitened(TABLE, 5)
    codebook = view.apply(TABLE)
    centred = TABLE - TABLE.mean(0, dtype=np.float64)
    u, _, axes = np.linalg.svd(centred, full_matrices=False)
    leading = u[:, :5] * np.sign(axes[np.arange(5), np.abs(axes[:5]).argmax(1)])
    leading /= np.median(np.linalg.norm(leading, axis=1))
    np.testing.assert_allclose(codebook, leading, atol=2e-5)
    assert view.matrix.shape == (32, 5)
    assert (view.matrix[np.abs(view.matrix).argmax(0), np.arange(5)] > 0).all()


def test_normalised_and_raw_views():
    np.testing.assert_allclose(
        View.normalised().apply(TABLE), TABLE / np.linalg.norm(TABLE, axis=1, keepdims=True), rtol=1e-6
    )
    np.testing.assert_array_equal(View.raw().apply(TABLE), TABLE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: View("tilted", np.array(0.0), np.array(1.0)), "wanted one of"),
        (lambda: View("raw", np.array(np.nan), np.array(1.0)), "NaN"),
        (lambda: View("raw", np.zeros((2, 2)), np.array(1.0)), "shift"),
        (lambda: View.whitened(TABLE, 0), "components"),
        (lambda: View.whitened(TABLE, 33), "components"),
        (lambda: View.whitened(np.repeat(TABLE[:, :4], 8, axis=1), 9), "fewer"),
        (lambda: View.normalised().apply(np.zeros((2, 3), np.float32)), "zero"),
        (lambda: View.centred(np.ones((4, 3), np.float32)), "no scale"),
    ],
)
def test_bad_views(make, message):
    with pytest.raises(InputError, match=message):
        make()


# The value


def test_vocabulary_is_checked():
    for changes, message in [
        ({"words": ()}, "at least one word"),
        ({"words": ("a b", *(f"w{i}" for i in range(299)))}, "without spaces"),
        ({"words": ("w1", *(f"w{i}" for i in range(299)))}, "twice"),
        ({"token_ids": np.arange(299)}, "token ids"),
        ({"token_ids": np.arange(300) - 1}, "token ids"),
        ({"embeddings": TABLE.astype(np.float64)}, "float32"),
        ({"embeddings": np.where(TABLE > 5, np.inf, TABLE)}, "NaN"),
        ({"views": {"meaning": View.raw()}}, "views"),
        ({"views": dict.fromkeys(("meaning", "appearance"), View.whitened(TABLE[:, :9], 2))}, "width"),
    ]:
        with pytest.raises(InputError, match=message):
            tiny(**changes)
    with pytest.raises(InputError, match="meaning, appearance"):
        tiny().codebook("colour")


def test_codebooks_are_kept_and_read_only():
    vocabulary = tiny()
    assert vocabulary.codebook("meaning") is vocabulary.codebook("meaning")
    assert vocabulary.codebook("appearance").shape == (300, 8)
    assert vocabulary.width == 32
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.codebook("meaning")[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.embeddings[0, 0] = 1


def test_folded_index():
    vocabulary = tiny(words=("Dog", "dog", "Straße", *(f"w{i}" for i in range(297))))
    assert vocabulary.index["dog"] == 1
    assert vocabulary.folded_index["dog"] == 0
    assert vocabulary.folded_index["strasse"] == 2


# Storage


def as_q8_0(table):
    blocks = table.reshape(len(table), -1, 32)
    scales = (np.abs(blocks).max(-1, keepdims=True) / 127).astype(np.float16).astype(np.float32)
    inverse = np.divide(1, scales, where=scales > 0, out=np.zeros_like(scales))
    return (np.round(blocks * inverse).astype(np.int8) * scales).reshape(table.shape).astype(np.float32)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(["q8", "f16", "bf16", "f32"]), st.sampled_from([32, 64, 40]))
def test_storage_is_exact_and_no_larger_than_needed(seed, form, width):
    table = np.random.default_rng(seed).normal(size=(7, width)).astype(np.float32)
    table[0] = 0
    if form == "q8" and width % 32 == 0:
        table = as_q8_0(table)
        expected = {"embeddings.values", "embeddings.scales"}
    elif form == "f16":
        table = table.astype(np.float16).astype(np.float32)
        expected = {"embeddings"}
    elif form == "bf16":
        table = ((table * np.float32(1e20)).view(np.uint32) >> 16 << 16).view(np.float32)  # beyond float16
        expected = {"embeddings.bfloat16"}
    else:
        expected = {"embeddings"}
    vocabulary = tiny(table, views={"meaning": View.raw(), "appearance": View.raw()})
    tensors = vocabulary.tensors()
    assert {name for name in tensors if name.startswith("embeddings")} == expected
    if expected == {"embeddings"}:
        assert tensors["embeddings"].dtype == (np.float16 if form == "f16" else np.float32)
    again = Vocabulary.from_parts(tensors, list(vocabulary.words), vocabulary.header())
    assert again.embeddings.tobytes() == table.tobytes()


def test_storage_of_huge_values():
    table = np.full((3, 32), 1e38, np.float32) * np.arange(1, 4, dtype=np.float32)[:, None]
    vocabulary = tiny(table, views={"meaning": View.raw(), "appearance": View.raw()})
    again = Vocabulary.from_parts(vocabulary.tensors(), list(vocabulary.words), vocabulary.header())
    assert again.embeddings.tobytes() == table.tobytes()


def test_save_and_load(tmp_path):
    vocabulary = tiny()
    vocabulary.save(tmp_path / "v")
    assert sorted(p.name for p in (tmp_path / "v").iterdir()) == [
        "vocabulary.json",
        "vocabulary.safetensors",
        "words.json",
    ]
    again = Vocabulary.load(tmp_path / "v")
    assert again.words == vocabulary.words
    assert again.provenance == vocabulary.provenance
    np.testing.assert_array_equal(again.token_ids, vocabulary.token_ids)
    for name in ("meaning", "appearance"):
        assert again.views[name].kind == vocabulary.views[name].kind
        assert again.codebook(name).tobytes() == vocabulary.codebook(name).tobytes()


@pytest.mark.parametrize("name", ["vocabulary.safetensors", "words.json", "vocabulary.json"])
def test_missing_files(tmp_path, name):
    tiny().save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BundleError, match=name):
        Vocabulary.load(tmp_path)


@pytest.mark.parametrize("name", ["vocabulary.safetensors", "words.json"])
def test_a_flipped_byte_is_noticed(tmp_path, name):
    tiny().save(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BundleError, match="damaged"):
        Vocabulary.load(tmp_path)


def test_other_versions_and_mismatches(tmp_path):
    vocabulary = tiny()
    parts = (vocabulary.tensors(), list(vocabulary.words), vocabulary.header())
    for change, message in [
        ({"format": 2}, "another version"),
        ({"size": 5}, "wanted 5 words"),
        ({"views": {"meaning": "raw"}}, "do not fit"),
        ({"views": []}, "do not fit"),
    ]:
        with pytest.raises(BundleError, match=message):
            Vocabulary.from_parts(parts[0], parts[1], parts[2] | change)
    with pytest.raises(BundleError, match="do not fit"):
        Vocabulary.from_parts(parts[0], parts[1][:-1], parts[2])
    without = {name: array for name, array in parts[0].items() if not name.startswith("views.m")}
    with pytest.raises(BundleError, match="do not fit"):
        Vocabulary.from_parts(without, parts[1], parts[2])


@pytest.mark.parametrize("content", ["", "[]", "{", '{"sha256": 3}', "null"])
def test_bad_headers(tmp_path, content):
    tiny().save(tmp_path)
    (tmp_path / "vocabulary.json").write_text(content)
    with pytest.raises(BundleError):
        Vocabulary.load(tmp_path)


def test_files_that_are_not_what_they_say(tmp_path):
    tiny().save(tmp_path)
    for name in ("vocabulary.safetensors", "words.json"):
        header = json.loads((tmp_path / "vocabulary.json").read_text())
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"nonsense")
        header["sha256"][name] = hashlib.sha256(b"nonsense").hexdigest()
        (tmp_path / "vocabulary.json").write_text(json.dumps(header))
        with pytest.raises(BundleError):
            Vocabulary.load(tmp_path)
        (tmp_path / name).write_bytes(before)


def test_an_interrupted_save_keeps_the_old_vocabulary(tmp_path, monkeypatch):
    tiny().save(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(InputError, match="No space"):
        tiny(provenance={"model": {"name": "other"}}).save(tmp_path)
    monkeypatch.undo()
    assert Vocabulary.load(tmp_path).provenance["model"]["name"] == "tiny"
