"""Shards of images in tar files."""

import logging
import os
import tarfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from spae.errors import InputError
from spae.files import unreadable
from spae.sources.fields import EXTENSIONS, FIELDS, caption_of, is_hidden, is_image, keys_of, label_of
from spae.sources.source import Source

LOG = logging.getLogger("spae.sources")


class TarSource(Source):
    """Uncompressed tar shards, indexed once; each record is one read at an offset."""

    def __init__(self, files: list[Path], size: int | None) -> None:
        super().__init__(files, size)
        if len(set(self.names)) < len(self.names):
            # Keys are to be unique: shards of one name lie in several folders.
            common = os.path.commonpath([file.absolute() for file in files])
            self.names = [os.path.relpath(file.absolute(), common) for file in files]
        self._members: list[tuple[int, str, int, int]] = []  # shard, name, offset, bytes
        self._fields: dict[tuple[int, str], tuple[int, int]] = {}  # (shard, name) -> offset, bytes
        unread: set[str] = set()
        for shard, file in enumerate(files):
            try:
                with tarfile.open(file, "r:") as archive:
                    # The last of one name counts, as when tar extracts them.
                    members = {m.name.removeprefix("./"): _content(m, archive) for m in archive}
            except (tarfile.TarError, OSError) as error:
                raise InputError(f"cannot read {file} as an uncompressed tar file: {error}") from error
            for name, member in members.items():
                if member is None:
                    continue
                place = (member.offset_data, member.size)
                if is_image(name):
                    self._members.append((shard, name, *place))
                elif name.rpartition(".")[2] in FIELDS:
                    self._fields[shard, name] = place
            unread |= _unread(name for name, member in members.items() if member)
        if not self._members:
            wanted = ", ".join(EXTENSIONS[1:])
            raise InputError(f"no images in {files[0]}: wanted members <label>/<name>.jpg ({wanted})")
        if unread:
            LOG.warning(
                f"{files[0]}: of what stands beside the images, {', '.join(sorted(unread))} is not read"
            )
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._members)

    def label(self, index: int) -> str | None:
        return label_of(self._members[index][1], lambda field: self._field(index, field))

    def key(self, index: int) -> str:
        shard, name, _, _ = self._members[index]
        return f"{self.names[shard]}/{name}"

    def _read(self, index: int) -> tuple[bytes, str | None, str | None, str]:
        shard, _, offset, length = self._members[index]
        caption = caption_of(lambda field: self._field(index, field))
        return self._bytes(shard, offset, length), self.label(index), caption, self.key(index)

    def _field(self, index: int, field: str) -> bytes | None:
        shard, name, _, _ = self._members[index]
        places = (self._fields.get((shard, f"{key}.{field}")) for key in keys_of(name))
        return next((self._bytes(shard, *place) for place in places if place), None)

    def _bytes(self, shard: int, offset: int, length: int) -> bytes:
        try:
            with self._lock:
                if shard not in self._open:
                    self._open[shard] = os.open(self.files[shard], os.O_RDONLY)
            # pread carries its own position: threads share the descriptor.
            data = os.pread(self._open[shard], length, offset)
        except OSError as error:
            raise unreadable(self.files[shard], error) from error
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


def _content(member: tarfile.TarInfo, archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Where the bytes of a member are: of a hard link, which tar writes for a further name of one file, at that file's
    place; None for what is no file."""
    if member.islnk():
        try:
            member = archive.getmember(member.linkname)
        except KeyError as error:
            raise tarfile.TarError(
                f"{member.name} is a link to {member.linkname}, which is not in it"
            ) from error
    return member if member.isreg() else None


def _unread(members: Iterable[str]) -> set[str]:
    """The fields that stand beside images and that nothing here reads, such as ".npy"."""
    there = list(members)
    keys = {key for name in there if is_image(name) for key in keys_of(name)}
    others = (
        name
        for name in there
        if not is_image(name) and not is_hidden(name) and keys.intersection(keys_of(name))
    )
    return {suffix for name in others if (suffix := PurePosixPath(name).suffix)[1:] not in FIELDS and suffix}
