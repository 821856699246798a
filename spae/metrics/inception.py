"""The network of FID and Inception Score, with weights that the user brings.

It is not the InceptionV3 of torchvision: FID (Heusel et al., arXiv 1706.08500) and Inception Score (Salimans et
al., arXiv 1606.03498) are defined by TensorFlow's file of 2015-12-05. Its known copy for PyTorch,
`pt_inception-2015-12-05-6726825d.pth`, is released with pytorch-fid and, under the name
`weights-inception-2015-12-05-6726825d.pth`, with torch-fidelity. Beside the weights differ: 1,008 classes; averages
that leave out the border; in the last block a maximum in place of an average; and how images are enlarged.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from spae.errors import InputError
from spae.layers.convolution import Conv
from spae.weights.files import read_weights
from spae.weights.state_dict import StateDict

IMAGE_SIZE = 299
WIDTH = 2048
CLASSES = 1008
_BATCH_NORM_EPSILON = 1e-3

# (name, width, kernel sides, stride); padded to keep the size unless the stride is 2 or the name is in _UNPADDED.
_Layer = tuple[str, int, tuple[int, int], int]
_UNPADDED = ("Conv2d_2a_3x3", "Conv2d_4a_3x3")


def _layer(name: str, width: int, height: int = 1, across: int | None = None, stride: int = 1) -> _Layer:
    return name, width, (height, height if across is None else across), stride


_STEM = (
    (
        _layer("Conv2d_1a_3x3", 32, 3, stride=2),
        _layer("Conv2d_2a_3x3", 32, 3),
        _layer("Conv2d_2b_3x3", 64, 3),
    ),
    (_layer("Conv2d_3b_1x1", 80), _layer("Conv2d_4a_3x3", 192, 3)),
)


def _block_a(pool: int) -> list[tuple[str, list[_Layer], list[_Layer]]]:
    """Branches: what is pooled first, convolutions in a row, convolutions side by side at the end."""
    double = [_layer("branch3x3dbl_1", 64), _layer("branch3x3dbl_2", 96, 3), _layer("branch3x3dbl_3", 96, 3)]
    return [
        ("", [_layer("branch1x1", 64)], []),
        ("", [_layer("branch5x5_1", 48), _layer("branch5x5_2", 64, 5)], []),
        ("", double, []),
        ("average", [_layer("branch_pool", pool)], []),
    ]


def _block_b() -> list[tuple[str, list[_Layer], list[_Layer]]]:
    double = [_layer("branch3x3dbl_1", 64), _layer("branch3x3dbl_2", 96, 3)]
    return [
        ("", [_layer("branch3x3", 384, 3, stride=2)], []),
        ("", [*double, _layer("branch3x3dbl_3", 96, 3, stride=2)], []),
        ("half", [], []),
    ]


def _block_c(width: int) -> list[tuple[str, list[_Layer], list[_Layer]]]:
    single = [_layer("branch7x7_1", width), _layer("branch7x7_2", width, 1, 7)]
    double = [_layer("branch7x7dbl_1", width), _layer("branch7x7dbl_2", width, 7, 1)]
    double += [_layer("branch7x7dbl_3", width, 1, 7), _layer("branch7x7dbl_4", width, 7, 1)]
    return [
        ("", [_layer("branch1x1", 192)], []),
        ("", [*single, _layer("branch7x7_3", 192, 7, 1)], []),
        ("", [*double, _layer("branch7x7dbl_5", 192, 1, 7)], []),
        ("average", [_layer("branch_pool", 192)], []),
    ]


def _block_d() -> list[tuple[str, list[_Layer], list[_Layer]]]:
    long = [
        _layer("branch7x7x3_1", 192),
        _layer("branch7x7x3_2", 192, 1, 7),
        _layer("branch7x7x3_3", 192, 7, 1),
    ]
    return [
        ("", [_layer("branch3x3_1", 192), _layer("branch3x3_2", 320, 3, stride=2)], []),
        ("", [*long, _layer("branch7x7x3_4", 192, 3, stride=2)], []),
        ("half", [], []),
    ]


def _block_e(pool: str) -> list[tuple[str, list[_Layer], list[_Layer]]]:
    def fork(name: str) -> list[_Layer]:
        return [_layer(f"{name}a", 384, 1, 3), _layer(f"{name}b", 384, 3, 1)]

    double = [_layer("branch3x3dbl_1", 448), _layer("branch3x3dbl_2", 384, 3)]
    return [
        ("", [_layer("branch1x1", 320)], []),
        ("", [_layer("branch3x3_1", 384)], fork("branch3x3_2")),
        ("", double, fork("branch3x3dbl_3")),
        (pool, [_layer("branch_pool", 192)], []),
    ]


_BLOCKS = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _block_b(),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _block_d(),
    "Mixed_7b": _block_e("average"),
    "Mixed_7c": _block_e("max"),
}


class Branch(nnx.Module):
    """A pool, if any, then convolutions in a row, then others side by side, whose outputs are joined."""

    def __init__(self, pool: str, row: list[Conv], fork: list[Conv]) -> None:
        self.pool = pool
        self.row = nnx.List(row)
        self.fork = nnx.List(fork)

    def __call__(self, x_bhwc: Float[Array, "b h w i"]) -> Float[Array, "b _h _w o"]:
        border = ((1, 1), (1, 1))
        if self.pool == "average":
            x_bhwc = nnx.avg_pool(x_bhwc, (3, 3), (1, 1), border, count_include_pad=False)
        elif self.pool == "max":
            x_bhwc = nnx.max_pool(x_bhwc, (3, 3), (1, 1), border)
        elif self.pool == "half":
            x_bhwc = nnx.max_pool(x_bhwc, (3, 3), (2, 2))
        for conv in self.row:
            x_bhwc = jax.nn.relu(conv(x_bhwc))
        if len(self.fork):
            x_bhwc = jnp.concatenate([jax.nn.relu(conv(x_bhwc)) for conv in self.fork], axis=-1)
        return x_bhwc


class Inception(nnx.Module):
    """uint8 images -> the pooled features of FID and the logits of Inception Score.

    Args:
        tensors: in the names of pytorch-fid and torch-fidelity (`Conv2d_1a_3x3.conv.weight`, ...).

    Raises:
        InputError: a tensor is missing, has another shape, or is left over.
    """

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        state = StateDict(tensors, "the Inception network of FID")
        before = 3
        stem = []
        for layers in _STEM:
            stem.append(nnx.List(_row(state, "", layers, before)))
            before = layers[-1][1]
        blocks = []
        for block, plan in _BLOCKS.items():
            branches, joined = [], 0
            for pool, row, fork in plan:
                width = row[-1][1] if row else before
                forked = [_conv(state, f"{block}.{layer[0]}", layer, width) for layer in fork]
                branches.append(Branch(pool, _row(state, f"{block}.", row, before), forked))
                joined += sum(layer[1] for layer in fork) or width
            blocks.append(nnx.List(branches))
            before = joined
        self.stem = nnx.List(stem)
        self.blocks = nnx.List(blocks)
        classify = _taken(state, "fc.weight", (CLASSES, WIDTH))
        self.classify = nnx.Variable(jnp.asarray(classify.T, jnp.float32))
        state.ignore("fc.bias")  # Inception Score is taken without it
        state.finish()

    def __call__(
        self, images_bhwc: UInt8[Array, "b h w 3"]
    ) -> tuple[Float[Array, "b 2048"], Float[Array, "b 1008"]]:
        """float32 features, and logits without their bias (as in the TensorFlow graph of the Inception Score).

        Raises:
            InputError: anything but uint8 images (B, H, W, 3).
        """
        if images_bhwc.ndim != 4 or images_bhwc.shape[-1] != 3 or images_bhwc.dtype != jnp.uint8:
            raise InputError(
                f"wanted uint8 images (B, H, W, 3), got {images_bhwc.dtype} {images_bhwc.shape}: "
                "use spae.images.to_uint8"
            )
        x_bhwc = (_enlarged(images_bhwc.astype(jnp.float32)) - 128) / 128
        for convs in self.stem:
            for conv in convs:
                x_bhwc = jax.nn.relu(conv(x_bhwc))
            x_bhwc = nnx.max_pool(x_bhwc, (3, 3), (2, 2))
        for branches in self.blocks:
            x_bhwc = jnp.concatenate([branch(x_bhwc) for branch in branches], axis=-1)
        features_bc = x_bhwc.mean(axis=(1, 2))
        return features_bc, features_bc @ self.classify[...]


def load(path: str | os.PathLike[str]) -> Inception:
    """The network from a PyTorch or safetensors file.

    Raises:
        InputError: the file is missing, damaged or another model's; says which it should be.
    """
    try:
        return Inception(read_weights(path))
    except InputError as error:
        raise InputError(
            f"{error}; FID and Inception Score need pt_inception-2015-12-05-6726825d.pth (released with "
            "pytorch-fid and torch-fidelity, sha256 6726825d...), or the same as .safetensors"
        ) from error


def _row(state: StateDict, prefix: str, layers: list[_Layer] | tuple[_Layer, ...], before: int) -> list[Conv]:
    row = []
    for layer in layers:
        row.append(_conv(state, f"{prefix}{layer[0]}", layer, before))
        before = layer[1]
    return row


def _conv(state: StateDict, name: str, layer: _Layer, before: int) -> Conv:
    """A convolution without bias followed by a batch norm, as one convolution with bias."""
    _, width, sides, stride = layer
    kernel_oihw = _taken(state, f"{name}.conv.weight", (width, before, *sides)).astype(np.float32)
    gain, shift, mean, variance = (
        _taken(state, f"{name}.bn.{part}", (width,)).astype(np.float32)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    state.ignore(f"{name}.bn.num_batches_tracked")
    scale = gain / np.sqrt(variance + _BATCH_NORM_EPSILON)
    padding = (0, 0) if stride == 2 or name in _UNPADDED else (sides[0] // 2, sides[1] // 2)
    return Conv(kernel_oihw * scale[:, None, None, None], shift - mean * scale, padding, stride)


def _taken(state: StateDict, name: str, shape: tuple[int, ...]) -> np.ndarray:
    tensor = state.take(name)
    if tensor.shape != shape:
        raise InputError(f"expected shape {shape} for {name}, got {tensor.shape}: another model's weights")
    return tensor


def _enlarged(x_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b 299 299 3"]:
    """Bilinear as TensorFlow 1 had it: pixel i of the result lies at i * h / 299, no half pixels, no blurring."""
    for axis in (1, 2):
        size = x_bhwc.shape[axis]
        position = np.arange(IMAGE_SIZE, dtype=np.float32) * np.float32(size / IMAGE_SIZE)
        low = np.floor(position).astype(int)
        shape = [1, 1, 1, 1]
        shape[axis] = IMAGE_SIZE
        weight = jnp.asarray((position - low).reshape(shape))
        first, second = (x_bhwc.take(i, axis=axis) for i in (low, np.minimum(low + 1, size - 1)))
        x_bhwc = first + (second - first) * weight
    return x_bhwc
