"""The frozen networks that feed a tokenizer's meaning head: the image sides of guidances, by kind.

A bundle holds its trunk's parameters, and the network's sizes where its kind alone does not say them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from spae.errors import InputError
from spae.guidance.clip.towers import ClipImageTower, ImageSizes
from spae.guidance.conse import ConseImageTower


def check(kind: str, trunk: nnx.Module | None) -> None:
    """That a trunk is of the kind "conse", "clip" or "none"; for "conse" it may be missing, a package has it.

    Raises:
        InputError: it is of another kind, or missing.
    """
    fits = {
        "none": trunk is None,
        "conse": trunk is None or isinstance(trunk, ConseImageTower),
        "clip": isinstance(trunk, ClipImageTower),
    }
    if not fits.get(kind, False):
        raise InputError(
            f"wanted a trunk of kind {kind!r}, got {type(trunk).__name__}: pass the tower of that guidance, "
            "and name it conse, clip or none"
        )


def sizes(trunk: nnx.Module | None) -> dict[str, Any]:
    """What a bundle must say of the trunk's architecture, as JSON; ConSE's is always the same."""
    return dataclasses.asdict(trunk.sizes) if isinstance(trunk, ClipImageTower) else {}


def builder(kind: str, sizes: Mapping[str, Any]) -> Callable[[nnx.Rngs], nnx.Module]:
    """What makes a trunk of random parameters, to be filled.

    Args:
        kind: "conse" or "clip".
        sizes: as `sizes` gave them.

    Raises:
        TypeError: a size is missing, or one too many.
    """
    if kind == "clip":
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in sizes.items()}
        known = ImageSizes(**fields)
        return lambda rngs: ClipImageTower(known, rngs=rngs)
    return lambda rngs: ConseImageTower(rngs=rngs)
