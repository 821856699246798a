"""Films for tests: a bright square that moves over a colour, written as files and as folders of frames."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def moving_square(
    count: int, size: tuple[int, int] = (48, 64), seed: int = 0
) -> UInt8[np.ndarray, "t h w 3"]:
    """`count` frames; the background's red channel grows from 0 by 200 / count a frame, so it tells frames apart."""
    height, width = size
    generator = np.random.default_rng(seed)
    top, left = generator.integers(0, height // 2), generator.integers(0, width // 2)
    clip = np.zeros((count, height, width, 3), np.uint8)
    clip[..., 1:] = generator.integers(40, 120, 2)
    for t in range(count):
        clip[t, ..., 0] = round(200 * t / count)
        x = (left + 2 * t) % (width - 8)
        clip[t, top : top + 8, x : x + 8] = 255
    return clip


def number_of(frame: np.ndarray, count: int) -> float:
    """Which frame of `moving_square(count)` this is, from its colour."""
    return float(np.median(frame[..., 0])) * count / 200


def write_frames(folder: Path, clip: np.ndarray, name: str = "{}.png") -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(clip):
        Image.fromarray(frame).save(folder / name.format(number))
    return folder


def write_video(path: Path, clip: np.ndarray, codec: str, rate: int = 10, **options: str) -> Path:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = clip.shape[1:3]
        stream.bit_rate = 8_000_000  # all but lossless at this size
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path
