"""STLPIPS, the shift-tolerant perceptual distance: a training loss and a metric.

Ghildyal and Liu, "Shift-tolerant Perceptual Similarity Metric", ECCV 2022. The distance is that of LPIPS
(Zhang et al., CVPR 2018, equation 1) over an AlexNet or VGG16 whose downsampling is blurred. The trained
weights, networks and heads, come in the package `stlpips_pytorch` (BSD-2).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from spae.errors import InputError
from spae.layers.convolution import Conv
from spae.metrics.feature_distance import FeatureDistance
from spae.weights.packages import package_file
from spae.weights.torch_file import read_torch_file

VARIANTS = ("alex", "vgg")


class Stlpips(FeatureDistance):
    """Distance between pairs of images; `variant` is "alex" or "vgg", `dtype` that of the convolutions.

    Raises:
        InputError: the variant is unknown or the package with the weights is not installed.
    """

    def __init__(self, variant: str = "vgg", dtype: jnp.dtype = jnp.float32) -> None:
        if variant not in VARIANTS:
            raise InputError(f"wanted one of the variants {', '.join(VARIANTS)}, got {variant!r}")
        file = f"weights/vST0.0/{variant}_shift_tolerant.pth"
        weights = read_torch_file(package_file("stlpips_pytorch", "stlpips_pytorch==0.0.2", file))
        heads = [weights[f"lin{stage}.model.1.weight"].reshape(-1) for stage in range(5)]
        shift, scale = (weights[f"scaling_layer.{name}"].reshape(3) for name in ("shift", "scale"))
        super().__init__(shift, scale, heads, dtype)
        self.variant = variant
        self.stages = nnx.List([_stage(weights, stage) for stage in range(1, 6)])

    def features(self, images_bhwc: Array) -> list[Array]:
        """The activations after each of the five stages."""
        x_bhwc, outputs = images_bhwc, []
        for number, stage in enumerate(self.stages):
            if self.variant == "vgg" and number > 0:
                x_bhwc = _blurred_half(_max_pool(x_bhwc, 2))
            if self.variant == "alex" and number in (1, 2):
                x_bhwc = _blurred_half(_max_pool(x_bhwc, 3))
            for conv in stage:
                x_bhwc = conv(x_bhwc)
                if self.variant == "alex" and number == 0:
                    # AlexNet's first convolution had stride 4; half of it is here, before the rectifier.
                    x_bhwc = _blurred_half(x_bhwc)
                x_bhwc = jax.nn.relu(x_bhwc)
            outputs.append(x_bhwc)
        return outputs


def _stage(weights: dict[str, np.ndarray], stage: int) -> nnx.List:
    """The convolutions of one stage, in order."""
    prefix = f"net.slice{stage}."
    layers = sorted(
        int(name.split(".")[2]) for name in weights if name.startswith(prefix) and name.endswith(".weight")
    )
    convs = []
    for layer in layers:
        weight = weights[f"{prefix}{layer}.weight"]
        # AlexNet's 11x11 is padded by 2, all others keep the size.
        padding = 2 if weight.shape[-1] == 11 else weight.shape[-1] // 2
        convs.append(Conv(weight, weights[f"{prefix}{layer}.bias"], (padding, padding)))
    return nnx.List(convs)


def _max_pool(x_bhwc: Array, side: int) -> Array:
    """Maximum over side x side windows, stride 1, no padding; shifted maxima, whose derivative is cheap."""
    height, width = x_bhwc.shape[1] - side + 1, x_bhwc.shape[2] - side + 1
    rows = x_bhwc[:, :height]
    for offset in range(1, side):
        rows = jnp.maximum(rows, x_bhwc[:, offset : offset + height])
    columns = rows[:, :, :width]
    for offset in range(1, side):
        columns = jnp.maximum(columns, rows[:, :, offset : offset + width])
    return columns


def _blurred_half(x_bhwc: Array) -> Array:
    """Reflect by 2, then every second value of a (1, 2, 1) / 4 blur along both axes."""
    x_bhwc = jnp.pad(x_bhwc, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    for axis in (1, 2):
        last = (x_bhwc.shape[axis] - 3) // 2 * 2
        left, middle, right = (
            jax.lax.slice_in_dim(x_bhwc, start, start + last + 1, stride=2, axis=axis) for start in (0, 1, 2)
        )
        x_bhwc = 0.25 * left + 0.5 * middle + 0.25 * right
    return x_bhwc
