"""The words of a data set's images, computed once per tokenizer and kept on disk.

One file for each tokenizer and data set, named by their fingerprints: nothing stale is ever read.
"""

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from icl_runner.data.examples import ExampleSet
from spae.errors import InputError
from spae.files import cache_folder, write_file
from spae.progress import Progress
from spae.pyramid import Pyramid
from spae.tokenizer import Tokenizer

# Images between two writes of the file: what a killed run loses at most.
_CHUNK = 256
# Part of the name: raise it when the same tokenizer would give other words.
_VERSION = "pyramids 2"


class Pyramids:
    """The pyramid of any image of a set.

    Several processes may share the file: each adds under a lock what it has computed, and readers see the old file or
    the new one whole. A damaged file is reported on stderr and made again.

    Args:
        tokenizer: encodes what is not in the file yet.
        examples: whose images.
        cache: folder; None for `spae.files.cache_folder()`.
    """

    def __init__(
        self, tokenizer: Tokenizer, examples: ExampleSet, cache: str | os.PathLike[str] | None = None
    ) -> None:
        self._tokenizer, self._examples = tokenizer, examples
        identity = f"{_VERSION}\n{tokenizer.fingerprint}\n{examples.fingerprint}"
        name = f"pyramids-{hashlib.sha256(identity.encode()).hexdigest()}.safetensors"
        self.file = Path(cache or cache_folder()) / name
        self._known: dict[str, np.ndarray] = {}  # image key -> int32 (tokens,)

    def __call__(self, keys: Sequence[str]) -> dict[str, Pyramid]:
        """The pyramids of images, by image key (`Example.image_key`; a repeated key is computed once).

        Raises:
            InputError: an unknown key, an image that cannot be read, or a cache folder that cannot be written.
        """
        wanted = list(dict.fromkeys(keys))
        if any(key not in self._known for key in wanted):
            self._known |= self._read()
        missing = [key for key in wanted if key not in self._known]
        with Progress(len(missing), "words of images", "image") as progress:
            for start in range(0, len(missing), _CHUNK):
                chunk = missing[start : start + _CHUNK]
                # Cut at once: a chunk of whole photographs would take gigabytes.
                squares = [self._tokenizer.square(self._examples.image(key)) for key in chunk]
                pyramids = self._tokenizer.encode(squares)
                rows = [pyramid.flat_ids for pyramid in pyramids]
                self._add(dict(zip(chunk, rows, strict=True)))
                progress.update(len(chunk))
        return {key: self._pyramid(self._known[key]) for key in wanted}

    def _pyramid(self, row: np.ndarray) -> Pyramid:
        return Pyramid.from_ids(row, self._tokenizer.shape, self._tokenizer.vocabulary)

    def _add(self, rows: dict[str, np.ndarray]) -> None:
        """Keep the rows, and write them to the file together with what other processes wrote meanwhile."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.file.with_suffix(".lock")):
                self._known |= self._read() | rows
                content = json.dumps(list(self._known)).encode()
                ids = np.stack(list(self._known.values())).astype(np.int32)
                checksum = hashlib.sha256(content + ids.tobytes()).digest()
                tensors: dict[str, np.ndarray] = {
                    "keys": np.frombuffer(content, np.uint8),
                    "ids": ids,
                    "sha256": np.frombuffer(checksum, np.uint8),
                }
                write_file(self.file, safetensors.numpy.save(tensors))
        except OSError as error:
            raise InputError(f"cannot write to the cache folder {self.file.parent}: {error}") from error

    def _read(self) -> dict[str, np.ndarray]:
        """What the file holds; nothing if it is not there, or damaged."""
        try:
            tensors = safetensors.numpy.load(self.file.read_bytes())
            content, ids = tensors["keys"].tobytes(), tensors["ids"]
            if hashlib.sha256(content + ids.tobytes()).digest() != tensors["sha256"].tobytes():
                raise ValueError("its checksum does not fit")
            return dict(zip(json.loads(content), ids, strict=True))
        except FileNotFoundError:
            return {}
        except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
            print(f"spae: damaged cache {self.file} ({error}): computing it again", file=sys.stderr)
            return {}


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Wait for the lock of this file; the system lets go of it when a process dies."""
    with open(file, "w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
