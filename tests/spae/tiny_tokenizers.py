"""Byte-level BPE tokenizers that know a few words, in the three kinds of files they come in."""

from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


def pieces(words: Iterable[str]) -> list[str]:
    """The beginnings of the words, each behind a space: "Ġd", "Ġdo", "Ġdog", .."""
    return list(dict.fromkeys("Ġ" + word[:end] for word in words for end in range(1, len(word) + 1)))


def write_json(path: Path, words: Iterable[str]) -> Path:
    """A tokenizer.json; the ids of its letters come first."""
    grown = pieces(words)
    tokens = {token: i for i, token in enumerate([*LETTERS, *grown])}
    tokenizer = Tokenizer(models.BPE(tokens, [(piece[:-1], piece[-1]) for piece in grown]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))
    return path


def write_gguf(path: Path, words: Iterable[str], weight: float = 0.0) -> Path:
    grown = pieces(words)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*LETTERS, *grown])
    writer.add_token_merges([f"{piece[:-1]} {piece[-1]}" for piece in grown])
    writer.add_tensor("token_embd.weight", np.full((len(LETTERS) + len(grown), 32), weight, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tiktoken(path: Path, words: Iterable[str]) -> Path:
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [piece.replace("Ġ", " ").encode() for piece in pieces(words)]
    path.write_bytes(b"".join(b"%s %d\n" % (b64encode(token), i) for i, token in enumerate(tokens)))
    return path
