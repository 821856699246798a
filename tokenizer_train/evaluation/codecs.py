"""JPEG and WebP with no more bits than the words of a prefix: the yardstick beside the reconstructions.

Words cost tokens x log2(vocabulary) bits: no entropy coding and no header, while the files count whole,
headers included. At a few hundred bits no such file exists, and that is what is reported.
"""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

QUALITIES = range(0, 101)
FORMATS = ("JPEG", "WEBP")
_OPTIONS: dict[str, dict] = {
    "JPEG": {"optimize": True, "subsampling": "4:2:0"},
    "WEBP": {"method": 6},
}


@dataclasses.dataclass(frozen=True)
class Coded:
    """One image through a codec, for one budget."""

    image: UInt8[np.ndarray, "H W 3"]  # what the file decodes to
    bits: int  # of the file
    fits: bool  # whether that is within the budget


def best_within(image: UInt8[np.ndarray, "H W 3"], budgets: Sequence[float], format: str) -> list[Coded]:
    """For each budget in bits: the file of the highest quality setting that fits, or the smallest file.

    Every setting 0..100 is tried, because sizes are not quite monotonic in it.

    Args:
        image: uint8 RGB.
        budgets: Bits, one result each.
        format: "JPEG" (Huffman tables optimised, 4:2:0) or "WEBP" (lossy, slowest method).
    """
    picture = Image.fromarray(image)
    files = []
    for quality in QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, format, quality=quality, **_OPTIONS[format])
        files.append(buffer.getvalue())
    smallest = min(files, key=len)
    chosen = []
    for budget in budgets:
        fitting = [file for file in files if 8 * len(file) <= budget]
        file = fitting[-1] if fitting else smallest
        decoded = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
        chosen.append(Coded(image=decoded, bits=8 * len(file), fits=bool(fitting)))
    return chosen
