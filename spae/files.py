"""Output files, written whole or not at all."""

import os
from pathlib import Path

from spae.errors import InputError


def write_file(path: str | Path, data: bytes) -> None:
    """Write beside `path`, then rename: what was there before stays whole until the new file is.

    Raises InputError: the folder is missing or cannot be written, the disk is full.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder")
        try:
            part.write_bytes(data)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
