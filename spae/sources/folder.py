"""A folder of image files, and what the names of files say: which are images, and of which class."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from spae.errors import InputError
from spae.sources.source import Source

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


class FolderSource(Source):
    """A folder of image files; class folders are labels."""

    def __init__(self, folder: Path, size: int | None) -> None:
        names = []
        for directory, _, entries in walk(folder):
            relative = Path(directory).relative_to(folder)
            names += [(relative / entry).as_posix() for entry in entries]
        names = sorted(name for name in names if is_image(name))
        if not names:
            raise InputError(
                f"no images in {folder}: wanted .jpg, .jpeg, .png, .webp, .tar or .parquet files"
            )
        super().__init__([folder / name for name in names], size)
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def label(self, index: int) -> str | None:
        return label_of(self.names[index])

    def key(self, index: int) -> str:
        return self.names[index]

    def _read(self, index: int) -> tuple[bytes, str | None, str | None, str]:
        file, name = self.files[index], self.names[index]
        try:
            caption = file.with_suffix(".txt")
            text = caption.read_text("utf-8").strip() if caption.is_file() else None
            return file.read_bytes(), label_of(name), text, name
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {file}: {error}") from error


def walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk`, links to folders followed.

    Raises InputError: a folder cannot be read, or a link leads back to one around it.
    """

    def refuse(error: OSError) -> None:
        remedy = "make it readable, or give a folder without it"
        raise InputError(f"cannot read {error.filename}: {error.strerror}; {remedy}") from error

    for directory, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        path = Path(directory)
        if path.is_symlink() and path.resolve() in (parent.resolve() for parent in path.parents):
            raise InputError(f"{path} is a link to a folder around it: remove it")
        yield directory, folders, files


def label_of(name: str) -> str | None:
    """The folder directly around a file, which is its class."""
    return PurePosixPath(name).parent.name or None


def is_image(name: str) -> bool:
    file = PurePosixPath(name)
    return file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")
