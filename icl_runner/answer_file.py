"""Answers of a model in a file that survives a kill: a line of JSON for each, written when it comes.

The first line says of what the answers are (`heading`); a file takes no others. An answer belongs to the digest of its
question: a question that was changed is asked again.
"""

import fcntl
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_runner.settings import differences
from spae.errors import InputError

_LATER = ("base_url",)  # what the headings of earlier files do not say


@dataclass(frozen=True)
class Answer:
    """`cut`: the model was stopped before the end of it."""

    text: str
    cut: bool = False


class AnswerFile:
    """Question's digest -> Answer; a context manager that holds the file, so that no other process writes to it.

    Args:
        path: made if it is missing. A last line that was broken off is removed, with a word on stderr.
        heading: plain JSON, equal in every run that adds to the file; an earlier file may lack the base URL.

    Raises:
        InputError: the file is another's, damaged, in use, or cannot be written.
    """

    def __init__(self, path: Path, heading: Mapping[str, Any]) -> None:
        self._path, self._heading = path, json.loads(json.dumps(heading))
        self._answers: dict[str, Answer] = {}

    def __enter__(self) -> "AnswerFile":
        try:
            self._file = open(self._path, "a+b")  # closed by __exit__
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error.strerror or error}") from error
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, digest: str) -> bool:
        return digest in self._answers

    def __getitem__(self, digest: str) -> Answer:
        return self._answers[digest]

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, key: str, digest: str, answer: Answer) -> None:
        """Keep an answer. `key` is for those who read the file.

        Raises:
            InputError: the disk is full, or the file can no longer be written.
        """
        self._write({"key": key, "question": digest, "text": answer.text, "cut": answer.cut})
        self._answers[digest] = answer

    def _write(self, record: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error.strerror or error}") from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another process is writing to {self._path}: wait for it, or choose another"
            ) from error

    def _read(self) -> None:
        self._file.seek(0)
        lines = self._file.read().split(b"\n")
        if broken := lines.pop():
            print(
                f"spae-icl: {self._path} was broken off within its last line: removed, and asked again",
                file=sys.stderr,
            )
            self._file.truncate(self._file.tell() - len(broken))
        if not lines:
            self._write(self._heading)
            return
        unsaid = {key: self._heading[key] for key in _LATER if key in self._heading}
        if found := differences(unsaid | self._object(lines[0], 1), self._heading):
            raise InputError(
                f"{self._path} holds answers to other questions ({'; '.join(found[:3])}): write to another file, or "
                "run with the same settings"
            )
        for number, line in enumerate(lines[1:], start=2):
            record = self._object(line, number)
            try:
                self._answers[record["question"]] = Answer(record["text"], record["cut"])
            except KeyError as error:
                raise InputError(f"{self._path}: wanted {error} in line {number}: remove the line") from error

    def _object(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise InputError(
                f"{self._path}: wanted an object of JSON in line {number}: is it a file of answers? Remove the line, "
                "or write to another file"
            )
        return value
