"""Tensors of a PyTorch file, read without PyTorch and without executing anything.

A `.pth` file is a pickle, and a pickle is a program. Here the only names it may speak are an ordered
dictionary, the kinds of storage, and the functions that rebuild a tensor or a parameter, all but the first
replaced by inert markers of our own. Both layouts are read: the zip archive of PyTorch 1.6 and later, and the
older stream of pickles. By hand, because `torch` is no dependency of this project.
"""

import io
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from spae.errors import InputError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: np.dtype


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype
    size: int  # in elements


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int  # in elements, like the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _RebuildTensor:
    """Stands for torch._utils._rebuild_tensor_v2 and, in files older than PyTorch 0.4, _rebuild_tensor.

    Without `__dict__`: a pickle can leave nothing on it.
    """

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise pickle.UnpicklingError("a tensor without a storage")
        numbers = (offset, *shape, *strides)
        if any(type(n) is not int or n < 0 for n in numbers) or len(shape) != len(strides):
            raise pickle.UnpicklingError("a tensor whose shape, strides or offset are not whole numbers >= 0")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _RebuildParameter:
    """Stands for torch._utils._rebuild_parameter: a parameter is its tensor."""

    __slots__ = ()

    def __call__(self, tensor: Any, *_: Any) -> Any:
        return tensor


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return _RebuildTensor()
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _RebuildParameter()
        if module == "torch" and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no file of plain tensors needs")

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype), str(key), str(), int(size), *rest) if size >= 0:
                if rest not in ([], [None]):
                    raise pickle.UnpicklingError(
                        "it holds views of storages, which this reader does not know"
                    )
                return _Storage(key, dtype, size)
        raise pickle.UnpicklingError("it refers to something other than a storage")


def read_torch_file(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a `.pth` / `.pt` file that holds one flat mapping of names to tensors.

    Returns name -> array in the file's own dtype and shape, row-major, writable copies.

    Raises:
        InputError: the file is missing, truncated, not a PyTorch file, names anything beyond plain tensors
            (it is then refused before anything runs), or is not a flat mapping of names to tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a PyTorch file at {path}, found none: check the path")
    try:
        with path.open("rb") as file:
            mapping, buffers = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
        return {name: _to_array(name, tensor, buffers) for name, tensor in _items(mapping)}
    except InputError:
        raise
    # Damaged pickles fail in many ways (EOFError, KeyError, TypeError, ...); all mean the same to a caller.
    except Exception as error:
        raise InputError(
            f"expected a PyTorch file of plain tensors, {path} is not one ({error}): "
            "download it again, or convert it to safetensors where it was made"
        ) from error


def _items(mapping: Any) -> list[tuple[str, _Tensor]]:
    if not isinstance(mapping, dict):
        raise InputError(
            f"expected a mapping of names to tensors, got {type(mapping).__name__}: save a state dict"
        )
    for name, tensor in mapping.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise InputError(
                f"expected a tensor at {name!r}, got {type(tensor).__name__}: save only the state dict"
            )
    return list(mapping.items())


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError(
                f"expected one data.pkl in the archive, found {len(pickles)}: is it a PyTorch file?"
            )
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise InputError(
                "expected little-endian tensors, got big-endian: save it again on a common machine"
            )
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise InputError(
                "expected uncompressed tensors, as PyTorch writes them: this archive was packed by others"
            )
        mapping = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
        prefix = f"{folder}data/"
        # Sizes are checked against the tensors afterwards; zipfile itself checks each member's CRC.
        return mapping, {n.removeprefix(prefix): archive.read(n) for n in names if n.startswith(prefix)}


def _read_legacy(file: BinaryIO) -> tuple[Any, dict[str, bytes]]:
    file.seek(0)
    if _Unpickler(file).load() != _LEGACY_MAGIC or _Unpickler(file).load() != _LEGACY_PROTOCOL:
        raise InputError("expected a PyTorch file, its first bytes say otherwise")
    system = _Unpickler(file).load()
    if not system["little_endian"]:
        raise InputError("expected little-endian tensors, got big-endian: save it again on a common machine")
    unpickler = _Unpickler(file)
    mapping = unpickler.load()
    item_sizes = {tensor.storage.key: tensor.storage.dtype.itemsize for _, tensor in _items(mapping)}
    buffers = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        buffers[key] = file.read(count * item_sizes[key])
    return mapping, buffers


def _to_array(name: str, tensor: _Tensor, buffers: dict[str, bytes]) -> np.ndarray:
    storage = tensor.storage
    flat = np.frombuffer(buffers[storage.key], storage.dtype)
    if flat.size != storage.size:
        raise InputError(
            f"expected {storage.size} numbers for {name!r}, the file has {flat.size}: it is cut short"
        )
    count = math.prod(tensor.shape)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    # The first test also refuses tensors expanded with stride 0, which could ask for any amount of memory.
    if count > storage.size or (count and last >= storage.size):
        raise InputError(
            f"expected tensor {name!r} to lie inside its storage of {storage.size} numbers, it does not"
        )
    if not count:
        return np.zeros(tensor.shape, storage.dtype)
    item = storage.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(
        flat[tensor.offset :], tensor.shape, [s * item for s in tensor.strides]
    )
    return view.copy(order="C")
