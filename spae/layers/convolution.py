"""Convolutions that Flax has not: one that is filled from a file and never trained, and a fast depth-wise one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float


class Conv(nnx.Module):
    """Convolution with bias, float32 weights; it computes in the dtype of its input.

    Its weights are no nnx.Param: nothing trains them.

    Args:
        weight_oihw: as PyTorch has it.
        bias_o: one value per output channel.
        padding: zeros above and below, and left and right.
        stride: along both axes.
    """

    def __init__(
        self,
        weight_oihw: Float[np.ndarray, "o i h w"],
        bias_o: Float[np.ndarray, " o"],
        padding: tuple[int, int] = (0, 0),
        stride: int = 1,
    ) -> None:
        self.kernel = nnx.Variable(jnp.asarray(weight_oihw.transpose(2, 3, 1, 0), jnp.float32))
        self.bias = nnx.Variable(jnp.asarray(bias_o, jnp.float32))
        self.padding = padding
        self.stride = stride

    def __call__(self, x_bhwc: Float[Array, "b h w i"]) -> Float[Array, "b _h _w o"]:
        y_bhwc = jax.lax.conv_general_dilated(
            x_bhwc,
            self.kernel[...].astype(x_bhwc.dtype),
            (self.stride, self.stride),
            [(side, side) for side in self.padding],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y_bhwc + self.bias[...].astype(x_bhwc.dtype)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME": the odd pixel goes to the end."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Depthwise(nnx.Module):
    """One k x k filter per channel, as a sum of shifted products: on CPUs XLA runs its own grouped
    convolution some twenty times slower than this."""

    def __init__(self, width: int, kernel: int, stride: int, *, rngs: nnx.Rngs):
        self.stride = stride
        self.kernel = nnx.Param(2**0.5 / kernel * jax.random.normal(rngs.params(), (kernel, kernel, width)))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x_bhwc: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        return _depthwise(x_bhwc, self.kernel[...], self.bias[...], self.stride)


# By jit layers of one shape are traced once. And not by NumPy's indices, which are traced more slowly: a network has
# hundreds of these products.
@partial(jax.jit, static_argnames="stride")
def _depthwise(
    x_bhwc: Float[Array, "b h w c"],
    kernel_kkc: Float[Array, "k k c"],
    bias_c: Float[Array, " c"],
    stride: int,
) -> Float[Array, "b h2 w2 c"]:
    b, h, w, c = x_bhwc.shape
    k = kernel_kkc.shape[0]
    out_h, out_w = -(-h // stride), -(-w // stride)
    x = jnp.pad(x_bhwc, ((0, 0), same_padding(h, k, stride), same_padding(w, k, stride), (0, 0)))
    y = jnp.broadcast_to(bias_c.astype(x.dtype), (b, out_h, out_w, c))
    weights = jnp.split(kernel_kkc.astype(x.dtype).reshape(1, 1, 1, -1), k * k, axis=3)
    for place, weight in enumerate(weights):
        i, j = divmod(place, k)
        end = (b, i + (out_h - 1) * stride + 1, j + (out_w - 1) * stride + 1, c)
        y = y + jax.lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1)) * weight
    return y
