"""What a run says while it goes: lines on the terminal, scalars, pictures and words on TensorBoard."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary


class Board:
    """Lines to standard output, everything to TensorBoard event files in `folder`; with None, silent.

    Files are written at once, not from a queue: tensorboardX's own thread dies of a full disk, and then whoever
    waits for its queue waits for ever. Here a disk that is full costs the curves and not the run.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._writer: EventsWriter | None = None
        self._files = 0
        self._failed = False
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Board":
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
                self._files += 1
                self._writer = EventsWriter(str(self._folder / "events"), f".{self._files}")
            for one in summaries:
                self._writer.write_event(Event(summary=one, step=step, wall_time=time.time()))
            self._writer.flush()
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
