"""The words of all images, as numbers, and how the vocabulary is used."""

from typing import Any

import numpy as np
from jaxtyping import Int

from spae.metrics import Usage, counted_usage
from spae.pyramid import Pyramid, PyramidShape


class Words:
    """Ids of the words of so many images, in as few bytes as they take.

    Attributes:
        ids_nk: the words of all layers, one after the other, a row for each image.
    """

    def __init__(self, count: int, shape: PyramidShape, vocabulary_size: int) -> None:
        self.ids_nk: Int[np.ndarray, "n k"] = np.empty(
            (count, shape.tokens()), np.min_scalar_type(vocabulary_size - 1)
        )
        # How often each layer used each word.
        self._uses_lv = np.zeros((len(shape), vocabulary_size), np.int64)

    def add(self, places_b: Int[np.ndarray, " b"], pyramids: list[Pyramid]) -> None:
        """Pyramids by the places of their images; what is beyond those is filler."""
        for place, pyramid in zip(places_b, pyramids, strict=False):
            self.ids_nk[place] = pyramid.flat_ids
            for uses_v, ids in zip(self._uses_lv, pyramid.ids, strict=True):
                np.add.at(uses_v, ids.ravel(), 1)

    def layers(self) -> list[dict[str, Any]]:
        """Of every layer: distinct words, their share of the vocabulary, and the perplexity of their use."""
        return [
            {"layer": n, "words_per_image": used.positions // len(self.ids_nk)} | self._shown(used)
            for n, used in enumerate(map(counted_usage, self._uses_lv), start=1)
        ]

    def all_layers(self) -> dict[str, Any]:
        """The same over the words of all layers together."""
        return self._shown(counted_usage(self._uses_lv.sum(axis=0)))

    def _shown(self, used: Usage) -> dict[str, Any]:
        share = used.used / self._uses_lv.shape[1]
        return {"distinct": used.used, "usage": share, "perplexity": used.perplexity}
