"""Shards of images in tar files."""

import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from spae.errors import InputError
from spae.sources.folder import is_image, label_of
from spae.sources.source import Source


class TarSource(Source):
    """Uncompressed tar shards, indexed once; each record is one read at an offset."""

    def __init__(self, files: list[Path], size: int | None) -> None:
        super().__init__(files, size)
        self._members: list[tuple[int, str, int, int]] = []  # shard, name, offset, bytes
        self._captions: dict[tuple[int, str], tuple[int, int]] = {}  # (shard, stem) -> offset, bytes
        for shard, file in enumerate(files):
            try:
                with tarfile.open(file, "r:") as archive:
                    # The last of one name counts, as when tar extracts them.
                    members = {m.name.removeprefix("./"): m for m in archive if m.isreg()}
            except (tarfile.TarError, OSError) as error:
                raise InputError(f"cannot read {file} as an uncompressed tar file: {error}") from error
            for name, member in members.items():
                place = (member.offset_data, member.size)
                if is_image(name):
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

    def label(self, index: int) -> str | None:
        return label_of(self._members[index][1])

    def key(self, index: int) -> str:
        shard, name, _, _ = self._members[index]
        return f"{self.files[shard].name}/{name}"

    def _read(self, index: int) -> tuple[bytes, str | None, str | None, str]:
        shard, name, offset, length = self._members[index]
        place = self._captions.get((shard, str(PurePosixPath(name).with_suffix(""))))
        caption = self._bytes(shard, *place).decode("utf-8", "replace").strip() if place else None
        return self._bytes(shard, offset, length), label_of(name), caption, self.key(index)

    def _bytes(self, shard: int, offset: int, length: int) -> bytes:
        try:
            with self._lock:
                if shard not in self._open:
                    self._open[shard] = os.open(self.files[shard], os.O_RDONLY)
            # pread carries its own position: threads share the descriptor.
            data = os.pread(self._open[shard], length, offset)
        except OSError as error:
            raise InputError(f"cannot read {self.files[shard]}: {error.strerror or error}") from error
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
