"""A region of one image, a box or a mask: what of the image is looked at for it, and which cells of a map it covers."""

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image

from spae.errors import InputError
from spae.images import to_rgb

Region = Sequence[float] | Bool[np.ndarray, "h w"]

LEAST = 1e-3  # pixels of a box's side: in float32 less would be nothing


@dataclass(frozen=True)
class Look:
    """A square part of an image, and a region's share of each of its pixels.

    Attributes:
        square_hwc: uint8 (S, S, 3).
        share_hw: float32 (S, S) in [0, 1], not all 0.
    """

    square_hwc: UInt8[np.ndarray, "s s 3"]
    share_hw: Float32[np.ndarray, "s s"]

    def cells(self, side: int) -> Float32[np.ndarray, "side side"]:
        """The region's share of each cell of a square map over the square, in [0, 1], not all 0."""
        # Rows of the matrix are the cells, its columns how much of each pixel lies in them.
        edges = np.arange(side + 1) * (len(self.share_hw) / side)
        pixels = np.arange(len(self.share_hw))
        within = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        share = np.maximum(within, 0) * (side / len(self.share_hw))
        return (share @ self.share_hw.astype(np.float64) @ share.T).astype(np.float32)


def look(image: Image.Image | UInt8[np.ndarray, "h w 3"], region: Region) -> Look:
    """What is looked at for a region: the central square of the image, which is what a tokenizer sees of it, where the
    region lies wholly inside; else the whole image, its shorter side padded to a square with its mean colour.

    Args:
        image: a PIL image (turned upright first) or a uint8 array (H, W, 3).
        region: a box (x, y, width, height) in pixels of the upright image, from its upper left corner, fractions
            allowed; or a mask, bool (H, W).

    Raises:
        InputError: not an image; a box that is empty, inverted or not wholly on the image; a mask of another size
            or type, or with nothing in it.
    """
    image_hwc = to_rgb(image)
    share_hw = _share(region, *image_hwc.shape[:2])
    height, width = share_hw.shape
    small, large = min(height, width), max(height, width)
    left, top = (width - small) // 2, (height - small) // 2
    central = (slice(top, top + small), slice(left, left + small))
    if share_hw[central].sum() == share_hw.sum():
        return Look(image_hwc[central], share_hw[central])
    square_hwc = np.empty((large, large, 3), np.uint8)
    square_hwc[:] = np.rint(image_hwc.mean(axis=(0, 1)))
    square_share_hw = np.zeros((large, large), np.float32)
    left, top = (large - width) // 2, (large - height) // 2
    whole = (slice(top, top + height), slice(left, left + width))
    square_hwc[whole], square_share_hw[whole] = image_hwc, share_hw
    return Look(square_hwc, square_share_hw)


def check(
    region: Region, height: int, width: int
) -> tuple[float, float, float, float] | Bool[np.ndarray, "h w"]:
    """The box (x, y, width, height) or the mask of an image of that size.

    Raises:
        InputError: a box that is empty, inverted or not wholly on the image; a mask of another size or type, or with
            nothing in it.
    """
    if isinstance(region, np.ndarray) and region.ndim == 2:
        if region.dtype != bool or region.shape != (height, width):
            raise InputError(
                f"wanted a mask of the image's {height} x {width} pixels (H, W) with True and False, got "
                f"{region.dtype} {region.shape}"
            )
        if not region.any():
            raise InputError("the mask holds no pixel: mark at least one as True")
        return region
    x, y, w, h = _box(region)
    if not (x >= 0 and y >= 0 and w >= LEAST and h >= LEAST and x + w <= width and y + h <= height):
        raise InputError(
            f"wanted a box (x, y, width, height) on the image of {width} x {height} pixels, of {LEAST:g} a side at "
            f"least, got ({x:g}, {y:g}, {w:g}, {h:g})"
        )
    return x, y, w, h


def _share(region: Region, height: int, width: int) -> Float32[np.ndarray, "h w"]:
    """The region's share of each pixel."""
    checked = check(region, height, width)
    if isinstance(checked, np.ndarray):
        return checked.astype(np.float32)
    x, y, w, h = checked
    return np.outer(_covered(y, y + h, height), _covered(x, x + w, width)).astype(np.float32)


def _box(region: Any) -> tuple[float, float, float, float]:
    try:
        numbers_ = [float(value) for value in region if isinstance(value, numbers.Real)]
        ok = len(numbers_) == len(region) == 4 and all(map(math.isfinite, numbers_))
    except TypeError:
        ok = False
    if not ok:
        raise InputError(f"wanted a box of four numbers (x, y, width, height) or a mask, got {region!r:.80}")
    x, y, w, h = numbers_
    return x, y, w, h


def _covered(start: float, end: float, length: int) -> Float[np.ndarray, " length"]:
    """How much of each of `length` pixels in a row lies between start and end."""
    pixels = np.arange(length)
    return np.clip(np.minimum(end, pixels + 1) - np.maximum(start, pixels), 0, 1)
