"""Images as a tokenizer looks at them: what the guidance's features of training images are computed from."""

import copy
from functools import cached_property
from typing import Any

from spae.images import to_square
from spae.sources import Source


class Squares(Source):
    """A source whose images are the squares that a tokenizer looks at, see `spae.images.to_square`."""

    def __init__(self, source: Source, small: int, large: int) -> None:
        super().__init__(source.files, max(small, large))
        # The same images, read as finely as they are looked at.
        self._source, self._sides = copy.copy(source), (small, large)
        self._source.size = self.size

    def __len__(self) -> int:
        return len(self._source)

    def _read(self, index: int) -> tuple[Any, str | None, str | None, str]:
        record = self._source[index]
        return to_square(record.image, *self._sides), record.label, record.caption, record.key

    def label(self, index: int) -> str | None:
        """That of the source."""
        return self._source.label(index)

    def key(self, index: int) -> str:
        """That of the source."""
        return self._source.key(index)

    @cached_property
    def fingerprint(self) -> str:
        """That of the source, and the sizes."""
        return f"{self._source.fingerprint} {self._sides}"

    @cached_property
    def identity(self) -> str:
        """That of the source, and the sizes."""
        return f"{self._source.identity} {self._sides}"
