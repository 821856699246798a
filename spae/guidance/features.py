"""What frozen image networks see, in the forms that connectors take: one vector, a map, or several layers of maps."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from spae.connector_config import Look, parse_trunk
from spae.errors import InputError
from spae.guidance import efficientnet
from spae.guidance.clip import Clip
from spae.guidance.clip.towers import ClipImageTower
from spae.guidance.efficientnet import EfficientNetLite0
from spae.guidance.regions import region_means

# Whose maps are taken together, counted as `states` counts them. CLIP's are those of ViP-LLaVA's code (arXiv
# 2312.00784); EfficientNet's the head and the ends of the stages of 8, 16 and 32 pixels a cell.
CLIP_LAYERS = (-2, -5, -8, -11, 6)
EFFICIENTNET_LAYERS = (-1, 15, 11, 8, 5)


# Called inside jit with squares (B, S, S, 3) in [0, 1] of its own size.
Network = EfficientNetLite0 | ClipImageTower


@dataclass(frozen=True, eq=False)
class Trunk:
    """A frozen image network with its weights.

    Attributes:
        kind: "efficientnet" or "clip".
        network: that.
        image_size: side in pixels of the squares that it reads.
        layers: of `states`, for "layers"; the first is what "map" takes.
        sha256: of the weights and what is done to pixels, in hexadecimal.
    """

    kind: str
    network: Network
    image_size: int
    layers: tuple[int, ...]
    sha256: str


def load_trunk(name: str) -> Trunk:
    """The trunk of a name: "efficientnet" (EfficientNet-Lite0 of its package), or "clip:PATH" (`spae.guidance.clip`).

    Raises:
        InputError: another name, or the weights are not there or damaged.
    """
    kind, place = parse_trunk(name)
    if kind == "efficientnet":
        network, sha256 = efficientnet.packaged()
        return Trunk(kind, network, efficientnet.IMAGE_SIZE, EFFICIENTNET_LAYERS, sha256)
    clip = Clip(Path(place))
    sha256 = hashlib.sha256(clip.fingerprint.encode()).hexdigest()
    return Trunk(kind, clip.tower, clip.image_size, CLIP_LAYERS, sha256)


def features(
    network: Network,
    images_bhwc: Float[Array, "b s s 3"],
    look: Look,
    layers: tuple[int, ...],
    grid: int | None = None,
) -> Float[Array, "b n c"]:
    """What a connector takes of images.

    Args:
        network: of a trunk.
        images_bhwc: in [0, 1], of the network's size.
        look: "pooled", one vector (n = 1); "map", a vector for each cell of one layer, row by row; "layers", the same
            of several layers, side by side.
        layers: of the trunk; "map" takes the first.
        grid: side of the square of cells, to which maps are pooled; None: that of the first layer.

    Raises:
        InputError: a layer that the network does not have, or a grid finer than a layer's map.
    """
    if look == "pooled":
        return network.pooled(images_bhwc)[:, None]
    states = network.states(images_bhwc)
    layers = layers if look == "layers" else layers[:1]
    if not all(-len(states) <= layer < len(states) for layer in layers):
        raise InputError(f"wanted the layers {layers} of a network that has {len(states)}: name others")
    side = grid or states[layers[0]].shape[1]
    return jnp.concatenate([region_means(states[layer], (side,)) for layer in layers], axis=-1)


def features_shape(trunk: Trunk, look: Look, grid: int | None) -> tuple[int, int]:
    """n and c of `features`. Raises as it does."""
    images = jax.ShapeDtypeStruct((1, trunk.image_size, trunk.image_size, 3), jnp.float32)
    graph, state = nnx.split(trunk.network)

    def look_at(state: nnx.State, images: Array) -> Array:
        return features(nnx.merge(graph, state), images, look, trunk.layers, grid)

    shape = jax.eval_shape(look_at, state, images).shape
    return shape[1], shape[2]
