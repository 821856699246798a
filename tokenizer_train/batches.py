"""Arrays in batches of one size, so that nothing is compiled for a rest."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped
from tqdm import tqdm


def batches(arrays: Sequence[np.ndarray], size: int, what: str) -> Iterator[tuple[int, list[np.ndarray]]]:
    """How many rows count, and `size` rows of each array: the last batch is filled up with its last row.

    Args:
        arrays: of one length.
        what: the name of the progress bar.
    """
    starts = range(0, len(arrays[0]), size)
    for start in tqdm(starts, desc=what, unit="batch", disable=None, leave=False):
        parts = [array[start : start + size] for array in arrays]
        count = len(parts[0])
        yield count, [np.concatenate([part, np.repeat(part[-1:], size - count, axis=0)]) for part in parts]


def mapped(
    function: Callable[..., Any], arrays: Sequence[np.ndarray], size: int, what: str
) -> Shaped[np.ndarray, "n ..."]:
    """`function` over the arrays' rows, `size` at a time; no filler is in the result."""
    return np.concatenate(
        [np.asarray(function(*rows))[:count] for count, rows in batches(arrays, size, what)]
    )
