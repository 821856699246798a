"""Pictures as text: what logs and pages hold."""

import base64
import io
from html import escape

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def to_base64(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    """A PNG file in base64, lossless."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def png_tag(png: str, alt: str) -> str:
    """An element of HTML that shows a PNG file in base64."""
    return f'<img src="data:image/png;base64,{escape(png)}" alt="{escape(alt)}">'


def thumbnail(picture: UInt8[np.ndarray, "h w 3"], side: int = 160) -> str:
    """A data URL of a JPEG file, its longer side at most `side` pixels: for eyes, not for measuring."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
