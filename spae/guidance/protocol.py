"""What a guidance is: images and texts as unit vectors of one space, so that words have scores."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float

Way = Literal["map", "crops"]  # how regions of an image are seen


@runtime_checkable
class ImageTower(Protocol):
    """The image side of a guidance, a frozen network; callable inside jit.

    Attributes:
        image_size: side in pixels of the square it reads.
        width: of the vectors.
        cells: side of the last map of the network.
    """

    @property
    def image_size(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def cells(self) -> int: ...

    def __call__(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        """RGB images in [0, 1] of any size (resized inside) -> float32 rows of unit length."""

    def regions(self, images_bhwc: Float[Array, "b h w 3"], sides: Sequence[int]) -> Float[Array, "b r d"]:
        """The vectors of every region of every grid, see `spae.guidance.regions`, in one pass of the network.

        sides: of the grids, (1, 2, 4) for r = 1 + 4 + 16 regions; side 1, the whole image, gives what a call gives.

        Raises:
            InputError: no side, or one below 1 or above that of the network's last map.
        """

    def parts(
        self, images_bhwc: Float[Array, "b h w 3"], weights_brhw: Float[Array, "b r s s"]
    ) -> Float[Array, "b r d"]:
        """The same for parts of any form, by how much of each of the map's cells is in a part."""


class ImageVectors(Protocol):
    """Maps images to rows of numbers that are computed once and kept (`spae.guidance.cache`).

    Attributes:
        name: "conse", "clip", ...; stated wherever results of it are.
        image_size: side in pixels of the square that it reads.
        width: of the rows.
        fingerprint: sha256 over weights and preprocessing; equal fingerprints give equal rows.
    """

    @property
    def name(self) -> str: ...
    @property
    def image_size(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...

    def images(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        """RGB images in [0, 1] of any size (resized inside) -> float32 rows."""


@runtime_checkable
class Guidance(ImageVectors, Protocol):
    """Maps images and texts into one space; rows have unit length, and their inner product says how well they fit.

    Attributes:
        templates: prompts with one `{}`, where a word is put.
    """

    @property
    def templates(self) -> tuple[str, ...]: ...

    def regions(
        self, images_bhwc: Float[Array, "b h w 3"], sides: Sequence[int], way: Way = "map"
    ) -> Float[Array, "b r d"]:
        """Rows of every region of grids of these sides, see `spae.guidance.regions`.

        way: "map", one pass of the network, whose last map is averaged over each region; "crops", every region cut
            out, enlarged and seen by itself, a pass for each.

        Raises:
            InputError: no side, or one below 1 or finer than what is cut; another way, or one that this guidance lacks.
        """

    def texts(self, texts: list[str]) -> Float[Array | np.ndarray, "n d"]:
        """Texts -> float32 rows of unit length."""
