"""What a run says while it goes: lines on the terminal, scalars, pictures and words on TensorBoard."""

import contextlib
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import UInt8
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import register_writer_factory

from spae.files import bucket_errors, is_remote, open_path

OBJECT_BYTES = 1_000_000  # after which an event file in a bucket is followed by another


class Summaries:
    """Lines to standard output, everything to TensorBoard event files in `folder`; with None, silent.

    Files are written at once, not from a queue: tensorboardX's own thread dies of a full disk, and then whoever
    waits for its queue waits for ever. Here a disk that is full costs the curves and not the run.

    Args:
        folder: of this machine, or below gs://.
    """

    def __init__(self, folder: str | Path | epath.Path | None) -> None:
        self._folder = None if folder is None else open_path(folder)
        self._writer: EventsWriter | None = None
        self._files = 0
        self._size = 0
        self._failed = False
        if self._folder is not None and not is_remote(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Summaries":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # said when it was written
                self._writer.close()

    def line(self, text: str) -> None:
        """One line for whoever looks on."""
        if self._folder is not None:
            print(text, flush=True)

    def scalars(self, step: int, values: Mapping[str, float], group: str) -> None:
        """One line, and one point on each curve `group/name`."""
        shown = "  ".join(f"{name} {value:.5g}" for name, value in values.items())
        self.line(f"{step:>8}  {group:<8}  {shown}")
        self._write(step, [summary.scalar(f"{group}/{name}", value) for name, value in values.items()])

    def pictures(self, step: int, rows: Sequence[UInt8[np.ndarray, "n *T H W 3"]]) -> None:
        """A sheet of images: one row per entry (the originals, then each prefix), one column per image; of clips the
        middle frame."""
        rows = [row[:, row.shape[1] // 2] if row.ndim == 5 else row for row in rows]
        sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
        self._write(step, [summary.image("reconstructions", sheet, dataformats="HWC")])

    def words(self, step: int, texts: Sequence[str]) -> None:
        """The upper words of the same images."""
        self._write(step, [summary.text("words", "\n\n".join(texts))])

    def _write(self, step: int, summaries: Sequence[Summary]) -> None:
        if self._folder is None:
            return
        try:
            if self._writer is None:
                self._files, self._size = self._files + 1, 0
                self._writer = EventsWriter(str(self._folder / "events"), f".{self._files}")
            for one in summaries:
                self._writer.write_event(Event(summary=one, step=step, wall_time=time.time()))
                self._size += one.ByteSize()
            self._writer.flush()
            if is_remote(self._folder) and self._size > OBJECT_BYTES:
                self._writer.close()
                self._writer = None
        except OSError as error:
            # What comes next goes into another file: behind half a record nothing can be read.
            with contextlib.suppress(OSError):
                if self._writer is not None:
                    self._writer.close()
            self._writer = None
            if not self._failed:
                self.line(f"cannot write to {self._folder}: {error}; the curves have a gap, training goes on")
            self._failed = True
        else:
            self._failed = False


class EventObject:
    """An event file in a bucket. Objects cannot be appended to: each flush writes all of it again.

    tensorboardX's own writer of gs:// does so too, but once more when it is forgotten, and its errors are no OSErrors.
    """

    def __init__(self, path: str) -> None:
        self._path = open_path(path)
        self._records = io.BytesIO()
        self._written = 0

    def write(self, data: bytes) -> None:
        """Raises nothing: `flush` writes."""
        self._records.write(data)

    def flush(self) -> None:
        """Write what is new.

        Raises:
            OSError: the bucket cannot be written.
        """
        data = self._records.getvalue()
        if len(data) > self._written:
            with bucket_errors(self._path):
                self._path.write_bytes(data)
            self._written = len(data)

    def close(self) -> None:
        """Flush once more.

        Raises:
            OSError: as `flush`.
        """
        self.flush()


class EventObjects:
    """What tensorboardX opens event files with."""

    def open(self, path: str) -> EventObject:
        """A new one."""
        return EventObject(path)

    def directory_check(self, path: str) -> None:
        """Buckets have no folders to be made."""


register_writer_factory("gs", EventObjects())
