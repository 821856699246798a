"""Regions of an image: the squares of one or more grids over it, and what a network sees in each of them.

A grid of side n cuts the image's centre square into n x n equal squares. Regions are counted grid by grid, each in
row-major order: sides (1, 2, 4) make 1 + 4 + 16 regions, the first of them the whole image.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from spae.errors import InputError
from spae.guidance.protocol import ImageTower, Way
from spae.guidance.resize import resize_square


def spans(side: int, length: int) -> list[tuple[int, int]]:
    """(first, end) of the cells that each of `side` equal parts of a row of `length` cells overlaps, end excluded:
    floor(i length / side) to ceil((i + 1) length / side). Neighbours share the cell that their border cuts.

    Raises:
        InputError: a side below 1, or above the number of cells: some parts would be the same.
    """
    if not 1 <= side <= length:
        raise InputError(
            f"expected grids of regions with a side of 1 to {length}, got {side}: the image has no more than "
            f"{length} x {length} cells here"
        )
    return [(i * length // side, -(-(i + 1) * length // side)) for i in range(side)]


def region_means(map_bhwc: Float[Array, "b s s c"], sides: Sequence[int]) -> Float[Array, "b r c"]:
    """The mean of a square map of features over the cells of every region: PyTorch's adaptive average pooling.

    Raises:
        InputError: no side, or one below 1 or above the map's.
    """
    _check(sides)
    batch, length, _, width = map_bhwc.shape
    grids = []
    for side in sides:
        parts = spans(side, length)
        rows = jnp.stack([map_bhwc[:, first:end].mean(axis=1) for first, end in parts], axis=1)
        grid = jnp.stack([rows[:, :, first:end].mean(axis=2) for first, end in parts], axis=2)
        grids.append(grid.reshape(batch, side * side, width))
    return jnp.concatenate(grids, axis=1)


def part_means(
    map_bhwc: Float[Array, "b s s c"], weights_brhw: Float[Array, "b r s s"]
) -> Float[Array, "b r c"]:
    """The mean of a map of features over parts of any form, by how much of each cell is in a part.

    Args:
        map_bhwc: of the network's last layer.
        weights_brhw: 0 or more, and of each part not all 0.
    """
    total_br = jnp.sum(weights_brhw, axis=(2, 3))
    return jnp.einsum("bhwc,brhw->brc", map_bhwc, weights_brhw) / total_br[..., None]


def crop_regions(
    tower: Callable[[Float[Array, "b s s 3"]], Float[Array, "b d"]],
    images_bhwc: Float[Array, "b h w 3"],
    sides: Sequence[int],
    image_size: int,
) -> Float[Array, "b r d"]:
    """The tower's vector of every region cut out of the images and seen by itself.

    Finer than the map's means, and as many passes of the network as there are regions, one after the other. A pixel
    that a border cuts belongs to both regions.

    Args:
        tower: images of `image_size` a side -> vectors.
        images_bhwc: RGB images in [0, 1] of any size.
        image_size: side in pixels to which the regions are enlarged (or shrunk).

    Raises:
        InputError: no side, or one below 1 or above the pixels of an image's shorter side.
    """
    _check(sides)
    length = min(images_bhwc.shape[1:3])
    square = resize_square(images_bhwc, length)  # their size as it is: this cuts only
    crops = [
        resize_square(square[:, top:bottom, left:right], image_size)
        for side in sides
        for top, bottom in spans(side, length)
        for left, right in spans(side, length)
    ]
    return jax.lax.map(tower, jnp.stack(crops)).swapaxes(0, 1)


def region_vectors(
    tower: ImageTower, images_bhwc: Float[Array, "b h w 3"], sides: Sequence[int], way: Way = "map"
) -> Float[Array, "b r d"]:
    """The tower's vector of every region, "map" by `tower.regions` or "crops" by `crop_regions`.

    Raises:
        InputError: another way; no side, or one below 1 or finer than what is cut.
    """
    if way not in ("map", "crops"):
        raise InputError(f"regions are seen by map or by crops, not by {way!r}")
    if way == "map":
        return tower.regions(images_bhwc, sides)
    return crop_regions(tower, images_bhwc, sides, tower.image_size)


def compiled_regions(
    tower: ImageTower,
) -> Callable[[Float[Array, "b h w 3"], Sequence[int], Way], Float[Array, "b r d"]]:
    """`region_vectors` of a tower with its parameters, compiled for each choice of sides and way."""
    graph, state = nnx.split(tower)

    @partial(jax.jit, static_argnums=(2, 3))
    def run(state: nnx.State, images_bhwc: Float[Array, "b h w 3"], sides: tuple[int, ...], way: Way):
        return region_vectors(nnx.merge(graph, state), images_bhwc, sides, way)

    return lambda images_bhwc, sides, way: run(state, images_bhwc, tuple(sides), way)


def _check(sides: Sequence[int]) -> None:
    if not sides:
        raise InputError(
            "expected the side of at least one grid of regions, got none: (1,) is the whole image"
        )
