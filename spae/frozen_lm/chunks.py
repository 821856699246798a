"""In which pieces a language model reads: chunks, caches and batches have one of few sizes, so few programs compile."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

CHUNKS = (1, 8, 32, 128, 256)  # tokens that are read in one call, padded to one of these
BATCHES = (1, 2, 4, 8, 16)
_SMALLEST_CAPACITY = 512  # tokens; at least the largest chunk


def capacity_for(tokens: int) -> int:
    """Of a cache that holds so many tokens."""
    capacity = _SMALLEST_CAPACITY
    while capacity < tokens:
        capacity *= 2
    return capacity


def chunks(start: int, end: int, room: int) -> Iterator[tuple[int, int, int]]:
    """Begin, end and padded size of the chunks in which the tokens from `start` to `end` are read.

    A chunk that would not fit into the room begins earlier, with tokens already read.
    """
    while start < end:
        stop = min(start + CHUNKS[-1], end)
        size = next(size for size in CHUNKS if size >= stop - start)
        yield min(start, room - size), stop, size
        start = stop


def groups(items: Sequence[T], most: int, size: Callable[[T], int]) -> Iterator[list[T]]:
    """In order, as many as have together at most this size; a larger one is alone."""
    group: list[T] = []
    total = 0
    for one in items:
        if group and total + size(one) > most:
            yield group
            group, total = [], 0
        group.append(one)
        total += size(one)
    if group:
        yield group
