"""Images as files, for requests."""

import base64
import io

import numpy as np
from PIL import Image


def encoded(size=(24, 24), form="PNG", seed=0, **options) -> bytes:
    """A random image as a file; `size` is width and height."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def data_url(data: bytes, kind="png") -> str:
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()
