"""One film: the frames of a video file, by number, and the files that clips are written to. PyAV does the coding.

Frames are uint8 (H, W, 3) RGB, upright. PyAV is the extra `video`, imported where it is used.
"""

import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from spae.errors import InputError
from spae.files import write_file
from spae.images import MAX_PIXELS

SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".gif")
MAX_BYTES = 1 << 32  # of a file: finding the frames of a film walks through all of it
MAX_FRAMES = 1 << 20  # of a film; more than nine hours at 30 a second

# Demuxers that read one file and nothing else: a playlist could name other files, and addresses.
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,gif"


def is_film(path: str | Path) -> bool:
    """Whether the name is that of a video file that `Film` reads."""
    path = Path(path)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


class Film:
    """The frames of a video file; opening it reads the packets, and decodes nothing.

    Attributes:
        times_n: float64 (n,), seconds at which each frame is shown, from 0; increasing.

    Raises:
        InputError: unreadable, no video, damaged, too large, or PyAV is not installed.
    """

    times_n: Float[np.ndarray, " n"]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if find_spec("av") is None:
            raise InputError(
                f"reading {path} needs PyAV: pip install 'spae[video]', or give a folder of frames"
            )
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        if size > MAX_BYTES:
            raise InputError(f"{path} is larger than {MAX_BYTES:,} bytes: cut it into pieces")
        with self._open() as (container, stream):
            # AVI stores no times; FFmpeg makes them up, and for some codecs in the wrong order.
            self._ordered = container.format.name != "avi"
            packets = [p.pts for p in container.demux(stream) if p.size and not p.is_discard]
            unit = float(stream.time_base or 0)
            rate = float(stream.average_rate or 0)
        if len(packets) > MAX_FRAMES:
            raise InputError(f"{path} has {len(packets):,} frames, at most {MAX_FRAMES:,} are read: cut it")
        if not packets:
            raise InputError(f"{path} is damaged (no frame in it): give a whole video file")
        self._ordered = self._ordered and None not in packets and len(set(packets)) == len(packets)
        if self._ordered:
            # Packets come in the order of decoding; the names of frames are the times at which they are shown.
            self._names = sorted(packets)
            self.times_n = (np.array(self._names, np.float64) - self._names[0]) * unit
        else:
            self._names = list(range(len(packets)))
            self.times_n = np.arange(len(packets)) / (rate or 25.0)

    def __len__(self) -> int:
        return len(self._names)

    def frames(self, numbers: Sequence[int]) -> list[UInt8[np.ndarray, "h w 3"]]:
        """The frames of these numbers, 0 .. len - 1, in the order given; repeats are the same array.

        Raises:
            InputError: one of them cannot be decoded.
        """
        wanted = {self._names[number]: number for number in numbers}
        for seek in (True, False) if self._ordered else (False,):
            # Some files seek to a place after the frame that was asked for: then read from the start.
            found = self._decode(wanted, seek)
            if len(found) == len(wanted):
                return [found[number] for number in numbers]
        missing = next(number for number in sorted(wanted.values()) if number not in found)
        raise InputError(
            f"{self.path} is damaged (frame {missing} of {len(self)} cannot be decoded): give a whole video file"
        )

    def _decode(self, wanted: dict[int, int], seek: bool) -> dict[int, np.ndarray]:
        import av

        found: dict[int, np.ndarray] = {}
        with self._open() as (container, stream):
            if seek:
                try:
                    container.seek(min(wanted), stream=stream, backward=True)
                except av.FFmpegError:
                    return found  # a format that cannot
            for place, frame in enumerate(container.decode(stream)):
                name = frame.pts if self._ordered else place
                if name in wanted:
                    pixels = frame.to_ndarray(format="rgb24")
                    # What the file says of how the camera was held: degrees anticlockwise.
                    found[wanted[name]] = np.rot90(pixels, round(frame.rotation / 90))
                if len(found) == len(wanted):
                    break
        return found

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        """The container and its first video stream; what FFmpeg says of damaged bytes becomes an InputError."""
        import av

        try:
            # Titles and comments may be in any encoding; nothing here reads them.
            with av.open(
                str(self.path), options={"format_whitelist": _DEMUXERS}, metadata_errors="replace"
            ) as container:
                if not container.streams.video:
                    raise InputError(f"{self.path} has no video in it: give a video file")
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise InputError(
                        f"{self.path} is damaged, or of a codec that is not known: give another file"
                    )
                width, height = stream.codec_context.width, stream.codec_context.height
                if width * height > MAX_PIXELS:
                    raise InputError(
                        f"{self.path} has frames of {width} x {height} pixels: at most {MAX_PIXELS:,} are read"
                    )
                stream.codec_context.thread_count = 1  # several films are read at once, each in a thread
                yield container, stream
        except av.FFmpegError as error:
            raise InputError(
                f"{self.path} is no video file or damaged ({error.strerror}): give a whole "
                f"{', '.join(SUFFIXES)} file"
            ) from error


def check_output(path: str | Path) -> None:
    """That a clip can be written to `path`; InputError says what to give instead."""
    path = Path(path)
    if path.suffix.lower() not in ("", ".gif", ".mp4"):
        raise InputError(f"wanted an output ending .gif or .mp4, or a new folder for the frames, got {path}")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    if path.suffix == "" and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"wanted a new or an empty folder for the frames, {path} is there: choose another")
    if path.suffix.lower() == ".mp4" and find_spec("av") is None:
        raise InputError(f"writing {path} needs PyAV: pip install 'spae[video]', or give a .gif or a folder")


def write_film(path: str | Path, clip_thwc: UInt8[np.ndarray, "t h w 3"], fps: float) -> None:
    """Write a clip as .gif, .mp4 (H.264) or, without an ending, as a folder of PNG files; whole or not at all.

    Raises:
        InputError: another ending, odd sides for .mp4, or `path` cannot be written.
    """
    path = Path(path)
    check_output(path)
    if path.suffix == "":
        _write_folder(path, clip_thwc)
    elif path.suffix.lower() == ".gif":
        first, *rest = (Image.fromarray(frame) for frame in clip_thwc)
        buffer = io.BytesIO()
        first.save(buffer, "GIF", save_all=True, append_images=rest, duration=1000 / fps, loop=0)
        write_file(path, buffer.getvalue())
    else:
        write_file(path, _mp4(clip_thwc, fps))


def _write_folder(path: Path, clip_thwc: np.ndarray) -> None:
    digits = max(4, len(str(len(clip_thwc))))
    try:
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            for number, frame in enumerate(clip_thwc, start=1):
                Image.fromarray(frame).save(part / f"{number:0{digits}}.png")
            part.chmod(0o755)
            part.replace(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _mp4(clip_thwc: np.ndarray, fps: float) -> bytes:
    from fractions import Fraction

    import av

    _, height, width, _ = clip_thwc.shape
    if height % 2 or width % 2:
        raise InputError(f"H.264 wants even sides, got {width} x {height}: write a .gif or a folder")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in clip_thwc:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
