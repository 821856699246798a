"""Choices read from sha256, the same on every machine.

Every choice is a number read from sha256 over the seed, what is being chosen and a counter. NumPy's generators would
not do, for their streams may change from version to version.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Choices that depend on the seed (one or more numbers or texts) and on what is chosen; on no state, so that the
    order in which they are made does not matter, and the same purpose gives the same choice again."""

    def __init__(self, *seed: int | str) -> None:
        self._seed = seed

    def numbers(self, purpose: str) -> Iterator[int]:
        """Endless integers below 2**256, uniform."""
        counter = 0
        while True:
            text = json.dumps([*self._seed, purpose, counter])
            yield int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
            counter += 1

    def choose(self, purpose: str, items: Sequence[T], count: int) -> list[T]:
        """`count` different items in random order; a smaller count gives the beginning of a larger one."""
        swapped: dict[int, int] = {}  # of a Fisher-Yates shuffle, only the places that it has touched
        chosen = []
        for place, number in zip(range(count), self.numbers(purpose), strict=False):
            # The remainder is off uniform by less than 2**-200.
            there = place + number % (len(items) - place)
            chosen.append(items[swapped.get(there, there)])
            swapped[there] = swapped.get(place, place)
        return chosen

    def whole(self, purpose: str, least: int, most: int) -> int:
        """A whole number from `least` to `most`, both included."""
        return least + next(self.numbers(purpose)) % (most - least + 1)

    def uniform(self, purpose: str, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        return low + (high - low) * (next(self.numbers(purpose)) / 2**256)

    def normal(self, purpose: str, mean: float, deviation: float) -> float:
        """A number of the normal distribution, within seven standard deviations."""
        return mean + deviation * NormalDist().inv_cdf(self.uniform(purpose, 1e-12, 1 - 1e-12))
