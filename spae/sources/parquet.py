"""Parquet files with a column of encoded images."""

import contextlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from spae.errors import InputError
from spae.sources.columns import CAPTION_COLUMNS, IMAGE_COLUMNS, LABEL_COLUMNS, class_name, column_of
from spae.sources.source import Source


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
                    self._class_names = _class_names(opened.schema_arrow.metadata, self._label_column)
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
    def _labels(self) -> list[str | None]:
        from pyarrow import parquet

        if self._label_column is None:
            return [None] * len(self)
        labels: list[str | None] = []
        for file in self.files:
            with _readable(f"the labels of {file}"):
                values = parquet.read_table(file, columns=[self._label_column])[0].to_pylist()
            labels += [self._label(value) for value in values]
        return labels

    def label(self, index: int) -> str | None:
        return self._labels[index]

    def key(self, index: int) -> str:
        return f"{self.files[self._groups[self._group(index)][0]].name}/{index}"

    def _group(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, side="right"))

    def _label(self, value: Any) -> str | None:
        if value is None:
            return None
        return class_name(self._class_names, value) if self._class_names else str(value)

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


def _class_names(metadata: dict[bytes, bytes] | None, column: str | None) -> list[str] | None:
    """Hugging Face data sets keep the class names in the schema's metadata."""
    features = json.loads((metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    feature = features.get(column)
    return feature.get("names") if isinstance(feature, dict) else None  # a list where an image has several
