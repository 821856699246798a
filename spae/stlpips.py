"""STLPIPS, the shift-tolerant perceptual distance: a training loss and a metric.

Ghildyal and Liu, "Shift-tolerant Perceptual Similarity Metric", ECCV 2022. The distance is that of LPIPS
(Zhang et al., CVPR 2018, equation 1) over an AlexNet or VGG16 whose downsampling is blurred. The trained
weights, networks and heads, come in the package `stlpips_pytorch` (BSD-2).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from spae.errors import InputError
from spae.guidance.packages import package_file
from spae.guidance.torch_file import read_torch_file

VARIANTS = ("alex", "vgg")
SMALLEST_SIDE = 32  # below it the deepest maps are smaller than their reflected borders


class _Conv(nnx.Module):
    """Convolution with bias, stride 1. Its weights are no nnx.Param: nothing trains them."""

    def __init__(self, weight_oihw: np.ndarray, bias_o: np.ndarray, padding: int) -> None:
        self.kernel = nnx.Variable(jnp.asarray(weight_oihw.transpose(2, 3, 1, 0)))
        self.bias = nnx.Variable(jnp.asarray(bias_o))
        self.padding = padding

    def __call__(self, x_bhwc: Array) -> Array:
        border = (self.padding, self.padding)
        y_bhwc = jax.lax.conv_general_dilated(
            x_bhwc,
            self.kernel[...].astype(x_bhwc.dtype),
            (1, 1),
            (border, border),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y_bhwc + self.bias[...].astype(x_bhwc.dtype)


class Stlpips(nnx.Module):
    """Distance between pairs of images; `variant` is "alex" or "vgg", `dtype` that of the convolutions.

    Raises InputError if the variant is unknown or the package with the weights is not installed.
    """

    def __init__(self, variant: str = "vgg", dtype: jnp.dtype = jnp.float32) -> None:
        if variant not in VARIANTS:
            raise InputError(f"wanted one of the variants {', '.join(VARIANTS)}, got {variant!r}")
        file = f"weights/vST0.0/{variant}_shift_tolerant.pth"
        weights = read_torch_file(package_file("stlpips_pytorch", "stlpips_pytorch==0.0.2", file))
        self.variant = variant
        self.dtype = dtype
        self.shift = nnx.Variable(jnp.asarray(weights["scaling_layer.shift"].reshape(3)))
        self.scale = nnx.Variable(jnp.asarray(weights["scaling_layer.scale"].reshape(3)))
        self.stages = nnx.List([_stage(weights, stage) for stage in range(1, 6)])
        heads = [weights[f"lin{stage}.model.1.weight"].reshape(-1) for stage in range(5)]
        self.heads = nnx.List([nnx.Variable(jnp.asarray(head)) for head in heads])

    def __call__(
        self, first_bhwc: Float[Array, "b h w 3"], second_bhwc: Float[Array, "b h w 3"]
    ) -> Float[Array, "b"]:
        """float32 distances, one for each pair of images in [0, 1], sides at least 32 pixels; 0 if equal.

        Differentiable with respect to both. Raises InputError for other shapes.
        """
        shape = first_bhwc.shape
        if len(shape) != 4 or shape[-1] != 3 or shape != second_bhwc.shape or min(shape[1:3]) < SMALLEST_SIDE:
            wanted = f"two batches (B, H, W, 3) of one shape, sides of at least {SMALLEST_SIDE}"
            raise InputError(f"wanted {wanted}, got {shape} and {second_bhwc.shape}")
        batch = shape[0]
        # One pass over both, so that the convolutions run once on twice the batch.
        features = self._features(jnp.concatenate([first_bhwc, second_bhwc]))
        total_b = jnp.zeros(batch, jnp.float32)
        for x_bhwc, head_c in zip(features, self.heads, strict=True):
            unit_bhwc = _unit(x_bhwc.astype(jnp.float32))
            difference_bhwc = (unit_bhwc[:batch] - unit_bhwc[batch:]) ** 2
            total_b += (difference_bhwc @ head_c[...]).mean(axis=(1, 2))
        return total_b

    def _features(self, images_bhwc: Array) -> list[Array]:
        """The activations after each of the five stages."""
        x_bhwc = ((2 * images_bhwc - 1 - self.shift[...]) / self.scale[...]).astype(self.dtype)
        outputs = []
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
        convs.append(_Conv(weight, weights[f"{prefix}{layer}.bias"], padding))
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


def _unit(x_bhwc: Array) -> Array:
    """Channel vectors of length 1; zero vectors stay zero, with a derivative of zero instead of NaN."""
    square_bhw1 = (x_bhwc**2).sum(-1, keepdims=True)
    length_bhw1 = jnp.sqrt(jnp.where(square_bhw1 > 0, square_bhw1, 1.0))
    return x_bhwc / (length_bhw1 + 1e-10)
