"""The pyramid: which grid positions each layer holds, and the value that encoding returns.

Positions follow the dilation subsampler of the SPAE paper (arXiv 2306.17842, section 3.1). NumPy only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, product
from math import prod
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from spae.errors import InputError

_SHOWN = 8  # words that a pyramid shows of itself


class HasWords(Protocol):
    """What a pyramid needs of a vocabulary: the word of every id."""

    @property
    def words(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class PyramidShape:
    """The grids of all layers, numbered from 1 at the top; the last layer is the finest grid.

    `sides`: one entry per layer, an int s for a square (s, s) or a tuple of ints such as (t, h, w).
    Kept as tuples, so `PyramidShape((1, 2)) == PyramidShape(((1, 1), (2, 2)))`.

    Raises:
        InputError: an empty list, sides under 1, layers of different dimension, or a grid that does not divide the
            finest one along every axis.
    """

    sides: tuple[Any, ...]

    def __post_init__(self) -> None:
        if isinstance(self.sides, str) or not isinstance(self.sides, Iterable):
            raise InputError(
                f"pyramid shape: wanted one side per layer, such as (1, 2, 4, 8, 16, 16); got {self.sides!r}"
            )
        layers = tuple(_grid(side) for side in self.sides)
        if not layers:
            raise InputError("pyramid shape: wanted at least one layer, such as (1, 2, 4); got none")
        finest = layers[-1]
        for number, grid in enumerate(layers, 1):
            if len(grid) != len(finest):
                raise InputError(
                    f"pyramid shape: layer {number} has {len(grid)} dimensions, the last {len(finest)}; "
                    "give every layer the same number of dimensions"
                )
            if any(fine % side for fine, side in zip(finest, grid, strict=True)):
                raise InputError(
                    f"pyramid shape: the grid of layer {number}, {grid}, does not divide the last layer's, "
                    f"{finest}; choose sides that divide it"
                )
        object.__setattr__(self, "sides", layers)

    @property
    def layers(self) -> tuple[tuple[int, ...], ...]:
        """The grid of every layer."""
        return self.sides

    @property
    def grid(self) -> tuple[int, ...]:
        """The finest grid, which all positions refer to."""
        return self.sides[-1]

    def __len__(self) -> int:
        return len(self.sides)

    def check_layers(self, layers: int | None) -> int:
        """`layers` as a number of layers in 1 .. len(self); None means all of them.

        Raises:
            InputError: another.
        """
        if layers is None:
            return len(self)
        if isinstance(layers, bool) or not isinstance(layers, (int, np.integer)):
            raise InputError(f"layers: wanted an integer from 1 to {len(self)}; got {layers!r}")
        if not 1 <= layers <= len(self):
            raise InputError(f"layers: this pyramid has {len(self)}; got {layers}; ask for 1 to {len(self)}")
        return int(layers)

    def positions(self, layer: int) -> Int[np.ndarray, "n d"]:
        """0-based positions of a layer (counted from 1) on the finest grid, row-major; read-only int64.

        With dilation h' = h_D / h_l, the 0-based position of the i-th row (i = 1 .. h_l) is
        h' i - ceil(h' / 2); the same along every axis (the paper's P(l), which counts from 1).
        """
        return _positions(self, self.check_layers(layer))

    def flat_positions(self, layer: int) -> Int[np.ndarray, " n"]:
        """`positions(layer)` as row-major indices into the finest grid."""
        return np.ravel_multi_index(tuple(self.positions(layer).T), self.grid)

    @property
    def waves(self) -> tuple[tuple[int, ...], ...]:
        """Layers that can be searched together: a layer joins the current wave unless it shares a
        position with a layer already in it."""
        waves: list[list[int]] = []
        taken: set[int] = set()
        for layer in range(1, len(self) + 1):
            here = set(self.flat_positions(layer).tolist())
            if waves and not taken & here:
                waves[-1].append(layer)
                taken |= here
            else:
                waves.append([layer])
                taken = here
        return tuple(tuple(wave) for wave in waves)

    def tokens(self, layers: int | None = None) -> int:
        """How many words the first `layers` layers hold (all layers by default)."""
        return self.sizes[self.check_layers(layers) - 1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many words every prefix holds: of the first layer, of the first two, ... of all."""
        return tuple(accumulate(map(prod, self.sides)))

    @property
    def above(self) -> Int[np.ndarray, " n"]:
        """For every word of the flat sequence (top layer first, each row-major) the place in it of the word above, the
        one of the layer before whose region holds this word's; -1 in the top layer. Read-only int64."""
        return _above(self)

    def coverage(self, layers: int | None = None, first: int = 1) -> Int[np.ndarray, "..."]:
        """Tokens per position of the finest grid of the layers `first` .. `layers`; int64 of shape `grid`."""
        counts = np.zeros(prod(self.grid), np.int64)
        for layer in range(first, self.check_layers(layers) + 1):
            counts[self.flat_positions(layer)] += 1
        return counts.reshape(self.grid)

    def nearest_covered(self, layers: int | None = None, first: int = 1) -> Int[np.ndarray, " n"]:
        """For every position of the finest grid (flat, row-major), the flat index of the nearest position
        that the layers `first` .. `layers` cover: Euclidean distance in grid steps, ties to the lowest index.
        """
        covered = np.flatnonzero(self.coverage(layers, first))
        if len(covered) == prod(self.grid):
            return covered
        points = np.stack(np.unravel_index(np.arange(prod(self.grid)), self.grid), axis=1)
        nearest = np.empty(len(points), np.int64)
        for start in range(0, len(points), 256):  # 256 rows at a time keep the distances of large grids small
            gaps = points[start : start + 256, None, :] - points[covered][None, :, :]
            nearest[start : start + 256] = covered[np.argmin((gaps**2).sum(-1), axis=1)]
        return nearest


def grids_text(layers: Sequence[tuple[int, ...]]) -> str:
    """Grids as one reads them: "1x1 2x2 4x4"."""
    return " ".join("x".join(map(str, grid)) for grid in layers)


def _grid(side: Any) -> tuple[int, ...]:
    sides = (side, side) if isinstance(side, (int, np.integer)) else side
    integers = isinstance(sides, (tuple, list)) and all(
        isinstance(s, (int, np.integer)) and not isinstance(s, bool) and s >= 1 for s in sides
    )
    if isinstance(side, bool) or not integers or not sides:
        raise InputError(
            f"pyramid shape: wanted a positive integer or a tuple of them per layer; got {side!r}"
        )
    return tuple(int(s) for s in sides)


@lru_cache(maxsize=256)
def _positions(shape: PyramidShape, layer: int) -> np.ndarray:
    axes = []
    for fine, side in zip(shape.grid, shape.layers[layer - 1], strict=True):
        step = fine // side
        axes.append([step * i - (step + 1) // 2 for i in range(1, side + 1)])
    positions = np.array(list(product(*axes)), np.int64)
    positions.setflags(write=False)
    return positions


@lru_cache(maxsize=256)
def _above(shape: PyramidShape) -> np.ndarray:
    above = [np.full(prod(shape.layers[0]), -1, np.int64)]
    starts = (0, *shape.sizes)
    for start, upper, grid in zip(starts, shape.layers, shape.layers[1:], strict=False):
        places = np.indices(grid).reshape(len(grid), -1)
        parents = tuple(i * a // n for i, a, n in zip(places, upper, grid, strict=True))
        above.append(start + np.ravel_multi_index(parents, upper))
    flat = np.concatenate(above)
    flat.setflags(write=False)
    return flat


@dataclass(frozen=True, eq=False)
class Pyramid:
    """The words of an image: one int32 array of ids per layer, for a prefix of the shape's layers.

    `ids[l]` has the grid of layer l + 1 as its shape (integer arrays or nested lists are taken and copied
    to read-only int32). `vocabulary` gives the words; None is allowed where only ids matter.
    Two pyramids are equal when shape and ids are.

    Raises:
        InputError: no or too many layers, a wrong grid, ids that are not integers, negative, or (with a vocabulary)
            beyond its last word.
    """

    ids: tuple[np.ndarray, ...]
    shape: PyramidShape
    vocabulary: HasWords | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.shape, PyramidShape):
            raise InputError(f"pyramid: wanted a PyramidShape as its shape; got {type(self.shape).__name__}")
        if not 1 <= len(self.ids) <= len(self.shape):
            raise InputError(f"pyramid: wanted the ids of 1 to {len(self.shape)} layers; got {len(self.ids)}")
        size = None if self.vocabulary is None else len(self.vocabulary.words)
        layers = tuple(
            _checked_ids(ids, number, grid, size)
            for number, (ids, grid) in enumerate(zip(self.ids, self.shape.layers, strict=False), 1)
        )
        object.__setattr__(self, "ids", layers)

    @classmethod
    def from_ids(
        cls,
        ids: Sequence[int] | Int[np.ndarray, " n"],
        shape: PyramidShape,
        vocabulary: HasWords | None = None,
    ) -> "Pyramid":
        """The pyramid whose words, top layer first and each grid row by row, have these ids; their number says how many
        layers there are.

        Raises:
            InputError: a number of ids that is not that of whole layers, and as the constructor does.
        """
        if len(ids) not in shape.sizes:
            raise InputError(
                f"wanted as many ids as whole layers hold, {', '.join(map(str, shape.sizes))}; got {len(ids)}"
            )
        layers = shape.sizes.index(len(ids)) + 1
        parts = np.split(np.asarray(ids), shape.sizes[: layers - 1])
        grids = zip(parts, shape.layers, strict=False)
        return cls(tuple(part.reshape(grid) for part, grid in grids), shape, vocabulary)

    @property
    def layers(self) -> int:
        """How many layers are held."""
        return len(self.ids)

    @property
    def flat_ids(self) -> Int[np.ndarray, " n"]:
        """The ids of all words held, in the order of `text`: int32, a copy."""
        return np.concatenate([ids.ravel() for ids in self.ids])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pyramid):
            return NotImplemented
        return (
            self.shape == other.shape
            and self.layers == other.layers
            and all(np.array_equal(a, b) for a, b in zip(self.ids, other.ids, strict=True))
        )

    def __hash__(self) -> int:
        return hash((self.shape, tuple(ids.tobytes() for ids in self.ids)))

    def __repr__(self) -> str:
        """Which layers are held, and the first words (ids where there is no vocabulary)."""
        ids = [i for grid in self.ids for i in grid.ravel()[:_SHOWN].tolist()][:_SHOWN]
        first = [str(i) if self.vocabulary is None else self.vocabulary.words[i] for i in ids]
        count = self.shape.tokens(self.layers)
        kind = ("id" if self.vocabulary is None else "word") + ("s" if count > 1 else "")
        more = ["..."] if count > _SHOWN else []
        held = f"{self.layers} of {len(self.shape)} layers ({grids_text(self.shape.layers[: self.layers])})"
        return f"<Pyramid: {held}, {count} {kind}: {' '.join(first + more)}>"

    def _count(self, layers: int | None) -> int:
        if layers is None:
            return self.layers
        count = self.shape.check_layers(layers)
        if count > self.layers:
            raise InputError(
                f"layers: this pyramid holds the first {self.layers} of {len(self.shape)}; got {count}; "
                f"ask for at most {self.layers}"
            )
        return count

    def words(self, layers: int | None = None) -> list[list[str]]:
        """The words of each of the first `layers` layers, row-major."""
        if self.vocabulary is None:
            raise InputError("pyramid: it was made without a vocabulary, so it has ids but no words")
        words = self.vocabulary.words
        return [[words[i] for i in ids.ravel().tolist()] for ids in self.ids[: self._count(layers)]]

    def text(self, layers: int | None = None) -> str:
        """All words of the first `layers` layers, top layer first, joined by single spaces."""
        return " ".join(word for layer in self.words(layers) for word in layer)

    def prefix(self, layers: int) -> "Pyramid":
        """The pyramid of the first `layers` layers."""
        return Pyramid(self.ids[: self._count(layers)], self.shape, self.vocabulary)

    def json(self, layers: int | None = None) -> list[dict[str, Any]]:
        """Per layer `{"height", "width", "words", "ids"}`, words and ids flat and row-major, ready for
        `json.dumps`; layers that are not 2-D have `"grid"` instead of height and width."""
        entries: list[dict[str, Any]] = []
        for words, ids in zip(self.words(layers), self.ids, strict=False):
            grid = ids.shape
            place = {"height": grid[0], "width": grid[1]} if len(grid) == 2 else {"grid": list(grid)}
            entries.append({**place, "words": words, "ids": ids.ravel().tolist()})
        return entries


def _checked_ids(ids: Any, layer: int, grid: Sequence[int], vocabulary_size: int | None) -> np.ndarray:
    array = np.asarray(ids)
    if array.dtype.kind not in "iu":
        raise InputError(f"pyramid: wanted integer ids in layer {layer}; got {array.dtype}")
    if array.shape != tuple(grid):
        raise InputError(f"pyramid: wanted ids of shape {tuple(grid)} in layer {layer}; got {array.shape}")
    top = np.iinfo(np.int32).max if vocabulary_size is None else vocabulary_size - 1
    if array.min() < 0 or array.max() > top:
        raise InputError(
            f"pyramid: wanted ids from 0 to {top} in layer {layer}; got {array.min()} to {array.max()}; "
            "was it made with another vocabulary?"
        )
    copy = array.astype(np.int32)
    copy.setflags(write=False)
    return copy
