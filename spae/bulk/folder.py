"""The folder that a job is written to: what is done there, what is missing, and that nothing else gets in.

```
bulk.json                      what the parts are made of; written first
part-00000-of-00042.jsonl ..   the words, or .parquet
done/00000.json ..             of each part: images, bytes, sha256, bad images; written after its part
bad.jsonl                      key and reason of every bad image; written last
```
"""

import fcntl
import hashlib
import json
from pathlib import Path
from typing import IO, Any

from spae.bulk.job import Job
from spae.bulk.part import Part
from spae.errors import InputError
from spae.files import write_file

FORMAT = "spae-bulk"
VERSION = 1


class Folder:
    """`with Folder(path, job) as folder:` locks it, and refuses it if it is another job's.

    Raises:
        InputError: the folder holds something else, is being written by another process, or cannot be written.
    """

    def __init__(self, path: str | Path, job: Job) -> None:
        if "://" in str(path):
            raise InputError(
                f"wanted a folder of this machine to write, got {path}: mount the bucket, or copy later"
            )
        self.path = Path(path)
        if self.path.suffix in (".tar", ".parquet"):
            raise InputError(
                f"wanted a folder to write, got {path}, which is named like images to read: several archives are one "
                "INPUT, as a glob in quotes or as their folder"
            )
        self.job = job
        self._done: dict[int, dict[str, Any]] = {}
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> "Folder":
        try:
            self._open()
            self._agree()
        except BaseException:
            self.__exit__()
            raise
        self._done = {number: done for number in range(len(self.job)) if (done := self._read_done(number))}
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    @property
    def missing(self) -> list[int]:
        """The parts that are still to be done, in order."""
        return [number for number in range(len(self.job)) if number not in self._done]

    @property
    def bad(self) -> int:
        """Images that could not be read, of the parts that are done."""
        return sum(len(done["bad"]) for done in self._done.values())

    def write(self, part: Part) -> None:
        """Put a part into the folder.

        Raises:
            InputError: the folder cannot be written, the disk is full; the part is then not there.
        """
        done = {
            "part": part.number,
            "images": part.images,
            "bytes": len(part.data),
            "sha256": hashlib.sha256(part.data).hexdigest(),
            "bad": [bad.note for bad in part.bad],
        }
        write_file(self.path / self.job.file_name(part.number), part.data)
        write_file(self._done_file(part.number), _json(done))
        self._done[part.number] = done

    def finish(self) -> None:
        """Write the list of bad images; all parts are done."""
        bad = [one for number in sorted(self._done) for one in self._done[number]["bad"]]
        data = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in bad).encode()
        file = self.path / "bad.jsonl"
        if not file.is_file() or file.read_bytes() != data:
            write_file(file, data)

    def _open(self) -> None:
        """Make the folder, lock it, and sweep up."""
        try:
            new = not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))
            if not new and not (self.path / "bulk.json").is_file() and not (self.path / ".lock").is_file():
                raise InputError(
                    f"{self.path} is something else: wanted a new folder, or one of spae bulk to go on with"
                )
            (self.path / "done").mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("ab")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Of a process that was killed while it wrote them.
            for part in (*self.path.glob(".*.part"), *self.path.glob("done/.*.part")):
                part.unlink()
        except BlockingIOError:
            raise InputError(
                f"another spae bulk is writing to {self.path}: wait for it, or choose another folder"
            ) from None
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _agree(self) -> None:
        wanted = {"format": FORMAT, "version": VERSION, **self.job.identity()}
        file = self.path / "bulk.json"
        if not file.is_file():
            write_file(file, _json({**wanted, "bundle": self.job.bundle, "source": self.job.path}))
            return
        try:
            found = json.loads(file.read_bytes())
            differing = [name for name in wanted if found.get(name) != wanted[name]]
        except (ValueError, AttributeError) as error:
            raise InputError(f"{file} is not as spae bulk wrote it: choose another folder") from error
        if differing:
            name = differing[0]
            raise InputError(
                f"{self.path} was begun with {name} {found.get(name)}, this is {wanted[name]}: go on with the same, or "
                "choose another folder"
            )

    def _read_done(self, number: int) -> dict[str, Any] | None:
        """What was noted of a part; None: it is not there whole."""
        try:
            done = json.loads(self._done_file(number).read_bytes())
            size = (self.path / self.job.file_name(number)).stat().st_size
            return done if size == done["bytes"] and isinstance(done["bad"], list) else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _done_file(self, number: int) -> Path:
        return self.path / "done" / f"{number:05}.json"


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
