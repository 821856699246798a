"""A part of the training images that is kept for validation, where a config names no other images for it."""

import copy
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int

from spae.errors import InputError
from spae.sources import Record, Source

SHARE = 10  # one image of so many
MOST = 64


def hold_out(source: Source) -> tuple[Source, Source]:
    """The images to train on, and every tenth, 64 at most, spread evenly over the source: always the same ones.

    Raises:
        InputError: there are fewer than two.
    """
    count = len(source)
    if count < 2:
        raise InputError(
            f"data.validation None keeps a tenth of data.train for validation, which takes two images; got {count}: "
            "give more images, or name others in data.validation"
        )
    kept = min(MOST, max(1, count // SHARE))
    kept_n = np.linspace(0, count - 1, kept + 2)[1:-1].round().astype(int)
    others_n = np.setdiff1d(np.arange(count), kept_n)
    return Part(source, others_n, "trained on"), Part(source, kept_n, "held out")


class Part(Source):
    """Some of the images of a source.

    Args:
        source: of all images.
        indices_n: of the part's images in it.
        name: of the part; with the source it says which images they are.
    """

    def __init__(self, source: Source, indices_n: Int[np.ndarray, " n"], name: str) -> None:
        self._source, self._indices_n, self._name = source, indices_n, name
        super().__init__(source.files, source.size)

    @property
    def size(self) -> int | None:
        """That to which the source reduces its images."""
        return self._source.size

    @size.setter
    def size(self, size: int | None) -> None:
        # Of a source of its own: others may read this one at another size.
        self._source = copy.copy(self._source)
        self._source.size = size

    def __len__(self) -> int:
        return len(self._indices_n)

    def __getitem__(self, index: int) -> Record:
        return self._source[int(self._indices_n[index])]

    def draw(self, index: int, generator: np.random.Generator) -> Record:
        """That of the source."""
        return self._source.draw(int(self._indices_n[index]), generator)

    def _read(self, index: int) -> tuple[Any, str | None, str | None, str]:
        return self._source._read(int(self._indices_n[index]))

    def label(self, index: int) -> str | None:
        """That of the source."""
        return self._source.label(int(self._indices_n[index]))

    def caption(self, index: int) -> str | None:
        """That of the source."""
        return self._source.caption(int(self._indices_n[index]))

    def key(self, index: int) -> str:
        """That of the source."""
        return self._source.key(int(self._indices_n[index]))

    @cached_property
    def fingerprint(self) -> str:
        """That of the source, and the part."""
        return f"{self._source.fingerprint} {self._name}"

    @cached_property
    def identity(self) -> str:
        """That of the source, and the part."""
        return f"{self._source.identity} {self._name}"
