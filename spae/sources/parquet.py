"""Parquet files with a column of encoded images."""

import contextlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from spae.errors import InputError
from spae.sources.columns import CAPTION_COLUMNS, IMAGE_COLUMNS, LABEL_COLUMNS, column_of, label_among
from spae.sources.fields import class_name
from spae.sources.source import Source

LOG = logging.getLogger("spae.sources")


class ParquetSource(Source):
    """Parquet files with a column of encoded images; a few decoded row groups are kept."""

    GROUPS_KEPT = 4

    def __init__(self, files: list[Path], size: int | None) -> None:
        if find_spec("pyarrow") is None:
            raise InputError(f"reading {files[0]} needs pyarrow: pip install pyarrow")
        super().__init__(files, size)
        from pyarrow import parquet

        self._groups: list[tuple[int, int]] = []  # file, row group
        rows = []
        for number, file in enumerate(files):
            with _readable(f"{file} as parquet"):
                opened = parquet.ParquetFile(file)
            with opened:
                columns = opened.schema_arrow.names
                if number == 0:
                    self._image = column_of(columns, IMAGE_COLUMNS)
                    self._label_column = column_of(columns, LABEL_COLUMNS)
                    self._caption = column_of(columns, CAPTION_COLUMNS)
                    self._class_names = _class_names(file, opened.schema_arrow.metadata, self._label_column)
                if self._image is None or self._image not in columns:
                    wanted = " or ".join(IMAGE_COLUMNS)
                    raise InputError(f"{file} has no column {wanted}, but {', '.join(columns)}")
                if missing := [name for name in self._columns if name not in columns]:
                    raise InputError(f"{file} has no column {missing[0]}, which {files[0]} has")
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

    @property
    def _columns(self) -> list[str]:
        return [name for name in (self._image, self._label_column, self._caption) if name]

    @cached_property
    def _values(self) -> list[Any]:
        """The label column."""
        from pyarrow import parquet

        values: list[Any] = []
        for file in self.files:
            with _readable(f"the labels of {file}"):
                values += parquet.read_table(file, columns=[self._label_column])[0].to_pylist()
        return values

    def label(self, index: int) -> str | None:
        return self._label(index, self._values[index]) if self._label_column else None

    def key(self, index: int) -> str:
        return f"{self.files[self._groups[self._group(index)][0]].name}/{index}"

    def _group(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, side="right"))

    def _label(self, index: int, value: Any) -> str | None:
        if value is None or value != value:  # NaN, as pandas writes what is missing
            return None
        try:
            label = label_among(self._class_names, value) if self._class_names else _text(value)
        except InputError as error:
            raise InputError(f"{self.key(index)}: {error}") from error
        return label and class_name(label)

    def _read(self, index: int) -> tuple[bytes, str | None, str | None, str]:
        group = self._group(index)
        start = int(self._ends[group - 1]) if group else 0
        row = self._rows(group)[index - start]
        image = row[self._image or ""]
        encoded = image.get("bytes") if isinstance(image, dict) else image
        if not isinstance(encoded, bytes):
            raise InputError(f"{self.key(index)}: {self._without_bytes(image)}")
        caption = row[self._caption] if self._caption else None
        if isinstance(caption, list):
            caption = caption[0] if caption else None
        caption = None if caption is None or caption != caption else _text(caption)
        label = self._label(index, row[self._label_column]) if self._label_column else None
        return encoded, label, caption, self.key(index)

    def _without_bytes(self, image: Any) -> str:
        if isinstance(image, dict) and image.get("path"):
            return (
                f"wanted the bytes of an image in column {self._image}, got only the path {image['path']!r}: embed "
                "the images before writing, or give their folder"
            )
        found = "nothing" if image is None or isinstance(image, dict) else type(image).__name__
        return f"wanted the bytes of an image in column {self._image}, got {found}"

    def _rows(self, group: int) -> list[dict[str, Any]]:
        from pyarrow import parquet

        with self._lock:
            if group not in self._kept:
                number, row_group = self._groups[group]
                file = self.files[number]
                with _readable(f"row group {row_group} of {file}"), parquet.ParquetFile(file) as opened:
                    rows = opened.read_row_group(row_group, columns=self._columns).to_pylist()
                self._kept[group] = rows
                if len(self._kept) > self.GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


@contextlib.contextmanager
def _readable(what: str) -> Iterator[None]:
    """Around what pyarrow reads: its errors are one line."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"cannot read {what}: {reason}") from error


def _class_names(file: Path, metadata: dict[bytes, bytes] | None, column: str | None) -> list[str] | None:
    """Hugging Face data sets keep the class names in the schema's metadata; labels are numbers without them."""
    try:
        found = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        feature = found.get("info", {}).get("features", {}).get(column)
        # Of a feature that is a list, an image has several classes.
        names = feature.get("names") if isinstance(feature, dict) else None
        if names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            return names
        reason = "are no list of texts"
    except (ValueError, RecursionError):
        reason = "are not in JSON"
    except AttributeError:
        reason = "are not where they should be"
    LOG.warning(f"{file}: the names of classes in its metadata {reason}, so labels are as in the column")
    return None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
