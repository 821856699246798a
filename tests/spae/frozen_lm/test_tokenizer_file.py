"""Tokenizers from their files, and the words that are single tokens of them."""

import hashlib
import json

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import LETTERS, pieces, write_gguf, write_json, write_tiktoken
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from spae.errors import InputError
from spae.frozen_lm.gguf_file import GGUFTensor
from spae.frozen_lm.tokenizer import HuggingFaceTokenizer
from spae.frozen_lm.tokenizer_file import read_tokenizer
from spae.frozen_lm.words import single_tokens

WORDS = ("dog", "green", "house", "tree")


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_kind_reads_the_same_words(tmp_path, monkeypatch):
    monkeypatch.setattr(GGUFTensor, "float32", None)  # weights are not read
    folder = tmp_path / "reader"
    folder.mkdir()
    json_file = write_json(folder / "tokenizer.json", WORDS)
    tiktoken_file = write_tiktoken(tmp_path / "tiny.tiktoken", WORDS)
    gguf_file = write_gguf(tmp_path / "m.gguf", WORDS)
    found = [read_tokenizer(source) for source in (folder, json_file, str(tiktoken_file), gguf_file)]
    tokens = len(LETTERS) + len(pieces(WORDS))
    assert [file.provenance["tokens"] for file in found] == [tokens] * 4
    kinds = ("tokenizer.json", "tokenizer.json", "tiktoken", "gguf")
    assert tuple(file.provenance["kind"] for file in found) == kinds
    assert [file.provenance["name"] for file in found] == ["reader", "reader", "tiny", "tiny"]
    for file, path in zip(found, (json_file, json_file, tiktoken_file), strict=False):
        assert file.provenance["sha256"] == sha256(path)
    assert str(tmp_path) not in json.dumps([file.provenance for file in found])
    for file in found:
        singles = single_tokens(file.tokenizer, ["house", "cat", "dogs", "dog", "gre", "Dog", "two words"])
        assert list(singles) == ["house", "dog", "gre"]
        assert file.tokenizer.encode(" dog house") == [singles["dog"], singles["house"]]


def test_a_gguf_file_is_known_by_its_header(tmp_path):
    first = read_tokenizer(write_gguf(tmp_path / "a.gguf", WORDS)).provenance
    assert read_tokenizer(write_gguf(tmp_path / "b.gguf", WORDS, weight=1.0)).provenance == first
    assert read_tokenizer(write_gguf(tmp_path / "c.gguf", WORDS[:3])).provenance["sha256"] != first["sha256"]


def test_an_encoding_by_name_is_known_by_its_file(tmp_path, monkeypatch):
    path = write_tiktoken(tmp_path / "tiny.tiktoken", WORDS)
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {piece.replace("Ġ", " ").encode(): 256 + i for i, piece in enumerate(pieces(WORDS))}
    encoding = tiktoken.Encoding(
        "tiny", pat_str=r" ?\p{L}+|\s+|[^\s\p{L}]+", mergeable_ranks=ranks, special_tokens={"<end>": 300}
    )
    monkeypatch.setattr(tiktoken, "list_encoding_names", lambda: ["tiny"])
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: encoding)
    provenance = read_tokenizer("tiny").provenance
    assert provenance == {"kind": "tiktoken", "name": "tiny", "sha256": sha256(path), "tokens": 301}


@settings(max_examples=30)
@given(st.sets(st.text("abc", min_size=1, max_size=4)), st.sets(st.text("abc", min_size=1, max_size=4)))
def test_single_tokens(tmp_path_factory, known, others):
    path = write_tiktoken(tmp_path_factory.mktemp("t") / "t.tiktoken", sorted(known))
    beginnings = {word[:end] for word in known for end in range(1, len(word) + 1)}
    found = single_tokens(read_tokenizer(path).tokenizer, sorted(known | others))
    assert set(found) == (known | others) & beginnings
    assert len(set(found.values())) == len(found)


def test_the_unknown_token_is_no_word():
    tokenizer = Tokenizer(models.WordLevel({"Words": 0, ":": 1, "dog": 2, "[UNK]": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    assert single_tokens(HuggingFaceTokenizer(tokenizer), ["dog", "cat"]) == {"dog": 2}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/model", "wanted a .gguf file"),
        ("nowhere.gguf", "wanted a .gguf file"),
        ("nowhere.tiktoken", "wanted a .gguf file"),
        ("c100k", "no tiktoken encoding 'c100k'.*cl100k_base"),
    ],
)
def test_there_is_no_such_tokenizer(source, message):
    with pytest.raises(InputError, match=message):
        read_tokenizer(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"!" + data, "not a .tiktoken file"),
        (lambda data: data + b"YWI=\n", "not a .tiktoken file"),
        (lambda data: data + b"YWI= 7\n", "not a whole .tiktoken file"),
        (lambda data: data.split(b"\n", 1)[1], "not a whole .tiktoken file"),
        (lambda data: b"", "not a whole .tiktoken file"),
    ],
)
def test_damaged_tiktoken_files(tmp_path, change, message):
    path = write_tiktoken(tmp_path / "t.tiktoken", WORDS)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        read_tokenizer(path)


def test_a_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.json; there is none"):
        read_tokenizer(tmp_path)
