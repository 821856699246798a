"""What a run says while it goes: lines on the terminal, scalars, pictures and words on TensorBoard."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter


class Board:
    """Lines to standard output, everything to TensorBoard event files in `folder`."""

    def __init__(self, folder: str | Path) -> None:
        self._writer = SummaryWriter(str(folder))

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.close()

    def scalars(self, step: int, values: Mapping[str, float], group: str) -> None:
        """One line, and one point on each curve `group/name`."""
        shown = "  ".join(f"{name} {value:.5g}" for name, value in values.items())
        print(f"{step:>8}  {group:<8}  {shown}", flush=True)
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def pictures(self, step: int, rows: Sequence[UInt8[np.ndarray, "n H W 3"]]) -> None:
        """A sheet of images: one row per entry (the originals, then each prefix), one column per image."""
        sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
        self._writer.add_image("reconstructions", sheet, step, dataformats="HWC")

    def words(self, step: int, texts: Sequence[str]) -> None:
        """The upper words of the same images."""
        self._writer.add_text("words", "\n\n".join(texts), step)
