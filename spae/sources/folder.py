"""A folder of image files, and what the names of files say: which are images, and of which class."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from spae.errors import InputError
from spae.files import unreadable
from spae.sources.fields import EXTENSIONS, FIELDS, caption_of, is_image, keys_of, label_of
from spae.sources.source import Source


class FolderSource(Source):
    """A folder of image files; class folders are labels."""

    def __init__(self, folder: Path, size: int | None) -> None:
        names, fields = [], []
        for directory, _, entries in walk(folder):
            relative = Path(directory).relative_to(folder)
            for entry in entries:
                if is_image(entry):
                    names.append((relative / entry).as_posix())
                elif PurePosixPath(entry).suffix.removeprefix(".") in FIELDS:
                    fields.append((relative / entry).as_posix())
        names.sort()
        if not names:
            wanted = ", ".join(EXTENSIONS)
            raise InputError(f"no images in {folder}: wanted {wanted}, .tar or .parquet files")
        super().__init__([folder / name for name in names], size)
        self.names = names
        self.folder = folder
        self._fields = sorted(fields)
        self._kinds = {PurePosixPath(name).suffix.removeprefix(".") for name in fields}

    @cached_property
    def identity(self) -> str:
        """That of the images, and of every byte of what the files beside them say."""
        if not self._fields:
            return super().identity
        digest = hashlib.sha256(super().identity.encode())
        for name in self._fields:
            said = _read_bytes(self.folder / name)
            digest.update(f"{name}\0{len(said)}\0".encode(errors="surrogateescape") + said)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def label(self, index: int) -> str | None:
        return label_of(self.names[index], lambda field: self._field(index, field))

    def key(self, index: int) -> str:
        return self.names[index]

    def _read(self, index: int) -> tuple[bytes, str | None, str | None, str]:
        caption = caption_of(lambda field: self._field(index, field))
        return _read_bytes(self.files[index]), self.label(index), caption, self.names[index]

    def _field(self, index: int, field: str) -> bytes | None:
        # Most folders have none at all: then no file is looked for.
        for key in keys_of(self.names[index]) if field in self._kinds else ():
            file = self.folder / f"{key}.{field}"
            try:
                return file.read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                continue
            except OSError as error:
                raise unreadable(file, error) from error
        return None


class FileSource(Source):
    """Image files that a list names, from a folder on; without labels and captions.

    Raises:
        InputError: a file is not there.
    """

    def __init__(self, folder: Path, names: Sequence[str], size: int | None = None) -> None:
        super().__init__([folder / name for name in names], size)
        self.names = list(names)
        missing = [file for file in self.files if not file.is_file()]
        if missing:
            raise InputError(
                f"nothing at {missing[0]}: wanted all {len(names):,} images that are named, {len(missing):,} of them "
                "are not there"
            )

    def __len__(self) -> int:
        return len(self.names)

    def key(self, index: int) -> str:
        return self.names[index]

    def _read(self, index: int) -> tuple[bytes, None, None, str]:
        return _read_bytes(self.files[index]), None, None, self.names[index]


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise unreadable(file, error) from error


def walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk`, links to folders followed, hidden folders left out.

    Raises:
        InputError: a folder cannot be read, or a link leads back to one around it, or to nothing.
    """

    def refuse(error: OSError) -> None:
        remedy = "make it readable, or give a folder without it"
        raise InputError(f"cannot read {error.filename}: {error.strerror}; {remedy}") from error

    for directory, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        path = Path(directory)
        if path.is_symlink() and path.resolve() in (parent.resolve() for parent in path.parents):
            raise InputError(f"{path} is a link to a folder around it: remove it")
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for file in files:
            # A link without an ending may have been a class. Of an image it is told when the image is read.
            if "." not in file and (path / file).is_symlink() and not (path / file).exists():
                raise unreadable(path / file, FileNotFoundError())
        yield directory, folders, files
