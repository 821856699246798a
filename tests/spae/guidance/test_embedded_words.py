"""Vocabularies whose words have a guidance's vectors."""

import re

import numpy as np
import pytest

from spae.cli import main
from spae.errors import InputError
from spae.guidance.choice import load_guidance
from spae.guidance.meaning_view import check_embedded, embedded
from spae.vocabulary import View, Vocabulary


class LetterGuidance:
    """The counts of some letters, over two templates; the means over them are not of length 1."""

    name = "letters"
    templates = ("{} a", "c {}")
    image_size = 8
    width = 4
    fingerprint = "letters 1"

    def images(self, images_bhwc):
        raise AssertionError("vectors of words need no images")

    def regions(self, images_bhwc, sides, way="map"):
        raise AssertionError("vectors of words need no images")

    def texts(self, texts):
        rows = np.array([[text.count(letter) for letter in "abc"] + [1] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def words() -> Vocabulary:
    embeddings = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    views = {"meaning": View.centred(embeddings), "appearance": View.raw()}
    return Vocabulary(
        ("aa", "bb", "cc", "ab", "bc", "ca"),
        np.arange(6) + 9,
        embeddings,
        views,
        {"model": "m", "filters": []},
    )


def test_words_keep_their_ids_and_get_unit_means_over_the_templates(words, tmp_path):
    guidance = LetterGuidance()
    found = embedded(words, guidance, cache=tmp_path)
    assert found.words == words.words
    np.testing.assert_array_equal(found.token_ids, words.token_ids)
    for word, row in zip(found.words, found.embeddings, strict=True):
        mean = guidance.texts([f"{word} a", f"c {word}"]).mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), rtol=1e-6)
    np.testing.assert_array_equal(found.codebook("meaning"), found.embeddings)
    np.testing.assert_array_equal(found.codebook("appearance"), found.embeddings)
    assert found.provenance["model"] == "m"
    check_embedded(found, guidance)


def test_appearance_may_be_whitened(words, tmp_path):
    found = embedded(words, LetterGuidance(), "two", 2, cache=tmp_path)
    assert found.codebook("appearance").shape == (6, 2)
    np.testing.assert_array_equal(found.codebook("meaning"), found.embeddings)


def test_what_does_not_fit_is_refused(words, tmp_path):
    guidance = LetterGuidance()
    with pytest.raises(InputError, match="the views two and raw, not 'centred'"):
        embedded(words, guidance, "centred", cache=tmp_path)
    with pytest.raises(InputError, match="with vectors of the language model"):
        check_embedded(words, guidance)
    other = embedded(words, guidance, cache=tmp_path)
    guidance.fingerprint = "letters 2"
    with pytest.raises(InputError, match="with vectors of letters"):
        check_embedded(other, guidance)
    for name in ("dino", "clip:", "clip-jax", "clip-jax:", "conse:", "conse:x", "clipjax:x", "CLIP:x", ""):
        forms = f'"conse", "clip:PATH" or "clip-jax:NAME_OR_PATH", got {name!r}'
        with pytest.raises(InputError, match=f"^guidance must be {re.escape(forms)}$"):
            load_guidance(name)


def test_through_the_command(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("spae.frozen_lm.build_vocabulary.build", lambda *_, **__: words)
    monkeypatch.setattr("spae.guidance.choice.load_guidance", lambda name: LetterGuidance())
    monkeypatch.setenv("SPAE_CACHE", str(tmp_path / "cache"))
    command = ["vocab", "build", "--embed", "letters", "-o", str(tmp_path / "words"), "--components", "2"]
    assert main(command) == 0
    assert "6 words of 4 dimensions" in capsys.readouterr().out
    assert Vocabulary.load(tmp_path / "words").codebook("appearance").shape == (6, 2)
    assert main([*command, "--view", "centred"]) == 1
    assert "the views two and raw" in capsys.readouterr().err
