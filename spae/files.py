"""Output files, written whole or not at all, on this machine or in a bucket; and the folder of what can be computed
again."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from etils import epath

from spae.errors import InputError

BUCKETS = {"gs": "gcsfs", "s3": "s3fs"}  # and the packages that read and write them


def cache_folder() -> Path:
    """The folder in the environment variable SPAE_CACHE, else ~/.cache/spae: compiled functions, image features."""
    return Path(os.environ.get("SPAE_CACHE") or Path.home() / ".cache" / "spae")


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is in a bucket, such as gs://bucket/folder."""
    return "://" in os.fspath(path)


def open_path(path: str | os.PathLike[str]) -> epath.Path:
    """A path of this machine, or one in a bucket.

    Raises:
        InputError: it is neither, or the package for that kind of bucket is missing.
    """
    scheme, found, _ = os.fspath(path).partition("://")
    if found and scheme not in BUCKETS:
        known = ", ".join(f"{scheme}://" for scheme in BUCKETS)
        raise InputError(
            f"wanted a path of this machine or of a bucket ({known}), got {path}: mount it, or copy"
        )
    if found and find_spec(BUCKETS[scheme]) is None:
        raise InputError(f"{path} needs a package: pip install {BUCKETS[scheme]}, or mount the bucket")
    return epath.Path(path)


@contextlib.contextmanager
def bucket_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around what reads or writes `path`: what the clients of buckets raise, classes of their own with nothing in
    common, becomes an OSError."""
    try:
        yield
    except Exception as error:
        # RuntimeErrors are JAX's, of devices and other processes; asyncio's TimeoutError is an OSError without a word.
        known = isinstance(error, OSError | InputError | RuntimeError) and not isinstance(error, TimeoutError)
        if known or not is_remote(path):
            raise
        raise OSError(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}") from error


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write beside `path`, then rename: what was there before stays whole until the new file is. In a bucket objects
    are like that by themselves.

    Raises:
        InputError: the folder is missing or cannot be written, the disk is full.
    """
    write_files([(path, data)])


def write_files(files: Iterable[tuple[str | os.PathLike[str], bytes]]) -> None:
    """Write files that belong together, paths and contents: the first is renamed to its place when the last is written.

    Raises:
        InputError: as `write_file` does; what was there before is still there.
    """
    written: list[tuple[Path, Path]] = []
    try:
        for path, data in files:
            try:
                if is_remote(path):
                    with bucket_errors(path):
                        open_path(path).write_bytes(data)
                else:
                    written.append(_write_beside(Path(path), data))
            except OSError as error:
                raise InputError(f"cannot write {path}: {error.strerror or error}") from error
        for part, place in written:
            os.replace(part, place)
    finally:
        for part, _ in written:
            part.unlink(missing_ok=True)


def _write_beside(path: Path, data: bytes) -> tuple[Path, Path]:
    """Where it is written, down to the disk, and where it belongs."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    try:
        part.write_bytes(data)
        with part.open("rb") as file:
            os.fsync(file.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part, path


def file_size(file: Path) -> int:
    """In bytes; 0 for a link to nothing, which is an image that cannot be read like any other.

    Raises:
        InputError: the file is gone, or may not be looked at.
    """
    try:
        return file.stat().st_size
    except OSError as error:
        if isinstance(error, FileNotFoundError) and file.is_symlink():
            return 0
        raise unreadable(file, error) from error


def unreadable(file: Path, error: OSError) -> InputError:
    """What to raise for a file that cannot be read."""
    if isinstance(error, FileNotFoundError) and file.is_symlink():
        return InputError(
            f"cannot read {file}: it is a link to {os.readlink(file)}, which is not there; mend or remove it"
        )
    return InputError(f"cannot read {file}: {error.strerror or error}")
