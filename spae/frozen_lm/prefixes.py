"""What was computed for recent prompts, so that a prompt that begins like one of them starts from there."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from spae.frozen_lm.model import Cache

# Tokens in common below which reading them again is quicker than copying their cache.
_WORTHWHILE = 16


@dataclass(frozen=True)
class Prefix:
    """A prompt, its cache (to be read, never handed to a function that overwrites it), the logits behind it."""

    ids: Int[np.ndarray, " n"]
    cache: Cache
    logits: Float[np.ndarray, " v"]


class Prefixes:
    """Recent prompts, the latest last, whose caches take at most `limit` bytes together."""

    def __init__(self, limit: int):
        self._limit = limit
        self._kept: list[Prefix] = []

    def longest(self, ids: list[int]) -> tuple[Prefix | None, int]:
        """The prompt that has most tokens in common with the beginning of `ids`, and how many."""
        wanted = np.array(ids)
        best, most = None, _WORTHWHILE - 1
        for prefix in self._kept:
            common = in_common(prefix.ids, wanted)
            if common > most:
                best, most = prefix, common
        if best is None:
            return None, 0
        self._kept = [prefix for prefix in self._kept if prefix is not best] + [best]
        return best, most

    def add(self, new: Prefix) -> None:
        """Keeps it, in the place of those that it goes on; the oldest make room."""
        kept = [old for old in self._kept if in_common(old.ids, new.ids) < len(old.ids)]
        kept.append(new)
        while sum(map(_bytes, kept)) > self._limit:
            kept.pop(0)
        self._kept = kept


def in_common(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " m"]) -> int:
    """How many tokens two prompts have in common at their beginning."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if different.size else n


def _bytes(prefix: Prefix) -> int:
    return prefix.logits.nbytes + sum(part.nbytes for layer in prefix.cache for part in layer)
