"""Images of any size to the square that an image tower reads."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from spae.errors import InputError


def resize_square(images_bhwc: Float[Array, "b h w 3"], side: int) -> Float[Array, "b {side} {side} 3"]:
    """Bicubic (antialiased where it shrinks) so that the shorter side is `side`, then the centre square.

    Args:
        images_bhwc: float images, range [0, 1], any height and width.
        side: pixels.

    Returns:
        float32 images, range [0, 1]: the cubic kernel's overshoot is cut off, as in 8-bit image libraries.

    Raises:
        InputError: not a batch of RGB images in floating point.
    """
    if (
        images_bhwc.ndim != 4
        or images_bhwc.shape[-1] != 3
        or not jnp.issubdtype(images_bhwc.dtype, jnp.floating)
    ):
        raise InputError(
            "expected floating-point RGB images of shape (batch, height, width, 3) in [0, 1], "
            f"got {images_bhwc.dtype} {images_bhwc.shape}: divide uint8 images by 255"
        )
    b, h, w, _ = images_bhwc.shape
    scale = side / min(h, w)
    new_h, new_w = max(side, round(h * scale)), max(side, round(w * scale))
    resized = jax.image.resize(
        images_bhwc.astype(jnp.float32), (b, new_h, new_w, 3), "bicubic", antialias=True
    )
    top, left = (new_h - side) // 2, (new_w - side) // 2
    return jnp.clip(resized[:, top : top + side, left : left + side], 0.0, 1.0)
