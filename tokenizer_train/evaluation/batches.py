"""Arrays and images in batches of one size, so that nothing is compiled for a rest."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import Int, Shaped, UInt8

from spae.progress import Progress, counted
from spae.sources import Source

_THREADS = 8
_AHEAD = 4  # batches of images that are read while one is worked on


def batches(arrays: Sequence[np.ndarray], size: int, what: str) -> Iterator[tuple[int, list[np.ndarray]]]:
    """How many rows count, and `size` rows of each array: the last batch is filled up with its last row.

    Args:
        arrays: of one length.
        what: the name of the progress bar.
    """
    starts = range(0, len(arrays[0]), size)
    for start in counted(starts, what, "batch"):
        parts = [array[start : start + size] for array in arrays]
        yield len(parts[0]), [_filled(part, size) for part in parts]


def mapped(
    function: Callable[..., Any], arrays: Sequence[np.ndarray], size: int, what: str
) -> Shaped[np.ndarray, "n ..."]:
    """`function` over the arrays' rows, `size` at a time; no filler is in the result."""
    return np.concatenate(
        [np.asarray(function(*rows))[:count] for count, rows in batches(arrays, size, what)]
    )


def read(
    source: Source,
    indices_n: Int[np.ndarray, " n"],
    square: Callable[[Any], UInt8[np.ndarray, "*t s s 3"]],
    size: int,
    what: str,
) -> Iterator[tuple[Int[np.ndarray, " b"], list[UInt8[np.ndarray, "*t s s 3"]]]]:
    """The images of a source in batches, read ahead by threads: for each batch the places in `indices_n` of its
    images, and `size` images, filled up with the last one.

    They come in the order of the source, not of `indices_n`: files are read from front to back, and a row group of
    parquet is decoded once.

    Args:
        square: makes of every image what is handed out; arrays of several sizes, if it likes (see `by_side`).
        what: the name of the progress bar.

    Raises:
        InputError: an image cannot be read.
    """
    order_n = np.argsort(indices_n)
    images = grain.MapDataset.source(_Images(source, indices_n[order_n], square))
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD * size)
    squares = iter(images.to_iter_dataset(options))
    with Progress(len(order_n), what, "image") as progress:
        for start in range(0, len(order_n), size):
            places_b = order_n[start : start + size]
            batch = [next(squares) for _ in places_b]
            yield places_b, batch + batch[-1:] * (size - len(batch))
            progress.update(len(places_b))


def by_side(
    squares: Sequence[UInt8[np.ndarray, "*t _s _s 3"]], size: int
) -> Iterator[tuple[Int[np.ndarray, " b"], UInt8[np.ndarray, "size *t s s 3"]]]:
    """At most `size` squares of several sizes, those of each together: their places, and `size` of them, filled up as
    in `batches`."""
    sides_n = np.array([one.shape[-2] for one in squares])
    for side in np.unique(sides_n):
        places_b = np.flatnonzero(sides_n == side)
        yield places_b, _filled(np.stack([squares[place] for place in places_b.tolist()]), size)


class _Images:
    """Images by place, as Grain wants them."""

    def __init__(self, source: Source, indices_n: np.ndarray, square: Callable[[Any], np.ndarray]) -> None:
        self._source, self._indices_n, self._square = source, indices_n, square

    def __len__(self) -> int:
        return len(self._indices_n)

    def __getitem__(self, place: int) -> np.ndarray:
        return self._square(self._source[int(self._indices_n[place])].image)


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
