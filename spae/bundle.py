"""The files of a trained tokenizer: a folder of JSON and safetensors, checksummed, written whole or not at all.

bundle.json              architecture, provenance, measured metrics, sha256 of every other file
params.safetensors       the networks
vocabulary.safetensors   token ids, embedding table, views
words.json               the words, by id
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from etils import epath
from safetensors import SafetensorError
from safetensors.numpy import load, save

from spae.errors import BundleError, InputError
from spae.files import bucket_errors, is_remote, open_path

FORMAT = "spae-bundle"
VERSION = 1
SHIPPED = Path(__file__).parent / "bundles"

Tensors = dict[str, np.ndarray]


def find(name: str | os.PathLike) -> epath.Path:
    """The folder of a bundle: a shipped bundle's name, a path, or a remote path such as gs://bucket/folder.

    Raises:
        InputError: the package for that kind of bucket is missing.
        BundleError: no bundle is there.
    """
    shipped = SHIPPED / str(name)
    folder = open_path(shipped if (shipped / "bundle.json").is_file() else name)
    with bucket_errors(folder):
        there = (folder / "bundle.json").exists()
    if not there:
        names = ", ".join(sorted(p.parent.name for p in SHIPPED.glob("*/bundle.json"))) or "none"
        raise BundleError(
            f"wanted a bundle (a folder with bundle.json) or a shipped bundle's name ({names}), found neither at "
            f"{str(name)!r}: check the name, or train one with spae-train"
        )
    return folder


def sha256(name: str | os.PathLike) -> str:
    """The identity of a bundle, in hexadecimal: of its bundle.json, which holds the checksums of its other files.

    Raises:
        BundleError: no bundle is there.
    """
    return hashlib.sha256(_read_bytes(find(name) / "bundle.json")).hexdigest()


def write(
    folder: str | os.PathLike, info: Mapping[str, Any], files: Mapping[str, Tensors | list[str]]
) -> None:
    """Write a bundle; a bundle that was there before stays whole until the new one is complete.

    In a bucket, where no folder can be moved in one step, the old one is gone from the first file on, and the new one
    is there with its last file, bundle.json.

    Args:
        folder: where to, of this machine or of a bucket; its parents are made.
        info: the contents of bundle.json, without `format`, `version` and `files`.
        files: name -> tensors (for .safetensors) or words (for .json).

    Raises:
        InputError: what is there is no bundle.
        OSError: the disk is full or the folder cannot be written.
    """
    place = open_path(folder)
    # What a write that was cut off has left in a bucket; on this machine it leaves nothing.
    ours = files.keys() if is_remote(place) else ()
    with bucket_errors(place):
        if (
            place.exists()
            and not (place / "bundle.json").is_file()
            and (not place.is_dir() or any(entry.name not in ours for entry in place.iterdir()))
        ):
            raise InputError(
                f"wanted a new folder or a bundle to replace, {place} is something else: choose another"
            )
        if is_remote(place):
            (place / "bundle.json").unlink(missing_ok=True)
            _write_all(place, info, files)
        else:
            _replace(Path(place), info, files)


def _write_all(
    folder: epath.Path | Path, info: Mapping[str, Any], files: Mapping[str, Tensors | list[str]]
) -> None:
    """The files of a bundle, bundle.json last."""
    sums = {}
    for name, content in files.items():
        data = save(content) if isinstance(content, dict) else _json(content)
        sums[name] = hashlib.sha256(data).hexdigest()
        _write_through(folder / name, data)
    document = {"format": FORMAT, "version": VERSION, **info, "files": sums}
    _write_through(folder / "bundle.json", _json({**document, "sha256": _digest(document)}))


def _replace(folder: Path, info: Mapping[str, Any], files: Mapping[str, Tensors | list[str]]) -> None:
    """Write a bundle beside its place and move it there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    old = new.with_name(new.name + ".old")
    try:
        _write_all(new, info, files)
        new.chmod(0o755)
        if folder.exists():
            # A folder cannot be replaced in one step: the old one is set aside first, and only then deleted.
            folder.rename(old)
        new.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def read(
    name: str | os.PathLike, kind: Literal["tokenizer", "connector"] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a bundle and check every byte of it: (the contents of bundle.json, name -> tensors or words).

    Args:
        kind: whose it has to be; None: anybody's.

    Raises:
        BundleError: there is no bundle there, it is of another kind, a file is missing or changed, or the version is
            another.
    """
    folder = find(name)
    info = _parse(folder / "bundle.json", _read_bytes(folder / "bundle.json"))
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise BundleError(f"wanted a bundle, but {folder / 'bundle.json'} says no format {FORMAT!r}")
    if info.get("version") != VERSION:
        raise BundleError(
            f"wanted a bundle of version {VERSION}, {folder} has version {info.get('version')!r}: "
            "install the release of spae that wrote it, or train again with this one"
        )
    wanted_digest = info.pop("sha256", None)
    if _digest(info) != wanted_digest:
        raise BundleError(
            f"{folder / 'bundle.json'} is not as it was written (its sha256 differs): copy it again"
        )
    found = info.get("kind", "tokenizer")  # which says nothing
    if kind not in (None, found):
        doors = {"tokenizer": "spae.load", "connector": "spae.connector.load"}
        reads = f": {doors[found]} reads it" if found in doors else ""
        raise BundleError(f"wanted the bundle of a {kind}, {name} is a {found}'s{reads}")
    files: dict[str, Any] = {}
    for file, wanted in info["files"].items():
        path = folder / file
        try:
            data = _read_bytes(path)
        except FileNotFoundError as error:
            raise BundleError(
                f"wanted {file} in the bundle {folder}, it is missing: copy the bundle again"
            ) from error
        if hashlib.sha256(data).hexdigest() != wanted:
            raise BundleError(f"{path} is not as it was written (its sha256 differs): copy the bundle again")
        if file.endswith(".json"):
            files[file] = _parse(path, data)
        else:
            try:
                files[file] = load(data)
            except (SafetensorError, KeyError) as error:  # KeyError: a type that NumPy does not have
                raise BundleError(
                    f"{path} is not a safetensors file ({error}): copy the bundle again"
                ) from error
    return info, files


def _digest(document: Mapping[str, Any]) -> str:
    """sha256 of the document as canonical JSON."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _read_bytes(path: epath.Path) -> bytes:
    with bucket_errors(path):
        return path.read_bytes()


def _parse(path: epath.Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}): copy the bundle again") from error


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _write_through(path: epath.Path | Path, data: bytes) -> None:
    path.write_bytes(data)
    if not is_remote(path):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
