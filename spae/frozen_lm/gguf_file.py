"""Reads GGUF files (versions 2 and 3, little-endian): metadata as plain Python, tensors as float32 or as blocks.

The format: github.com/ggml-org/ggml/blob/master/docs/gguf.md. The package `gguf` has a reader too, which makes
arrays of every single string and so takes two seconds for a small vocabulary and ten for a large one; only its
quantised number formats are used here.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from spae.errors import InputError
from spae.frozen_lm.blocks import Blocks
from spae.frozen_lm.gguf_blocks import FORMATS, read_blocks

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# By GGUF's number of a type.
_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor. `shape` is NumPy's order, (out, in); `kind` the name of its number format, such as Q8_0."""

    shape: tuple[int, ...]
    kind: str
    path: Path
    start: int
    end: int

    def float32(self) -> Float[np.ndarray, "..."]:
        """All values, C-contiguous."""
        gguf = _import_gguf()
        kind = gguf.GGMLQuantizationType[self.kind]
        rows = gguf.quants.quant_shape_to_byte_shape(self.shape, kind)
        if kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
            data = self._data().view("<f4" if self.kind == "F32" else "<f2").reshape(self.shape)
        else:
            data = self._data().reshape(rows)
        return np.ascontiguousarray(gguf.dequantize(data, kind), np.float32)

    def weights(self) -> Float[np.ndarray, "..."] | Blocks:
        """A matrix in one of the formats of `gguf_blocks` as it is, anything else as float32."""
        if self.kind in FORMATS and len(self.shape) == 2:
            return read_blocks(self.kind, self._data().reshape(self.shape[0], -1))
        return self.float32()

    def _data(self) -> UInt8[np.ndarray, " bytes"]:
        # Mapped for as long as it is read: pages of a file count as memory of the process while they are.
        return np.memmap(self.path, np.uint8, "r", self.start, (self.end - self.start,))


@dataclass(frozen=True)
class GGUFFile:
    """The metadata by key, numbers and strings and lists of them; the tensors by name; `header`, the bytes in front
    of them, which hold the metadata and the tensors' shapes."""

    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]
    header: UInt8[np.ndarray, " bytes"]


def read_gguf(path: Path) -> GGUFFile:
    """Opens a GGUF file; its tensors stay on disk until they are asked for.

    Raises:
        InputError: it is none, damaged, cut short, or of another version; or the package gguf is missing.
    """
    gguf = _import_gguf()
    if path.stat().st_size < 24:
        raise InputError(f"model: {path} is not a whole GGUF file: only {path.stat().st_size} bytes")
    data = np.memmap(path, np.uint8, "r")
    reader = _Reader(data.data)
    try:
        return _read(reader, path, data, gguf)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, RecursionError, struct.error) as error:
        raise InputError(f"model: {path} is not a whole GGUF file: {error}; copy it again") from error


def _import_gguf() -> ModuleType:
    try:
        import gguf
    except ImportError as error:
        raise InputError("gguf is not installed: pip install 'spae[train]'") from error
    return gguf


class _Reader:
    def __init__(self, data: memoryview):
        self._data = data
        self.at = 0

    def take(self, size: int) -> memoryview:
        part = self._data[self.at : self.at + size]
        if len(part) != size:
            raise ValueError(f"it ends within {size} bytes from byte {self.at} on")
        self.at += size
        return part

    def number(self, form: str) -> int:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def string(self) -> str:
        return str(self.take(self.number("Q")), "utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            kind, count = self.number("I"), self.number("Q")
            if kind in (_STRING, _ARRAY):
                return [self.value(kind) for _ in range(count)]
            return self._numbers(kind, count).tolist()
        return self._numbers(kind, 1)[0].item()

    def _numbers(self, kind: int, count: int) -> np.ndarray:
        if kind not in _SCALARS:
            raise ValueError(f"it has a value of an unknown type, {kind}")
        dtype = np.dtype(_SCALARS[kind])
        return np.frombuffer(self.take(dtype.itemsize * count), dtype)


def _read(reader: _Reader, path: Path, data: UInt8[np.ndarray, " bytes"], gguf: ModuleType) -> GGUFFile:
    if bytes(reader.take(4)) != _MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = reader.number("I")
    if version not in _VERSIONS:
        raise ValueError(f"wanted version 2 or 3; got {version}")
    tensor_count, key_count = reader.number("Q"), reader.number("Q")
    metadata = {}
    for _ in range(key_count):
        key = reader.string()
        metadata[key] = reader.value(reader.number("I"))
    entries = []
    for _ in range(tensor_count):
        name = reader.string()
        # The fastest axis comes first in the file.
        shape = tuple(reader.number("Q") for _ in range(reader.number("I")))[::-1]
        kind = gguf.GGMLQuantizationType(reader.number("I"))
        entries.append((name, shape, kind, reader.number("Q")))
    alignment = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"wanted general.alignment in bytes; got {alignment!r}")
    start = math.ceil(reader.at / alignment) * alignment
    tensors = {}
    for name, shape, kind, offset in entries:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        count = math.prod(shape)
        end = start + offset + count // block * size
        if not count or not shape or shape[-1] % block or end > len(data):
            raise ValueError(f"the tensor {name} {shape} ends behind the file")
        tensors[name] = GGUFTensor(shape, kind.name, path, start + offset, end)
    return GGUFFile(metadata, tensors, data[: reader.at])
