"""One image in and out: open with guards, orient, resize; uint8 <-> float. Every door uses these.

Images are uint8 (H, W, 3) RGB outside of JAX code and float32 (H, W, 3) in [0, 1] inside it.
"""

import base64
import functools
import io
import logging
import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from spae import colour, png
from spae.errors import InputError
from spae.files import unreadable

LOG = logging.getLogger("spae.images")

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 1 << 26  # 8192 x 8192; the decoded picture is then 200 MB
MAX_BYTES = 1 << 27  # of an encoded file

# What Pillow's decoders raise on damaged bytes.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error)

# EXIF's orientation -> what makes the picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Changing the warning filters is not safe between threads; reading a header takes microseconds.
_HEADER_LOCK = threading.Lock()


def open_image(
    file: str | Path | bytes | BinaryIO,
    size: int | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    behind: str = "white",
) -> Image.Image:
    """The picture of a JPEG, PNG or WebP file as a loaded RGB image, upright, in sRGB.

    `file` is a path, the encoded bytes, or a binary file object. EXIF orientation and the ICC profile are applied,
    alpha is composed on the colour `behind`, 16-bit grey is scaled to 8 bits, of an animation the first frame is taken.
    With `size`, the side in pixels that the picture will be reduced to (`to_array`), a JPEG may be decoded at a part of
    its resolution, never below twice `size`: several times faster.

    A profile or EXIF data that cannot be used is passed over with a line in the log; other metadata is not read.

    Raises:
        InputError: unreadable, empty, not an image of these formats, damaged, more than `max_pixels` pixels (never
            more than MAX_PIXELS).
    """
    limit = min(max_pixels, MAX_PIXELS)
    data, name = _read(file)
    if not data:
        raise InputError(f"{name} is empty (0 bytes): give a JPEG, PNG or WebP image")
    data, profile = png.without_metadata(data)
    try:
        with _HEADER_LOCK, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise InputError(f"{name} is not a JPEG, PNG or WebP image: convert it to one of these") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{name} has too many pixels: at most {limit:,} are read; reduce it first") from None
    except _DAMAGED as error:
        raise InputError(f"{name} is damaged ({error}): give a whole JPEG, PNG or WebP file") from error
    with image:
        width, height = image.size
        if width * height > limit:
            raise InputError(
                f"{name} has {width} x {height} pixels: at most {limit:,} are read; reduce it first"
            )
        if profile is not None:
            image.info["icc_profile"] = profile
        if size is not None:
            image.draft(None, (2 * size, 2 * size))
        return _rgb(image, name, behind)


def open_mask(file: str | Path | bytes) -> Bool[np.ndarray, "h w"]:
    """The region that an image marks: where it is opaque, if it is transparent in places (a thing that was cut out);
    else where it is light, from 128 of 255.

    Raises:
        InputError: as `open_image`.
    """
    on_white, on_black = (
        np.array(open_image(file, behind=colour)).astype(int) for colour in ("white", "black")
    )
    if (on_white == on_black).all():
        return np.array(Image.fromarray(on_white.astype(np.uint8)).convert("L")) >= 128
    return (on_white - on_black).max(2) < 128  # 255 less alpha


def to_rgb(
    image: Image.Image | UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """The whole of a PIL image, upright and in sRGB, or of a uint8 array.

    Raises:
        InputError: like `to_array`.
    """
    if isinstance(image, Image.Image):
        return np.array(_rgb(image, "the image"))
    return _three_channels(image)


def to_array(
    image: Image.Image | UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"], size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """The central square of a PIL image or a uint8 array (H, W, 3) or (H, W), at `size` pixels a side.

    Antialiased bicubic.

    Raises:
        InputError: another type, dtype or rank.
    """
    if size < 1:
        raise InputError(f"wanted a side of at least 1 pixel, got {size}")
    if isinstance(image, Image.Image):
        picture = _rgb(image, "the image")
    else:
        picture = Image.fromarray(_three_channels(image))
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if (side, width, height) == (size, size, size):
        return np.array(picture)
    box = (left, top, left + side, top + side)
    # Cropping first keeps a 1 x 1,000,000 image cheap, and never looks at what is cut away.
    return np.array(picture.resize((size, size), Image.Resampling.BICUBIC, box=box))


def to_square(
    image: Image.Image | UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"], small: int, large: int
) -> UInt8[np.ndarray, "s s 3"]:
    """The square of an image that a tokenizer looks at: `small` pixels a side if the image's shorter side has no more,
    else `large`. So there are two shapes, and nothing that is there to see is thrown away before its time.

    Raises:
        InputError: like `to_array`.
    """
    if isinstance(image, Image.Image):
        image = _rgb(image, "the image")
        side = min(image.size)
    else:
        side = min(_three_channels(image).shape[:2])
    return to_array(image, small if side <= small else max(small, large))


def to_clip(clip: Any, size: int, frames: int) -> UInt8[np.ndarray, "t size size 3"]:
    """A uint8 array (T, H, W, 3) as T central squares at `size` pixels a side.

    Raises:
        InputError: another type, dtype or rank, or not `frames` frames.
    """
    if not isinstance(clip, np.ndarray) or clip.ndim != 4 or len(clip) != frames:
        found = f"{clip.dtype} {clip.shape}" if isinstance(clip, np.ndarray) else type(clip).__name__
        raise InputError(
            f"this tokenizer is one of clips: wanted a uint8 array ({frames}, H, W, 3), got {found}; "
            "spae.sources.clips.read_clip reads one, and images want a tokenizer of images"
        )
    return np.stack([to_array(frame, size) for frame in clip])


def to_float(image: UInt8[Any, "*batch h w 3"]) -> Float[Any, "*batch h w 3"]:
    """uint8 0..255 -> float32 in [0, 1], NumPy or (traced) JAX alike.

    Raises:
        InputError: another dtype.
    """
    if getattr(image, "dtype", None) != np.uint8:
        found = getattr(image, "dtype", type(image).__name__)
        raise InputError(f"wanted a uint8 image (0..255), got {found}: convert it, or use to_uint8")
    return image.astype(np.float32) / np.float32(255)


def to_uint8(image: Float[np.ndarray, "*batch h w 3"]) -> UInt8[np.ndarray, "*batch h w 3"]:
    """Float in [0, 1] -> uint8 by clipping and rounding.

    Raises:
        InputError: another dtype, or NaN.
    """
    # bfloat16 is no np.floating, so everything passes through float32.
    array = np.asarray(image)
    if array.dtype.kind in "iub":
        raise InputError(f"wanted a floating-point image in [0, 1], got {array.dtype}")
    array = array.astype(np.float32)
    if np.isnan(array).any():
        raise InputError("wanted numbers in [0, 1], got NaN: what made this image is broken")
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)


def to_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """An image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(data: bytes, kind: str) -> str:
    """An encoded image as a data URL; `kind`: png, jpeg or webp."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _read(file: str | Path | bytes | BinaryIO) -> tuple[bytes, str]:
    """The encoded bytes and what to call them in an error."""
    if isinstance(file, bytes):
        data, name = file, "the image"
    elif isinstance(file, str | Path):
        name = str(file)
        try:
            with open(file, "rb") as opened:
                data = opened.read(MAX_BYTES + 1)
        except OSError as error:
            raise unreadable(Path(file), error) from error
        except ValueError as error:  # a NUL in the path
            raise InputError(f"cannot read {name}: {error}") from error
    elif hasattr(file, "read"):
        data, name = file.read(MAX_BYTES + 1), str(getattr(file, "name", "the image"))
        if not isinstance(data, bytes):
            raise InputError(f"{name} is open as text: open it in binary mode ('rb')")
    else:
        raise InputError(f"wanted a path, bytes or a binary file, got {type(file).__name__}")
    if len(data) > MAX_BYTES:
        raise InputError(f"{name} is larger than {MAX_BYTES:,} bytes: reduce it first")
    return data, name


def _rgb(image: Image.Image, name: str, behind: str = "white") -> Image.Image:
    """Loaded, upright, opaque, sRGB, 8 bits a channel, with nothing in `info` that would be applied again."""
    try:
        image.load()
        image = _upright(image, name)
        if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
            # convert("RGB") would clip at 255 what runs to 65535.
            wide, info = np.asarray(image).astype(np.int64), image.info
            image = Image.fromarray(((np.clip(wide, 0, 65535) + 128) // 257).astype(np.uint8))
            if (clear := info.get("transparency")) is not None:
                image.putalpha(Image.fromarray(np.where(wide == clear, 0, 255).astype(np.uint8)))
            image.info = {key: value for key, value in info.items() if key == "icc_profile"}
        elif image.mode == "La":
            image = image.convert("LA")  # which Pillow converts to everything else
        elif image.mode == "F":
            raise InputError(f"{name} holds 32-bit floats: give 8 or 16 bits a channel")
        image = _in_srgb(image, name)
        if image.has_transparency_data:
            opaque = Image.new("RGBA", image.size, behind)
            opaque.alpha_composite(image.convert("RGBA"))
            image = opaque
        # Always a copy: the caller's own image is neither returned nor kept open.
        image = image.convert("RGB")
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(f"{name} is damaged ({error}): give a whole JPEG, PNG or WebP file") from error
    image.info = {}
    return image


def _upright(image: Image.Image, name: str) -> Image.Image:
    """As the camera was held; ImageOps.exif_transpose would also write EXIF anew, which fails for much of it."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except (*_DAMAGED, TypeError, AttributeError):
        _note(f"{name}: its EXIF data is broken, so it is taken as upright")
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _in_srgb(image: Image.Image, name: str) -> Image.Image:
    try:
        return colour.to_srgb(image)
    except ValueError as error:
        _note(f"{name}: its colour profile {error}, so its colours are taken as sRGB")
        return image


@functools.lru_cache(maxsize=1024)
def _note(line: str) -> None:
    """Logs a line once: training reads an image many times."""
    LOG.warning(line)


def _three_channels(image: object) -> UInt8[np.ndarray, "h w 3"]:
    if not isinstance(image, np.ndarray):
        path = ": of a file give Image.open(file)" if isinstance(image, str | Path) else ""
        raise InputError(f"wanted a PIL image or a uint8 array (H, W, 3), got {type(image).__name__}{path}")
    if image.dtype != np.uint8:
        raise InputError(f"wanted a uint8 array (0..255), got {image.dtype}: see spae.images.to_uint8")
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise InputError(f"wanted an image of shape (H, W, 3) or (H, W), got {image.shape}")
    return np.ascontiguousarray(image)
