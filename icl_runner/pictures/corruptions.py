"""Images made worse on purpose, the inputs of the transform task; and pyramids with words replaced.

Every corruption is (image uint8 (H, W, 3), strength s in [0, 1], seed) -> uint8 (H, W, 3): s = 0 changes nothing,
s = 1 is the worst. Only "denoise" draws from the seed; the others are the same for every seed. x is a channel
value in 0..255; results are clipped and rounded.
"""

from collections.abc import Callable, Mapping
from math import pi

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from spae.errors import InputError
from spae.pyramid import Pyramid
from spae.vocabulary import Vocabulary

Picture = UInt8[np.ndarray, "h w 3"]

GREY = 128  # of what is masked out
COARSEST = 4  # cells along the shorter side at full pixelation
NOISE = 128.0  # standard deviation at full strength, in grey levels
WIDEST_BLUR = 1 / 16  # standard deviation at full strength, as a part of the shorter side
LUMA = np.array([0.299, 0.587, 0.114])  # Rec. 601


def _brightness(x_hwc: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Darkened: (1 - s) x."""
    return (1 - strength) * x_hwc


def _colour(x_hwc: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Hue turned by s 180 degrees about the grey axis, then saturation times 1 - s / 2.

    Rotation of RGB about (1, 1, 1) by Rodrigues' formula; then x -> luma + (1 - s / 2) (x - luma).
    """
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = strength * pi
    turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * np.outer(axis, axis)
    turned_hwc = x_hwc @ turn.T
    luma_hw1 = (turned_hwc @ LUMA)[..., None]
    return luma_hw1 + (1 - strength / 2) * (turned_hwc - luma_hw1)


def _pixelation(x_hwc: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Means over n x n cells, n = the side to the power of 1 - s, times 4 to the power of s (of the shorter side;
    the longer keeps the ratio): from every pixel its own to 4 x 4."""
    height, width = x_hwc.shape[:2]
    side = min(height, width)
    part = (min(COARSEST, side) / side) ** strength
    cells = max(1, round(width * part)), max(1, round(height * part))
    picture = Image.fromarray(_rounded(x_hwc)).resize(cells, Image.Resampling.BOX)
    return np.asarray(picture.resize((width, height), Image.Resampling.NEAREST), np.float64)


def _rotation(x_hwc: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Turned anticlockwise by s 180 degrees about the middle, bilinear; corners that come free are black."""
    picture = Image.fromarray(_rounded(x_hwc))
    return np.asarray(picture.rotate(strength * 180, Image.Resampling.BILINEAR), np.float64)


def _translation(x_hwc: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Moved to the right by round(s W / 2) and down by round(s H / 2) pixels; what comes free is black."""
    height, width = x_hwc.shape[:2]
    down, right = round(strength * height / 2), round(strength * width / 2)
    moved_hwc = np.zeros_like(x_hwc)
    moved_hwc[down:, right:] = x_hwc[: height - down, : width - right]
    return moved_hwc


def _inpainting(x_hwc: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """A grey box of round(s H) x round(s W) pixels in the middle."""
    masked_hwc = x_hwc.copy()
    masked_hwc[_middle(x_hwc, strength)] = GREY
    return masked_hwc


def _outpainting(x_hwc: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Grey but for a box of round((1 - s) H) x round((1 - s) W) pixels in the middle."""
    masked_hwc = np.full_like(x_hwc, GREY)
    box = _middle(x_hwc, 1 - strength)
    masked_hwc[box] = x_hwc[box]
    return masked_hwc


def _deblur(x_hwc: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Blurred by a Gaussian of standard deviation s / 16 of the shorter side, cut off after 4 of them; the
    border's pixels are repeated outside."""
    sigma = strength * min(x_hwc.shape[:2]) * WIDEST_BLUR
    radius = int(np.ceil(4 * sigma))
    if radius == 0:
        return x_hwc
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        border = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded_hwc = np.moveaxis(np.pad(x_hwc, border, mode="edge"), axis, 0)
        length = x_hwc.shape[axis]
        blurred = sum(weight * padded_hwc[i : i + length] for i, weight in enumerate(weights))
        x_hwc = np.moveaxis(np.asarray(blurred), 0, axis)
    return x_hwc


def _denoise(x_hwc: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Gaussian noise of standard deviation 128 s on every channel of every pixel."""
    return x_hwc + np.random.default_rng(seed).normal(0, NOISE * strength, x_hwc.shape)


# By the name of the task that undoes it.
CORRUPTIONS: Mapping[str, Callable[[np.ndarray, float, int], np.ndarray]] = {
    "brightness": _brightness,
    "colour": _colour,
    "pixelation": _pixelation,
    "rotation": _rotation,
    "translation": _translation,
    "inpainting": _inpainting,
    "outpainting": _outpainting,
    "deblur": _deblur,
    "denoise": _denoise,
}


def corrupt(image: Picture, kind: str, strength: float, seed: int = 0) -> Picture:
    """The image made worse: a new uint8 array of the same shape, the same for the same seed.

    Raises:
        InputError: an image that is not uint8 (H, W, 3), an unknown kind (see `CORRUPTIONS`), or a strength outside of
            [0, 1].
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"corruption: wanted a uint8 image (H, W, 3); got {found}: see spae.images.to_array")
    if kind not in CORRUPTIONS:
        raise InputError(f"corruption: wanted one of {', '.join(CORRUPTIONS)}; got {kind!r}")
    _check_part("strength", strength)
    return _rounded(CORRUPTIONS[kind](image.astype(np.float64), strength, seed))


def replace_words(pyramid: Pyramid, share: float, vocabulary: Vocabulary, seed: int) -> Pyramid:
    """A pyramid with round(share n) of its n words replaced, each by another word drawn uniformly.

    Which places, and by what, depends on the seed only. Places of a smaller share are among those of a larger one
    with the same seed, and get the same words: strengths differ in amount alone.

    Raises:
        InputError: a share outside of [0, 1], or a vocabulary of one word.
    """
    _check_part("share", share)
    if len(vocabulary) < 2:
        raise InputError(
            "corruption: wanted a vocabulary of at least 2 words to replace one by another; got 1"
        )
    ids = pyramid.flat_ids
    rng = np.random.default_rng(seed)
    places = rng.permutation(len(ids))
    # A step of 1 .. V - 1 around the vocabulary never ends where it began.
    steps = rng.integers(1, len(vocabulary), len(ids))
    replaced = places[: round(share * len(ids))]
    ids[replaced] = (ids[replaced] + steps[replaced]) % len(vocabulary)
    return Pyramid.from_ids(ids, pyramid.shape, vocabulary)


def strengths(first: float, last: float, count: int) -> list[float]:
    """`count` strengths for examples in context, then the query's: evenly from `first` to `last`.

    (0.5, 0.2, 10) gives 0.50, 0.47, .., 0.23 and 0.20 for the query, as V2L-Tokenizer (arXiv 2403.07874) has it.
    """
    for strength in (first, last):
        _check_part("strength", strength)
    if count < 1:
        raise InputError(f"corruption: wanted at least one example in context; got {count}")
    return [float(value) for value in np.linspace(first, last, count + 1).round(6)]


def _check_part(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InputError(f"corruption: wanted a {name} from 0 to 1; got {value!r}")


def _middle(x_hwc: np.ndarray, part: float) -> tuple[slice, slice]:
    """The box of round(part H) x round(part W) pixels in the middle; half a pixel up and left of it if need be."""
    sides = [round(part * side) for side in x_hwc.shape[:2]]
    starts = [(whole - side) // 2 for whole, side in zip(x_hwc.shape[:2], sides, strict=True)]
    rows, columns = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    return rows, columns


def _rounded(x_hwc: np.ndarray) -> Picture:
    return np.rint(np.clip(x_hwc, 0, 255)).astype(np.uint8)
