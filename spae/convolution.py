"""A convolution of a network that is filled from a file and never trained."""

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
