"""Images and films that cannot be read: the run ends at the first, or goes on without them, as `data.damaged` says."""

import sys
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Literal, TypeVar

from spae.errors import InputError

# So many in a row are no accident of a few images: a folder is gone, or a disk.
TRIES = 16

T = TypeVar("T")


class Damage:
    """What is done about images that cannot be read.

    Args:
        choice: "error": the first one is an error. "skip": each is named once, in a line on stderr, and left out.
    """

    def __init__(self, choice: Literal["error", "skip"]) -> None:
        self._choice = choice
        self._said: set[str] = set()

    def left_out(self, error: InputError) -> None:
        """Say it, or raise InputError, which says how to go on without."""
        reason = str(error)
        if self._choice == "error":
            raise InputError(
                f"{reason}; or --data.damaged skip, which goes on without such images"
            ) from error
        if reason not in self._said:
            self._said.add(reason)
            print(f"spae-train: left out ({len(self._said)} so far): {reason}", file=sys.stderr)

    def first(self, read: Callable[[int], T], indices: Iterable[int]) -> T:
        """`read` of the first of the indices that can be read; of no more of them than it takes.

        Raises:
            InputError: one cannot be read and none is to be left out, or TRIES of them cannot.
        """
        for index in islice(indices, TRIES):
            try:
                return read(index)
            except InputError as error:
                self.left_out(error)
                last = error
        raise InputError(
            f"{TRIES} images, one after the other, cannot be read: are they still there? The last: {last}"
        )
