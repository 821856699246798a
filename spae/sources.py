"""Many images behind one door: a folder, tar shards, a TFDS directory or parquet files, read by index.

Every source is random access, picklable and safe to read from several threads. Labels and captions are read
without decoding any image.
"""

import glob
import hashlib
import json
import os
import tarfile
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt8

from spae.errors import InputError
from spae.images import open_image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
IMAGE_COLUMNS = ("image", "img", "jpg", "png")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
CAPTION_COLUMNS = ("caption", "captions", "text")
# What `Source.identity` reads of the bytes: this many blocks, spread evenly over all files.
_BLOCKS, _BLOCK_BYTES = 1_024, 1 << 14
_WANTED = "a folder of images, .tar or .parquet files, or a TFDS directory"


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

    @property
    @abstractmethod
    def labels(self) -> list[str | None]:
        """The label of every record, in order."""

    @abstractmethod
    def key(self, index: int) -> str:
        """The key of the record at 0 <= index < len, whether its image can be read or not."""

    @property
    def keys(self) -> list[str]:
        """The key of every record, in order."""
        return [self.key(index) for index in range(len(self))]

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
            digest.update(f"{name}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
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
        sizes = [file.stat().st_size for file in self.files]
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
            with open(self.files[number], "rb") as opened:
                opened.seek(max(place - int(starts[number]), 0))
                read += opened.read(_BLOCK_BYTES - len(read))
            number += 1
        return read


def open_source(path: str | Path, size: int | None = None, split: str | None = None) -> Source:
    """The images at `path`: which kind it is, is seen from what lies there.

    - A folder of .jpg, .jpeg, .png and .webp files, at any depth. The folder directly around a file is its
      label (none for files at the top); `name.txt` beside `name.jpg` is its caption.
    - Tar shards, uncompressed: one .tar, a glob (`train-*.tar`), or a folder with .tar files. Members
      `<label>/<name>.jpg`, as in a folder. Indexed once, then read by offset.
    - Parquet files, in the same three ways: a column `image` (bytes, or Hugging Face's struct of bytes and
      path), and perhaps `label` and `caption`. Needs pyarrow. To read one row its row group is decoded.
    - A TFDS directory (`<name>/<config>/<version>` with dataset_info.json) in array_record format; `split`
      is TFDS's split, by default "train". Needs tensorflow-datasets and array-record, not TensorFlow.

    `size` is the side that the images will be reduced to: large JPEGs are then decoded several times faster.
    Raises InputError: nothing there, no images, an unreadable file.
    """
    if "://" in str(path):
        raise InputError(
            f"wanted files of this machine, got {path}: mount the bucket (gcsfuse, s3fs), or copy it"
        )
    files = _files(path)
    directory = Path(path)
    if split is not None and not (directory / "dataset_info.json").is_file():
        raise InputError(f"a split ({split}) is for a TFDS directory, and {path} is none: leave it out")
    if files and files[0].suffix == ".tar":
        return TarSource(files, size)
    if files and files[0].suffix == ".parquet":
        return ParquetSource(files, size)
    if (directory / "dataset_info.json").is_file():
        return TfdsSource(directory, split or "train", size)
    return FolderSource(directory, size)


def _files(path: str | Path) -> list[Path]:
    """The shards that `path` names; empty for a folder without any."""
    found = Path(path)
    if found.is_dir():
        for pattern in ("*.tar", "*.parquet"):
            if files := sorted(found.glob(pattern)):
                return files
        return []
    files = [found] if found.exists() else [Path(name) for name in sorted(glob.glob(str(path)))]
    if not files:
        raise InputError(f"nothing at {path}: wanted {_WANTED}")
    suffixes = {file.suffix for file in files}
    if len(suffixes) > 1 or suffixes & {".tar", ".parquet"} == set():
        raise InputError(f"{path} is no data set: wanted {_WANTED}")
    return files


def _label(name: str) -> str | None:
    return PurePosixPath(name).parent.name or None


def _is_image(name: str) -> bool:
    file = PurePosixPath(name)
    return file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")


def _rgb_array(array: Any) -> UInt8[np.ndarray, "h w 3"]:
    array = np.asarray(array)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2 and array.dtype == np.uint8:
        array = np.repeat(array[..., None], 3, -1)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise InputError(f"wanted a uint8 image (H, W, 3) or (H, W), got {array.dtype} {array.shape}")
    return array


class FolderSource(Source):
    """A folder of image files; class folders are labels."""

    def __init__(self, folder: Path, size: int | None) -> None:
        names = []
        for directory, _, entries in os.walk(folder):
            relative = Path(directory).relative_to(folder)
            names += [(relative / entry).as_posix() for entry in entries]
        names = sorted(name for name in names if _is_image(name))
        if not names:
            raise InputError(
                f"no images in {folder}: wanted .jpg, .jpeg, .png, .webp, .tar or .parquet files"
            )
        super().__init__([folder / name for name in names], size)
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> list[str | None]:
        return [_label(name) for name in self.names]

    def key(self, index: int) -> str:
        return self.names[index]

    def _read(self, index: int) -> tuple[bytes, str | None, str | None, str]:
        file, name = self.files[index], self.names[index]
        try:
            caption = file.with_suffix(".txt")
            text = caption.read_text("utf-8").strip() if caption.is_file() else None
            return file.read_bytes(), _label(name), text, name
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {file}: {error}") from error


class TarSource(Source):
    """Uncompressed tar shards, indexed once; each record is one read at an offset."""

    def __init__(self, files: list[Path], size: int | None) -> None:
        super().__init__(files, size)
        self._members: list[tuple[int, str, int, int]] = []  # shard, name, offset, bytes
        self._captions: dict[tuple[int, str], tuple[int, int]] = {}  # (shard, stem) -> offset, bytes
        for shard, file in enumerate(files):
            try:
                with tarfile.open(file, "r:") as archive:
                    members = [member for member in archive if member.isreg()]
            except (tarfile.TarError, OSError) as error:
                raise InputError(f"cannot read {file} as an uncompressed tar file: {error}") from error
            for member in members:
                name, place = member.name.removeprefix("./"), (member.offset_data, member.size)
                if _is_image(name):
                    self._members.append((shard, name, *place))
                elif name.endswith(".txt"):
                    self._captions[shard, name.removesuffix(".txt")] = place
        if not self._members:
            raise InputError(
                f"no images in {files[0]}: wanted members <label>/<name>.jpg (.jpeg, .png, .webp)"
            )
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._members)

    @property
    def labels(self) -> list[str | None]:
        return [_label(name) for _, name, _, _ in self._members]

    def key(self, index: int) -> str:
        shard, name, _, _ = self._members[index]
        return f"{self.files[shard].name}/{name}"

    def _read(self, index: int) -> tuple[bytes, str | None, str | None, str]:
        shard, name, offset, length = self._members[index]
        place = self._captions.get((shard, str(PurePosixPath(name).with_suffix(""))))
        caption = self._bytes(shard, *place).decode("utf-8", "replace").strip() if place else None
        return self._bytes(shard, offset, length), _label(name), caption, self.key(index)

    def _bytes(self, shard: int, offset: int, length: int) -> bytes:
        with self._lock:
            if shard not in self._open:
                self._open[shard] = os.open(self.files[shard], os.O_RDONLY)
        # pread carries its own position: threads share the descriptor.
        data = os.pread(self._open[shard], length, offset)
        if len(data) != length:
            raise InputError(f"{self.files[shard]} ends early: it was cut short after it was indexed")
        return data

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    # A default, because the modules may be gone when the interpreter ends.
    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        for descriptor in self.__dict__.get("_open", {}).values():
            close(descriptor)


class ParquetSource(Source):
    """Parquet files with a column of encoded images; a few decoded row groups are kept."""

    GROUPS_KEPT = 4

    def __init__(self, files: list[Path], size: int | None) -> None:
        if find_spec("pyarrow") is None:
            raise InputError(f"reading {files[0]} needs pyarrow: pip install pyarrow")
        super().__init__(files, size)
        import pyarrow
        from pyarrow import parquet

        self._groups: list[tuple[int, int]] = []  # file, row group
        rows = []
        for number, file in enumerate(files):
            try:
                opened = parquet.ParquetFile(file)
            except (pyarrow.ArrowException, OSError) as error:
                raise InputError(f"cannot read {file} as parquet: {error}") from error
            with opened:
                columns = opened.schema_arrow.names
                if number == 0:
                    self._image = _column(columns, IMAGE_COLUMNS)
                    self._label_column = _column(columns, LABEL_COLUMNS)
                    self._caption = _column(columns, CAPTION_COLUMNS)
                    self._class_names = _class_names(opened.schema_arrow.metadata, self._label_column)
                if self._image is None or self._image not in columns:
                    wanted = " or ".join(IMAGE_COLUMNS)
                    raise InputError(f"{file} has no column {wanted}, but {', '.join(columns)}")
                for group in range(opened.num_row_groups):
                    self._groups.append((number, group))
                    rows.append(opened.metadata.row_group(group).num_rows)
        self._ends = np.cumsum(rows)
        if not len(self):
            raise InputError(f"no rows in {files[0]}")
        self._kept: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @cached_property
    def _labels(self) -> list[str | None]:
        from pyarrow import parquet

        if self._label_column is None:
            return [None] * len(self)
        columns = [parquet.read_table(file, columns=[self._label_column]) for file in self.files]
        return [self._label(value) for column in columns for value in column[0].to_pylist()]

    @property
    def labels(self) -> list[str | None]:
        return list(self._labels)

    def key(self, index: int) -> str:
        return f"{self.files[self._groups[self._group(index)][0]].name}/{index}"

    def _group(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, side="right"))

    def _label(self, value: Any) -> str | None:
        if value is None:
            return None
        return _class_name(self._class_names, value) if self._class_names else str(value)

    def _read(self, index: int) -> tuple[bytes, str | None, str | None, str]:
        group = self._group(index)
        start = int(self._ends[group - 1]) if group else 0
        row = self._rows(group)[index - start]
        key = self.key(index)
        image = row[self._image or ""]
        encoded = image.get("bytes") if isinstance(image, dict) else image
        if not isinstance(encoded, bytes):
            found = type(encoded).__name__
            raise InputError(f"{key}: wanted the bytes of an image in column {self._image}, got {found}")
        caption = row[self._caption] if self._caption else None
        if isinstance(caption, list):
            caption = caption[0] if caption else None
        caption = None if caption is None else str(caption)
        return encoded, self._label(row[self._label_column]) if self._label_column else None, caption, key

    def _rows(self, group: int) -> list[dict[str, Any]]:
        import pyarrow
        from pyarrow import parquet

        with self._lock:
            if group not in self._kept:
                number, row_group = self._groups[group]
                columns = [name for name in (self._image, self._label_column, self._caption) if name]
                try:
                    with parquet.ParquetFile(self.files[number]) as opened:
                        rows = opened.read_row_group(row_group, columns=columns).to_pylist()
                except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
                    where = f"row group {row_group} of {self.files[number]}"
                    raise InputError(f"cannot read {where}: {error}") from error
                self._kept[group] = rows
                if len(self._kept) > self.GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


def _column(columns: list[str], wanted: tuple[str, ...]) -> str | None:
    return next((name for name in wanted if name in columns), None)


def _class_name(names: list[str], value: Any) -> str | None:
    """The name of class `value`; None for -1, which Hugging Face and TFDS give to images whose class is not told."""
    if not isinstance(value, int) or not -1 <= value < len(names):
        raise InputError(
            f"wanted the label of an image to be the number of one of {len(names)} classes, got {value!r}"
        )
    return None if value == -1 else names[value]


def _class_names(metadata: dict[bytes, bytes] | None, column: str | None) -> list[str] | None:
    """Hugging Face data sets keep the class names in the schema's metadata."""
    features = json.loads((metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return (features.get(column) or {}).get("names")


class TfdsSource(Source):
    """One split of a TFDS directory in array_record format."""

    def __init__(self, directory: Path, split: str, size: int | None) -> None:
        for module, package in (
            ("tensorflow_datasets", "tensorflow-datasets"),
            ("array_record", "array-record"),
        ):
            if find_spec(module) is None:
                raise InputError(
                    f"reading the TFDS directory {directory} needs {package}: pip install {package}"
                )
        super().__init__(sorted(file for file in directory.iterdir() if file.is_file()), size)
        self.directory, self.part = directory, split
        names = list(self._data.dataset_info.features)
        self._image = _column(names, IMAGE_COLUMNS)
        if self._image is None:
            raise InputError(
                f"{directory} has no feature {' or '.join(IMAGE_COLUMNS)}, but {', '.join(names)}"
            )
        self._label_feature, self._caption = _column(names, LABEL_COLUMNS), _column(names, CAPTION_COLUMNS)

    @cached_property
    def _data(self) -> Any:
        import tensorflow_datasets as tfds

        try:
            builder = tfds.builder_from_directory(self.directory)
            image = _column(list(builder.info.features), IMAGE_COLUMNS)
            # Undecoded bytes go through the same guards as every other image.
            encoded = image is not None and isinstance(builder.info.features[image], tfds.features.Image)
            decoders = {image: tfds.decode.SkipDecoding()} if encoded else None
            return builder.as_data_source(split=self.part, decoders=decoders)
        except (ValueError, KeyError, OSError, NotImplementedError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            where = f"split {self.part} of the TFDS directory {self.directory}"
            raise InputError(f"cannot read {where}: {reason}") from error

    def __len__(self) -> int:
        return len(self._data)

    @cached_property
    def _labels(self) -> list[str | None]:
        return [self._label(self._data[index]) for index in range(len(self))]

    @property
    def labels(self) -> list[str | None]:
        return list(self._labels)

    def key(self, index: int) -> str:
        return f"{self.part}/{index}"

    def _label(self, example: dict[str, Any]) -> str | None:
        if self._label_feature is None:
            return None
        value, feature = example[self._label_feature], self._data.dataset_info.features[self._label_feature]
        if names := getattr(feature, "names", None):
            return _class_name(names, int(value))
        return value.decode() if isinstance(value, bytes) else str(value)

    def _read(self, index: int) -> tuple[Any, str | None, str | None, str]:
        example = self._data[index]
        caption = example[self._caption] if self._caption else None
        caption = caption.decode("utf-8", "replace") if isinstance(caption, bytes) else caption
        return example[self._image], self._label(example), caption, self.key(index)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_data"}
