"""Clips: T squares of a film, from video files or from folders of frames, by index, with labels.

A clip is uint8 (T, S, S, 3). Films are read at `fps` frames a second by their own clock, or every `stride`-th frame;
folders of frames have no clock and are read at every `stride`-th frame.
"""

import glob
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from spae.errors import InputError
from spae.files import file_size
from spae.images import open_image, to_array
from spae.sources import EXTENSIONS, Record, Source
from spae.sources.fields import class_name
from spae.sources.films import SUFFIXES, Film, is_film
from spae.sources.folder import walk

CENTRE = 0.5  # of a film: where evaluation reads


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames of a film make a clip."""

    frames: int  # T
    stride: int = 1  # from one frame to the next, in frames of the film
    fps: float | None = None  # frames a second, instead of `stride`, where the film has a clock

    def __post_init__(self) -> None:
        if self.frames < 1 or self.stride < 1 or not (self.fps is None or 0 < self.fps < float("inf")):
            raise InputError(f"a clip wants frames and stride of at least 1, and fps above 0, got {self}")

    def numbers(self, count: int, place: float) -> list[int]:
        """Every `stride`-th of `count` frames; `place` in [0, 1] is where: 0 at the start, 1 at the end.

        Raises:
            InputError: too few frames.
        """
        span = (self.frames - 1) * self.stride + 1
        if count < span:
            raise InputError(
                f"has {count} frames, wanted {span} for {self.frames} at a stride of {self.stride}: leave it out, "
                "or take a smaller stride"
            )
        start = min(int(place * (count - span + 1)), count - span)
        return list(range(start, start + span, self.stride))

    def numbers_by_time(self, times_n: Float[np.ndarray, " n"], place: float) -> list[int]:
        """The frames nearest to `fps` ticks a second; frames repeat where the film has fewer.

        Args:
            times_n: seconds of each frame, increasing.
            place: as for `numbers`.

        Raises:
            InputError: the film is too short.
        """
        if self.fps is None:
            return self.numbers(len(times_n), place)
        span = (self.frames - 1) / self.fps
        gap = float(np.median(np.diff(times_n))) if len(times_n) > 1 else 0.0
        # The last tick may fall behind the last frame's time as long as that frame is still shown.
        slack = float(times_n[-1]) - span
        if slack < -gap / 2 - 1e-6:
            raise InputError(
                f"lasts {times_n[-1] + gap:.3g} s, wanted {span + gap:.3g} s for {self.frames} frames at {self.fps:g} "
                "a second: leave it out, or read it faster"
            )
        # Between two frames' times, the middle is where the nearest one changes. The first tick is at a frame, so that
        # ticks do not fall on such middles where `fps` goes evenly into the film's rate.
        middles = (times_n[1:] + times_n[:-1]) / 2
        first = times_n[np.searchsorted(middles, place * max(slack, 0.0))]
        return np.searchsorted(middles, first + np.arange(self.frames) / self.fps).tolist()


class Clips(Source):
    """Clips by index: `clips[i]` from the middle of a film, `clips.draw(i, generator)` from anywhere in it.

    Which kind an entry is, is seen from what it is: a video file, or a folder of images in the natural order of their
    names (2 before 10). The folder around an entry is its label.
    """

    def __init__(self, files: list[Path], names: list[str], size: int, sampling: Sampling) -> None:
        super().__init__(files, size)
        self.names = names
        self.sampling = sampling
        self._side = size
        self.part = repr(sampling)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Record:
        return self._record(range(len(self))[index], CENTRE)

    def draw(self, index: int, generator: np.random.Generator) -> Record:
        return self._record(range(len(self))[index], generator.random())

    def label(self, index: int) -> str | None:
        return class_name(Path(self.names[index]).parent.name) or None

    def key(self, index: int) -> str:
        return self.names[index]

    def _read(self, index: int) -> tuple[Any, str | None, str | None, str]:
        record = self._record(index, CENTRE)
        return record.image, record.label, record.caption, record.key

    def _record(self, index: int, place: float) -> Record:
        name = self.names[index]
        clip_thwc = read_clip(self.files[index], self._side, self.sampling, place)
        return Record(clip_thwc, self.label(index), None, name)

    def caption(self, index: int) -> str | None:
        """Films have none."""
        return None

    @property
    def fingerprint(self) -> str:
        """The identity: to read the bytes of all films would take days."""
        return self.identity

    @cached_property
    def identity(self) -> str:
        """sha256 over the sampling and the names and sizes of all films, in hexadecimal."""
        digest = hashlib.sha256(self.part.encode())
        for file, name in zip(self.files, self.names, strict=True):
            frames = _frame_files(file) if file.is_dir() else [file]
            sizes = " ".join(str(file_size(frame)) for frame in frames)
            digest.update(f"{name}\0{sizes}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()


def open_clips(path: str | Path, size: int, sampling: Sampling) -> Clips:
    """The clips at `path`: a folder of video files and of folders of frames at any depth, one of these, or a glob.

    Raises:
        InputError: nothing there, or no clips.
    """
    root = Path(path)
    if root.is_dir():
        entries = _walk(root)
        names = [entry.relative_to(root).as_posix() if entry != root else root.name for entry in entries]
    else:
        entries = [root] if root.exists() else [Path(name) for name in sorted(glob.glob(str(path)))]
        entries = [entry for entry in entries if entry.is_dir() or is_film(entry)]
        names = [f"{entry.parent.name}/{entry.name}" for entry in entries]
    if not entries:
        raise InputError(
            f"no clips at {path}: wanted a folder of video files ({', '.join(SUFFIXES)}) or of folders of frames "
            f"({', '.join(EXTENSIONS)})"
        )
    return Clips(entries, names, size, sampling)


def read_clip(
    path: str | Path, size: int, sampling: Sampling, place: float = CENTRE
) -> UInt8[np.ndarray, "t size size 3"]:
    """One clip of a video file or of a folder of frames, as squares of `size` pixels a side.

    Args:
        place: where in the film, 0 at its start .. 1 at its end.

    Raises:
        InputError: too few frames, unreadable, damaged, too large; names the file.
    """
    path = Path(path)
    if path.is_dir():
        files = _frame_files(path)
        if not files:
            raise InputError(f"no frames in the folder {path}: wanted {', '.join(EXTENSIONS)}")
        numbers = _named(path, lambda: sampling.numbers(len(files), place))
        return np.stack([to_array(open_image(files[n], size), size) for n in numbers])
    if not is_film(path):
        raise InputError(f"{path} is no film: wanted {', '.join(SUFFIXES)}, or a folder of frames")
    film = Film(path)
    numbers = _named(path, lambda: sampling.numbers_by_time(film.times_n, place))
    return np.stack([to_array(frame, size) for frame in film.frames(numbers)])


def trained_sampling(info: Mapping[str, Any], frames: int) -> Sampling:
    """How a tokenizer was trained to read films, by what its bundle says; every frame if it does not."""
    data = info.get("training", {}).get("config", {}).get("data", {})
    return Sampling(frames=frames, stride=data.get("stride", 1), fps=data.get("fps"))


def refuse_clips(tokenizer: Any, who: str) -> None:
    """Raise InputError if the tokenizer is one of clips: for `who`, which works on images."""
    if tokenizer.frames > 1:
        raise InputError(
            f"{who} works on images, and the bundle's tokenizer is one of clips ({tokenizer.frames} frames): "
            "give the bundle of a tokenizer of images"
        )


def _named(path: Path, choose: Any) -> list[int]:
    try:
        return choose()
    except InputError as error:
        raise InputError(f"{path} {error}") from error


def _walk(root: Path) -> list[Path]:
    """Video files, and folders that hold images but no video files, in the order of their names."""
    entries = []
    for directory, folders, files in walk(root):
        films = [Path(directory) / file for file in files if is_film(file)]
        entries += films
        if not films and any(_is_frame(file) for file in files):
            entries.append(Path(directory))
            folders.clear()
    return sorted(entries)


def _is_frame(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _frame_files(folder: Path) -> list[Path]:
    names = [entry.name for entry in os.scandir(folder) if _is_frame(entry.name)]
    return [folder / name for name in sorted(names, key=_natural)]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts 2 before 10: numbers by their value, everything else as text."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)] + [
        (-1, name)
    ]
