"""How well every prefix of the pyramids gives the images back; grows batch by batch."""

import math
from typing import Any

import numpy as np
from jaxtyping import UInt8

from spae.pyramid import Pyramid
from spae.tokenizer import Tokenizer
from tokenizer_train.evaluation.pair_measures import Measure
from tokenizer_train.evaluation.set_measures import SetMeasures


class Reconstruction:
    """Sums over images; no image is kept.

    Args:
        tokenizer: whose reconstructions are measured.
        pairs: measures of a reconstruction against its original.
        sets: measures of all reconstructions against all originals.
    """

    def __init__(self, tokenizer: Tokenizer, pairs: dict[str, Measure], sets: SetMeasures) -> None:
        self._tokenizer, self._pairs, self._sets = tokenizer, pairs, sets
        self._images = 0
        self._sums_pm = np.zeros((len(tokenizer.shape), len(pairs)))  # of each prefix and measure

    def add(self, count: int, images: UInt8[np.ndarray, "b *t H W 3"], pyramids: list[Pyramid]) -> None:
        """A batch of images and their pyramids; the first `count` of them are no filler."""
        prefixes = range(1, len(self._tokenizer.shape) + 1)
        decoded = [self._tokenizer.decode(pyramids, layers=n) for n in prefixes]
        for m, measure in enumerate(self._pairs.values()):
            compare = measure(images)
            self._sums_pm[:, m] += [compare(x)[:count].sum(dtype=float) for x in decoded]
        self._sets.add(count, images, decoded)
        self._images += count

    def results(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The figures of the images themselves, and of each prefix the size in words and in bits (words x log2 of the
        vocabulary) and its figures."""
        originals, distances = self._sets.results()
        bits = math.log2(len(self._tokenizer.vocabulary))
        prefixes = []
        for n, distance in enumerate(distances, start=1):
            words = self._tokenizer.shape.tokens(n)
            means_m = (self._sums_pm[n - 1] / self._images).tolist()
            prefixes.append(
                {"layers": n, "words": words}
                | dict(zip(self._pairs, means_m, strict=True))
                | {"bits": round(words * bits, 1)}
                | distance
            )
        return originals, prefixes
