"""Token sequences of many lengths in few array shapes: little padding, and few compilations."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int

_ROWS = 256
_SHORTEST = 8


def _bucket(n: int) -> int:
    return max(_SHORTEST, 1 << (n - 1).bit_length())


def padded(
    sequences: Sequence[Sequence[int]], longest: int
) -> Iterator[tuple[list[int], Int[np.ndarray, "b t"], Bool[np.ndarray, "b t"]]]:
    """Batches of (which sequences, their ids padded with 0, where they are not padding).

    Sequences are grouped by length; sides are powers of two, at most 256 rows and `longest` columns. Rows
    that only fill the batch have one valid position: a mean over valid positions divides by no zero.
    """
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for start in range(0, len(order), _ROWS):
        chosen = order[start : start + _ROWS]
        columns = min(_bucket(len(sequences[chosen[-1]])), longest)
        ids = np.zeros((_bucket(len(chosen)), columns), np.int32)
        mask = np.zeros(ids.shape, bool)
        mask[:, 0] = True
        for row, i in enumerate(chosen):
            ids[row, : len(sequences[i])] = sequences[i]
            mask[row, : len(sequences[i])] = True
        yield chosen, ids, mask
