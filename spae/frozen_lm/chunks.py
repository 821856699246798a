"""Sizes in which tokens are read and kept: few, so that few programs compile."""

from collections.abc import Iterator

# Tokens are read in chunks padded to one of these.
CHUNKS = (1, 8, 32, 128, 256)
_SMALLEST_CAPACITY = 512  # tokens; at least the largest chunk


def capacity_for(tokens: int) -> int:
    """Of a cache for so many tokens."""
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


def groups(continuations: list[list[int]], most: int) -> Iterator[list[list[int]]]:
    """In order, as many as have together at most so many tokens besides their first; a longer one is alone."""
    group: list[list[int]] = []
    count = 0
    for one in continuations:
        if group and count + len(one) - 1 > most:
            yield group
            group, count = [], 0
        group.append(one)
        count += len(one) - 1
    if group:
        yield group
