"""A language model's tokenizer from its file, and what identifies it; weights are not read."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spae.errors import InputError
from spae.frozen_lm.gguf_file import read_gguf
from spae.frozen_lm.tokenizer import HuggingFaceTokenizer, TextTokenizer, TiktokenTokenizer
from spae.weights.hub import HUB, download_hint, locate

_SUFFIXES = (".gguf", ".json", ".tiktoken")


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer and where it came from.

    `provenance`: kind (gguf, tokenizer.json, tiktoken), name, sha256 of what was read of it (of a GGUF file: all that
    is in front of the tensors; of a tiktoken encoding: the contents of its .tiktoken file), tokens (their number).
    """

    tokenizer: TextTokenizer
    provenance: dict[str, Any]


def read_tokenizer(source: str | Path) -> TokenizerFile:
    """Reads a tokenizer.

    `source`: a .gguf file; a tokenizer.json or the folder that holds it; a .tiktoken file; the name of a tiktoken
    encoding, which tiktoken takes from TIKTOKEN_CACHE_DIR or downloads; or hf:ORG/REPO, whose tokenizer.json is fetched
    and nothing else, or hf:ORG/REPO/FILE.

    Raises:
        InputError: something is missing or unreadable.
    """
    if str(source).startswith(HUB):
        return _of_hub(str(source))
    path = Path(source)
    if path.is_dir():
        return _read_json(path / "tokenizer.json")
    if path.is_file() and path.suffix == ".json":
        return _read_json(path)
    if path.is_file() and path.suffix != ".tiktoken":
        return _read_gguf(path)
    if not path.is_file() and (len(path.parts) != 1 or path.suffix in _SUFFIXES):
        raise InputError(
            f"tokenizer: there is no {str(source)!r}; wanted a .gguf file, a tokenizer.json or the folder that holds "
            f"it, a .tiktoken file, or the name of a tiktoken encoding{download_hint(source)}"
        )
    encoding = TiktokenTokenizer(str(source))
    return TokenizerFile(encoding, _provenance("tiktoken", encoding.name, encoding.ranks(), encoding))


def _of_hub(name: str) -> TokenizerFile:
    found = locate(name if name.count("/") > 1 else f"{name}/tokenizer.json")
    file = read_tokenizer(found.path)
    repository = name.removeprefix(HUB).split("/")[1]
    # The cache's folders are named by revisions.
    named = {"name": repository} if found.path.name == "tokenizer.json" else {}
    return TokenizerFile(file.tokenizer, file.provenance | named | found.provenance())


def _read_json(path: Path) -> TokenizerFile:
    tokenizer = HuggingFaceTokenizer.from_file(path)
    name = path.resolve().parent.name if path.name == "tokenizer.json" else path.stem
    return TokenizerFile(tokenizer, _provenance("tokenizer.json", name, path.read_bytes(), tokenizer))


def _read_gguf(path: Path) -> TokenizerFile:
    file = read_gguf(path)
    tokenizer = HuggingFaceTokenizer.from_gguf(file.metadata)
    name = file.metadata.get("general.name", path.stem)
    return TokenizerFile(tokenizer, _provenance("gguf", name, bytes(file.header), tokenizer))


def _provenance(kind: str, name: str, data: bytes, tokenizer: TextTokenizer) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "tokens": tokenizer.size,
    }
