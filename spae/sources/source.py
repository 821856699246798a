"""What every source of images is: `Source`, and the `Record` that it gives for an index."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from spae.errors import InputError
from spae.files import file_size
from spae.images import open_image

# What `Source.identity` reads of the bytes: this many blocks, spread evenly over all files.
_BLOCKS, _BLOCK_BYTES = 1_024, 1 << 14


@dataclass(frozen=True, eq=False)
class Record:
    """One image with what is known of it."""

    image: UInt8[np.ndarray, "h w 3"]
    label: str | None
    caption: str | None
    key: str  # unique within the source


class Source(ABC):
    """Images by index: `len(source)`, `source[i]`; bad images raise InputError naming the file."""

    part = ""  # which part of the files is read, where it is not all of them

    def __init__(self, files: list[Path], size: int | None) -> None:
        self.files = files
        self.names = [file.name for file in files]
        self.size = size

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def key(self, index: int) -> str:
        """The key of the record at 0 <= index < len, whether its image can be read or not."""

    @property
    def keys(self) -> list[str]:
        """The key of every record, in order."""
        return [self.key(index) for index in range(len(self))]

    def label(self, index: int) -> str | None:
        """The label of a record; its image is not decoded."""
        return self._read(range(len(self))[index])[1]

    @property
    def labels(self) -> list[str | None]:
        """The label of every record, in order."""
        return [self.label(index) for index in range(len(self))]

    def caption(self, index: int) -> str | None:
        """The caption of a record; its image is not decoded."""
        return self._read(range(len(self))[index])[2]

    @abstractmethod
    def _read(self, index: int) -> tuple[Any, str | None, str | None, str]:
        """(encoded bytes or a uint8 array, label, caption, key) of the record at 0 <= index < len."""

    def __getitem__(self, index: int) -> Record:
        encoded, label, caption, key = self._read(range(len(self))[index])
        try:
            if isinstance(encoded, bytes):
                image = np.array(open_image(encoded, self.size))
            else:
                image = _rgb_array(encoded)
        except InputError as error:
            raise InputError(f"{key}: {error}") from error
        return Record(image, label, caption, key)

    def draw(self, index: int, generator: np.random.Generator) -> Record:
        """The record as training reads it: `self[index]`, but of films a clip from a place that `generator` draws."""
        return self[index]

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the names, sizes and bytes of all files, in hexadecimal; reads every file once."""
        digest = hashlib.sha256(self.part.encode())
        for file, name in zip(self.files, self.names, strict=True):
            size = file_size(file)
            digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
            if not size:
                continue
            with open(file, "rb") as opened:
                while block := opened.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    @cached_property
    def identity(self) -> str:
        """sha256 over the names and sizes of all files and 16 MB of their bytes, in hexadecimal: what a training run
        and what is computed once for its images are known by.

        It costs a look at every file and a thousand short reads, where `fingerprint` would read ImageNet's 150 GB. Up
        to 16 MB it covers every byte. Above, it changes with every file that is added, removed, renamed or of another
        length, and whenever a whole data set is made anew (other pixels, quality or encoder), because then every block
        differs. What it can miss is the exchange of single images for others of exactly the same length under the
        same names: whoever does that gives the data another name, or deletes what was computed from it. Dates do not
        count, so a copy is the same data set.
        """
        digest = hashlib.sha256(self.part.encode())
        sizes = [file_size(file) for file in self.files]
        for name, size in zip(self.names, sizes, strict=True):
            digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
        starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        total = int(starts[-1])
        blocks = min(_BLOCKS, -(-total // _BLOCK_BYTES))
        for place in np.linspace(0, max(total - _BLOCK_BYTES, 0), blocks).astype(np.int64):
            digest.update(self._bytes_from(int(place), starts))
        return digest.hexdigest()

    def _bytes_from(self, place: int, starts: np.ndarray) -> bytes:
        """_BLOCK_BYTES of all files laid end to end, file i from starts[i] on."""
        read = b""
        number = int(np.searchsorted(starts, place, side="right")) - 1
        while len(read) < _BLOCK_BYTES and number < len(self.files):
            if starts[number] < starts[number + 1]:
                with open(self.files[number], "rb") as opened:
                    opened.seek(max(place - int(starts[number]), 0))
                    read += opened.read(_BLOCK_BYTES - len(read))
            number += 1
        return read


def _rgb_array(array: Any) -> UInt8[np.ndarray, "h w 3"]:
    array = np.asarray(array)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2 and array.dtype == np.uint8:
        array = np.repeat(array[..., None], 3, -1)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise InputError(f"wanted a uint8 image (H, W, 3) or (H, W), got {array.dtype} {array.shape}")
    return array
