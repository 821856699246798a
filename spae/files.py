"""Output files, written whole or not at all; and the folder of what can be computed again."""

import os
from pathlib import Path

from spae.errors import InputError


def cache_folder() -> Path:
    """The folder in the environment variable SPAE_CACHE, else ~/.cache/spae: compiled functions, image features."""
    return Path(os.environ.get("SPAE_CACHE") or Path.home() / ".cache" / "spae")


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
            with part.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
