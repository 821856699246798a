"""How finely a frozen trunk looks. Apart from the networks, and without JAX: a bundle's header tells it."""

from collections.abc import Mapping
from typing import Any

CONSE_SIDE = 224  # pixels, of EfficientNet-Lite0's squares


def trunk_side(kind: str, sizes: Mapping[str, Any]) -> int:
    """Side in pixels of the square that a trunk reads; 0: there is no trunk.

    Args:
        kind: "conse", "clip" or "none".
        sizes: as `spae.guidance.trunks.sizes` gave them.
    """
    if kind == "none":
        return 0
    return CONSE_SIDE if kind == "conse" else sizes["image_size"]
