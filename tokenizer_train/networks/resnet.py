"""ResNet-50, an ImageNet classifier, in inference form.

He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385, table 1, in the variant known as
v1.5: a halving block does it in its 3x3 convolution. Batch norms are folded into the convolutions when weights
are loaded, so that a layer is a convolution and a bias.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from spae.errors import InputError
from spae.layers.rematerialize import Rematerializable
from spae.weights.state_dict import StateDict, constant, fill, hollow, normal

BLOCKS = (3, 4, 6, 3)  # ResNet-50's
WIDTH = 64
CLASSES = 1000
_EXPANSION = 4
_BATCH_NORM_EPSILON = 1e-5
_MEAN = (0.485, 0.456, 0.406)  # of each channel, for images in [0, 1]
_DEVIATION = (0.229, 0.224, 0.225)


class Conv(nnx.Module):
    """k x k convolution with bias, padded by k // 2 on every side."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int = 1, *, rngs: nnx.Rngs):
        self.stride = stride
        shape = (kernel, kernel, width_in, width_out)
        self.kernel = nnx.Param(normal(rngs, shape, (2 / (kernel**2 * width_in)) ** 0.5))
        self.bias = nnx.Param(constant((width_out,)))

    def __call__(self, x_bhwc: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        kernel = self.kernel[...]
        border = (kernel.shape[0] // 2, kernel.shape[0] // 2)
        y_bhwc = jax.lax.conv_general_dilated(
            x_bhwc,
            kernel,
            (self.stride, self.stride),
            (border, border),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y_bhwc + self.bias[...]


class Bottleneck(Rematerializable):
    """1x1, 3x3 and 1x1 convolution, plus the block's input (through a 1x1 convolution if shapes differ)."""

    def __init__(self, width_in: int, inner: int, stride: int, *, rngs: nnx.Rngs):
        out = inner * _EXPANSION
        self.conv1 = Conv(width_in, inner, 1, rngs=rngs)
        self.conv2 = Conv(inner, inner, 3, stride, rngs=rngs)
        self.conv3 = Conv(inner, out, 1, rngs=rngs)
        same = stride == 1 and width_in == out
        self.downsample = None if same else Conv(width_in, out, 1, stride, rngs=rngs)

    def forward(self, x_bhwc: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y_bhwc = jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x_bhwc))))
        shortcut = x_bhwc if self.downsample is None else self.downsample(x_bhwc)
        return jax.nn.relu(self.conv3(y_bhwc) + shortcut)


class ResNet(nnx.Module):
    """Images (B, H, W, 3) in [0, 1] -> logits (B, classes).

    Args:
        blocks: how many in each of the four stages.
        width: channels of the stem; stage s has blocks of inner width `width` * 2^s, s = 0 .. 3.
        classes: of the last layer.
    """

    def __init__(
        self,
        blocks: tuple[int, ...] = BLOCKS,
        width: int = WIDTH,
        classes: int = CLASSES,
        *,
        rngs: nnx.Rngs,
    ):
        self.stem = Conv(3, width, 7, 2, rngs=rngs)
        self.stages: nnx.List[nnx.List[Bottleneck]] = nnx.List()
        before = width
        for number, repeats in enumerate(blocks):
            inner = width * 2**number
            stage: nnx.List[Bottleneck] = nnx.List()
            for repeat in range(repeats):
                stride = 2 if number > 0 and repeat == 0 else 1
                stage.append(Bottleneck(before, inner, stride, rngs=rngs))
                before = inner * _EXPANSION
            self.stages.append(stage)
        self.classify = nnx.Linear(before, classes, rngs=rngs)

    def __call__(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b k"]:
        x_bhwc = (images_bhwc - jnp.asarray(_MEAN)) / jnp.asarray(_DEVIATION)
        x_bhwc = nnx.max_pool(jax.nn.relu(self.stem(x_bhwc)), (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage in self.stages:
            for block in stage:
                x_bhwc = block(x_bhwc)
        return self.classify(x_bhwc.mean(axis=(1, 2)))


def from_torch(
    tensors: dict[str, np.ndarray],
    blocks: tuple[int, ...] = BLOCKS,
    width: int = WIDTH,
    classes: int = CLASSES,
) -> ResNet:
    """The network with the weights of a PyTorch state dict, in the names that torchvision and timm share
    (`conv1.weight`, `bn1.running_mean`, `layer1.0.conv1.weight`, `layer1.0.downsample.0.weight`, ...).

    Raises:
        InputError: a tensor is missing, has another shape, or is left over.
    """
    state = StateDict(tensors, "a ResNet")
    model = hollow(lambda rngs: ResNet(blocks, width, classes, rngs=rngs))
    _fill(state, model.stem, "conv1", "bn1")
    for number, stage in enumerate(model.stages, start=1):
        for repeat, block in enumerate(stage):
            name = f"layer{number}.{repeat}."
            for conv, layer in enumerate((block.conv1, block.conv2, block.conv3), start=1):
                _fill(state, layer, f"{name}conv{conv}", f"{name}bn{conv}")
            if block.downsample is not None:
                _fill(state, block.downsample, f"{name}downsample.0", f"{name}downsample.1")
    state.linear(model.classify, "fc")
    state.finish()
    return model


def _fill(state: StateDict, layer: Conv, convolution: str, norm: str) -> None:
    """A convolution without bias followed by a batch norm, as one convolution with bias."""
    kernel_oihw = state.take(f"{convolution}.weight").astype(np.float32)
    values = [
        state.take(f"{norm}.{part}").astype(np.float32)
        for part in ("weight", "bias", "running_mean", "running_var")
    ]
    state.ignore(f"{norm}.num_batches_tracked")
    if kernel_oihw.ndim != 4 or any(value.shape != kernel_oihw.shape[:1] for value in values):
        raise InputError(
            f"expected a convolution {convolution} and as many channels in {norm}, got shapes "
            f"{kernel_oihw.shape} and {[value.shape for value in values]}: these are another model's weights"
        )
    gain, shift, mean, variance = values
    scale = gain / np.sqrt(variance + _BATCH_NORM_EPSILON)
    fill(layer.kernel, (kernel_oihw * scale[:, None, None, None]).transpose(2, 3, 1, 0), convolution)
    fill(layer.bias, shift - mean * scale, norm)
