"""What a guidance is: images and texts as unit vectors of one space, so that words have scores."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float


@runtime_checkable
class Guidance(Protocol):
    """Maps images and texts into one space; their inner product says how well they fit.

    Attributes:
        name: "conse", "clip", ...; stated wherever results of this guidance are.
        templates: prompts with one `{}`, where a word is put.
        image_size: side in pixels of the square the image tower reads.
        width: of the vectors.
        fingerprint: sha256 over weights and preprocessing; equal fingerprints give equal vectors.
    """

    @property
    def name(self) -> str: ...
    @property
    def templates(self) -> tuple[str, ...]: ...
    @property
    def image_size(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...

    def images(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        """RGB images in [0, 1] of any size (resized inside) -> float32 rows of unit length."""

    def texts(self, texts: list[str]) -> Float[Array | np.ndarray, "n d"]:
        """Texts -> float32 rows of unit length."""
