"""LPIPS, the perceptual distance that the literature reports, with weights that the user brings.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, in version
0.1 of its published code: an AlexNet or VGG16 trained on ImageNet, and a trained weight for every channel.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from spae.errors import InputError
from spae.layers.convolution import Conv
from spae.metrics.feature_distance import FeatureDistance
from spae.weights.files import read_weights
from spae.weights.state_dict import StateDict

# Of each channel, for images in [-1, 1]; the published code has these digits.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class _Network:
    file: str  # torchvision's name of the weights, without the suffix; it ends in the sha256's first digits
    stages: tuple[tuple[tuple[int, int, int], ...], ...]  # (number among the features, kernel side, width)
    pool: int  # side of the maximum, stride 2, before the stages that are
    pooled: tuple[int, ...]
    first: tuple[int, int]  # padding and stride of the first convolution; the others keep the size


NETWORKS = {
    "alex": _Network(
        "alexnet-owt-7be5be79",
        (((0, 11, 64),), ((3, 5, 192),), ((6, 3, 384),), ((8, 3, 256),), ((10, 3, 256),)),
        pool=3,
        pooled=(1, 2),
        first=(2, 4),
    ),
    "vgg": _Network(
        "vgg16-397923af",
        (
            ((0, 3, 64), (2, 3, 64)),
            ((5, 3, 128), (7, 3, 128)),
            ((10, 3, 256), (12, 3, 256), (14, 3, 256)),
            ((17, 3, 512), (19, 3, 512), (21, 3, 512)),
            ((24, 3, 512), (26, 3, 512), (28, 3, 512)),
        ),
        pool=2,
        pooled=(1, 2, 3, 4),
        first=(1, 1),
    ),
}


class Lpips(FeatureDistance):
    """Distance between pairs of images.

    Args:
        variant: "alex" or "vgg".
        network: tensors in torchvision's names (`features.0.weight`, ...); the classifier is not needed.
        heads: tensors in the names of the package lpips (`lin0.model.1.weight`, ...), never negative.

    Raises:
        InputError: the variant is unknown; or a tensor is missing, has another shape, or is left over.
    """

    def __init__(self, variant: str, network: dict[str, np.ndarray], heads: dict[str, np.ndarray]) -> None:
        if variant not in NETWORKS:
            raise InputError(f"wanted one of the variants {', '.join(NETWORKS)}, got {variant!r}")
        self.plan = NETWORKS[variant]
        lin, state = StateDict(heads, f"LPIPS, {variant}"), StateDict(network, self.plan.file)
        widths = [stage[-1][2] for stage in self.plan.stages]
        taken = [
            _take(lin, f"lin{number}.model.1.weight", (1, width, 1, 1)) for number, width in enumerate(widths)
        ]
        lin.finish()
        super().__init__(_SHIFT, _SCALE, [head.reshape(-1) for head in taken])
        stages, before = [], 3
        for stage in self.plan.stages:
            convs = []
            for number, side, width in stage:
                kernel = _take(state, f"features.{number}.weight", (width, before, side, side))
                bias = _take(state, f"features.{number}.bias", (width,))
                padding, stride = self.plan.first if number == 0 else (side // 2, 1)
                convs.append(Conv(kernel, bias, (padding, padding), stride))
                before = width
            stages.append(nnx.List(convs))
        state.ignore(*(name for name in network if name.startswith("classifier.")))
        state.finish()
        self.stages = nnx.List(stages)

    def features(self, images_bhwc: Array) -> list[Array]:
        """The rectified activations at the end of each of the five stages."""
        x_bhwc, outputs = images_bhwc, []
        for number, stage in enumerate(self.stages):
            if number in self.plan.pooled:
                x_bhwc = nnx.max_pool(x_bhwc, (self.plan.pool, self.plan.pool), (2, 2))
            for conv in stage:
                x_bhwc = jax.nn.relu(conv(x_bhwc))
            outputs.append(x_bhwc)
        return outputs


@dataclass(frozen=True)
class LpipsFiles:
    """The two files of one variant."""

    variant: str
    network: Path
    heads: Path

    def load(self) -> Lpips:
        """
        Raises:
            InputError: a file is damaged or another model's.
        """
        return Lpips(self.variant, read_weights(self.network), read_weights(self.heads))

    def sha256(self) -> dict[str, str]:
        """Name of each file -> its sha256 in hexadecimal."""
        files = (self.network, self.heads)
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def find(folder: str | os.PathLike[str]) -> list[LpipsFiles]:
    """The variants whose files lie in a folder, as published or converted to safetensors.

    Raises:
        InputError: there are none, or a network lies there without its heads.
    """
    folder = Path(folder)
    found = []
    for variant, network in NETWORKS.items():
        weights, heads = _file(folder, network.file), _file(folder, variant)
        if weights is not None and heads is not None:
            found.append(LpipsFiles(variant, weights, heads))
        elif weights is not None:
            raise InputError(f"expected {variant}.pth beside {weights}, found none: {_WHERE}")
    if not found:
        raise InputError(f"expected the weights of LPIPS in {folder}, found none: {_WHERE}")
    return found


_WHERE = (
    f"it takes torchvision's {' or '.join(network.file + '.pth' for network in NETWORKS.values())} "
    f"(download.pytorch.org/models) and, beside it, {' or '.join(f'{name}.pth' for name in NETWORKS)} "
    "from lpips/weights/v0.1 of the package lpips 0.1.4; or the same as .safetensors"
)


def _file(folder: Path, stem: str) -> Path | None:
    files = (folder / f"{stem}{suffix}" for suffix in (".safetensors", ".pth"))
    return next((file for file in files if file.is_file()), None)


def _take(state: StateDict, name: str, shape: tuple[int, ...]) -> np.ndarray:
    tensor = state.take(name)
    if tensor.shape != shape:
        raise InputError(f"expected shape {shape} for {name}, got {tensor.shape}: another model's weights")
    return tensor
