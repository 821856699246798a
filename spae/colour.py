"""Colours as they were meant: from the space that a picture's ICC profile describes to sRGB, by LittleCMS."""

import functools
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

# The space of a profile -> the mode in which Pillow holds its colours.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
# Profiles that are sRGB under another name move no colour further than their tables are coarse.
_SAME = 2  # levels of 255


def to_srgb(image: Image.Image) -> Image.Image:
    """The picture in sRGB: by the profile in `info["icc_profile"]`; the image itself if it has none, or sRGB's.

    Takes every mode of 8 bits or fewer; alpha stays as it is. Perceptual intent, as in web browsers.

    Raises:
        ValueError: the profile is damaged, or of other colours than the image's.
    """
    if "icc_profile" not in image.info:
        return image
    transform, mode = _transform(image.info["icc_profile"] or b"")
    if mode == "CMYK" and image.mode != "CMYK":
        raise ValueError(f"is of CMYK, and the pixels are {image.mode}")
    if mode == "L" and image.mode not in ("1", "L", "LA"):
        raise ValueError(f"is of grey, and the pixels are {image.mode}")
    if mode == "RGB" and image.mode == "CMYK":
        raise ValueError("is of RGB, and the pixels are CMYK")
    if transform is None:
        return image
    if not image.has_transparency_data:
        return transform(image.convert(mode))
    opaque = image.convert("RGBA")
    converted = transform(opaque.convert(mode))
    converted.putalpha(opaque.getchannel("A"))
    return converted


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[Callable[[Image.Image], Image.Image] | None, str]:
    """The way to sRGB, None where it is none, and the mode of what goes in. Threads may share it."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES[opened.profile.xcolor_space.strip()]
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        # Exact for the few colours below; for all those of a picture it would be slow.
        flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
        transform = ImageCms.ImageCmsTransform(opened, srgb, mode, "RGB", flags=flags)
    except (OSError, ValueError, ImageCms.PyCMSError) as error:
        raise ValueError("is damaged") from error
    except KeyError as error:
        raise ValueError("is of no colours of photographs") from error
    levels = np.arange(256, dtype=np.uint8)
    if mode == "L":
        table = np.asarray(transform.apply(Image.fromarray(levels[None])))[0, :, 1].tolist()
        return lambda image: image.point(table), mode
    if mode == "RGB":
        some = levels[:: 255 // 5]
        before = np.stack(np.meshgrid(some, some, some), -1).reshape(1, -1, 3)
        after = np.asarray(transform.apply(Image.fromarray(before)))
        if np.abs(after.astype(int) - before).max() <= _SAME:
            return None, mode
    return transform.apply, mode
