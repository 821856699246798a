"""Depth-wise convolutions and the block made of them, against loops in NumPy, in both precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spae.cnn import DepthwiseBlock
from spae.layers.convolution import Depthwise


def array(x) -> np.ndarray:
    return np.asarray(x[...], np.float64)


def filled(module: nnx.Module) -> nnx.Module:
    """The module with parameters that no initial value gives."""
    rng = np.random.default_rng(1)
    graph, state = nnx.split(module)
    flat = [
        (path, one.replace(jnp.asarray(rng.normal(size=one.shape), jnp.float32)))
        for path, one in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(flat))


def slow_depthwise(x_hwc: np.ndarray, kernel_khw: np.ndarray, bias_c: np.ndarray, stride: int) -> np.ndarray:
    """Each channel by itself; zeros around, of an odd number the last on the far side."""
    (h, w, c), k = x_hwc.shape, kernel_khw.shape[0]
    out_h, out_w = -(-h // stride), -(-w // stride)
    top, left = ((max((n - 1) * stride + k - size, 0)) // 2 for n, size in ((out_h, h), (out_w, w)))
    y = np.zeros((out_h, out_w, c))
    for row in range(out_h):
        for column in range(out_w):
            y[row, column] = bias_c
            for i in range(k):
                for j in range(k):
                    r, s = row * stride + i - top, column * stride + j - left
                    if 0 <= r < h and 0 <= s < w:
                        y[row, column] += x_hwc[r, s] * kernel_khw[i, j]
    return y


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_one_filter_a_channel(kernel, stride):
    layer = filled(Depthwise(3, kernel, stride, rngs=nnx.Rngs(0)))
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
    run = jax.jit(lambda x: layer(x))
    found = np.asarray(run(jnp.asarray(x)))
    for image, one in zip(x.astype(np.float64), found, strict=True):
        wanted = slow_depthwise(image, array(layer.kernel), array(layer.bias), stride)
        np.testing.assert_allclose(one, wanted, rtol=1e-4, atol=1e-4)
    half = run(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(half, np.float32), found, atol=0.2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_block(dtype):
    """GroupNorm over groups of gcd(32, width) channels, the filters, to twice the width, relu, back, and the input."""
    block = filled(DepthwiseBlock(6, dtype=dtype, rngs=nnx.Rngs(0)))
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)
    found = jax.jit(lambda x: block(x))(jnp.asarray(x, dtype))
    assert found.dtype == dtype
    for image, one in zip(x.astype(np.float64), np.asarray(found, np.float64), strict=True):
        groups = image.reshape(20, 2, 3)  # gcd(32, 6) = 2 groups
        normed = (groups - groups.mean((0, 2), keepdims=True)) / np.sqrt(
            groups.var((0, 2), keepdims=True) + 1e-6
        )
        normed = normed.reshape(4, 5, 6) * array(block.norm.scale) + array(block.norm.bias)
        y = slow_depthwise(normed, array(block.depthwise.kernel), array(block.depthwise.bias), 1)
        y = np.maximum(y @ array(block.widen.kernel) + array(block.widen.bias), 0)
        wanted = image + y @ array(block.narrow.kernel) + array(block.narrow.bias)
        tolerance = 1e-4 if dtype == jnp.float32 else 0.03
        assert np.abs(one - wanted).max() < tolerance * np.abs(wanted).max()
