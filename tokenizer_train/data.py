"""Batches of images or clips for training a tokenizer, of one or several sources."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import chain, count
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Int, UInt8

from spae.architecture import AutoencoderConfig
from spae.errors import InputError
from spae.images import to_array
from spae.pyramid import PyramidShape
from spae.sources import Source, open_source
from spae.sources.clips import Sampling, open_clips
from tokenizer_train.config import DataConfig
from tokenizer_train.damage import Damage
from tokenizer_train.stream import Records, Stream


class Rows(Protocol):
    """Rows (N, d) by number: an array, or `spae.guidance.cache.Features`, which lie on disk. NaN where an image could
    not be read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, row: int) -> Float32[np.ndarray, " d"]: ...


def open_data(path: str, split: str | None, tokenizer: AutoencoderConfig, config: DataConfig) -> Source:
    """The images at a path; the clips, if the tokenizer is one of clips.

    Raises:
        InputError: nothing there that can be read, or a split of anything but a TFDS directory.
    """
    if tokenizer.frames == 1:
        return open_source(path, tokenizer.image_size, split)
    if split is not None:
        raise InputError(f"a split ({split}) is for a TFDS directory of images: leave it out for clips")
    sampling = Sampling(frames=tokenizer.frames, stride=config.stride, fps=config.fps)
    return open_clips(path, tokenizer.image_size, sampling)


class _Records(Records):
    """Images of a source with their features."""

    def __init__(self, source: Source, features_nd: Rows, image_size: int, damage: Damage) -> None:
        self._source = source
        self._features_nd = features_nd
        self._image_size = image_size
        self._damage = damage

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """The record of a source, by what the generator draws: also which one takes the place of one that cannot be
        read, so that the stream stays a function of the seed and of what lies on disk."""

        def record(i: int) -> dict[str, np.ndarray]:
            feature_d = self._features_nd[i]
            if np.isnan(feature_d).any():
                key = self._source.key(i)
                raise InputError(
                    f"{key} could not be read when its features were computed (delete those to try again)"
                )
            image = _squares(self._source.draw(i, generator).image, self._image_size)
            return {"images": image, "features": feature_d}

        others = (int(generator.integers(len(self))) for _ in count())
        return self._damage.first(record, chain([index], others))


def _flip(
    record: dict[str, np.ndarray], generator: np.random.Generator, mirrored: Int[np.ndarray, " d"] | None
) -> dict[str, np.ndarray]:
    """Mirror every other image. Its guidance feature, which a mirror image hardly changes, stays; words of its regions
    change places: `mirrored` says which word stands where."""
    if generator.random() < 0.5:
        record = {**record, "images": np.ascontiguousarray(record["images"][..., ::-1, :])}
        if mirrored is not None:
            record["features"] = record["features"][mirrored]
    return record


def mirrored_places(shape: PyramidShape, layers: int) -> Int[np.ndarray, " k"]:
    """Where the words of the first layers' places stood before the image was mirrored."""
    places, first = [], 0
    for grid in shape.layers[:layers]:
        places.append(first + np.arange(math.prod(grid)).reshape(grid)[..., ::-1].ravel())
        first += math.prod(grid)
    return np.concatenate(places)


def _squares(image: UInt8[np.ndarray, "*t h w 3"], size: int) -> UInt8[np.ndarray, "*t size size 3"]:
    """The square that the tokenizer sees of an image; clips are cut to theirs when they are read."""
    return image if image.ndim == 4 else to_array(image, size)


class Batches(Stream):
    """The endless stream of this process's rows of the global batches of images.

    See `tokenizer_train.stream`; flips and the places of clips in their films are drawn by the position in the stream.
    A batch has `images`, uint8 (B, *T, H, W, 3), and `features`, float32 (B, d): the guidance's of each image, unit
    length, or of each film, the mean over frames; d = 0 without guidance.

    Args:
        sources: Images of any size, read by index, each source with its weight.
        features: Of each source the guidance features of its images, float32 (N, d), row i for image i; d may be 0.
            NaN for an image that could not be read: it is not read again.
        image_size: Side of the images handed out, in pixels.
        config: Global batch size, flips, what is done about images that cannot be read, threads.
        seed: Of the order and the flips.
        rows: This process's rows of a global batch, see `tokenizer_train.processes.mesh.local_rows`.
        mirrored: The order of the features of an image that is mirrored (`mirrored_places`); None: they stay.

    Raises:
        InputError: A source is empty, or the features are not one row per record. While reading: an image cannot be
            read, and `config.damaged` is "error".
    """

    def __init__(
        self,
        sources: Sequence[tuple[Source, float]],
        features: Sequence[Rows],
        image_size: int,
        config: DataConfig,
        seed: int,
        rows: Int[np.ndarray, " n"],
        mirrored: Int[np.ndarray, " d"] | None = None,
    ) -> None:
        damage = Damage(config.damaged)
        records = []
        for (source, weight), features_nd in zip(sources, features, strict=True):
            if len(source) == 0:
                raise InputError(
                    "data.train and data.mixture must hold at least one image each, one holds none"
                )
            if len(features_nd.shape) != 2 or features_nd.shape[0] != len(source):
                raise InputError(
                    f"the guidance features must be one row per image, ({len(source)}, d), "
                    f"got {features_nd.shape}; delete the guidance cache of this run"
                )
            records.append((_Records(source, features_nd, image_size, damage), weight))
        super().__init__(
            records, config, seed, rows, partial(_flip, mirrored=mirrored) if config.flip else None
        )


def fixed_images(
    source: Source, number: int, image_size: int, damage: Damage
) -> UInt8[np.ndarray, "n *T H W 3"]:
    """`number` images, or the middle clips of so many films, spread evenly over the source (all of them if it holds
    fewer), always the same ones; for one that cannot be read the next, if the damage allows it.

    Raises:
        InputError: The source is empty, or an image cannot be read.
    """
    if len(source) == 0:
        raise InputError("data.validation must hold at least one image, it holds none")
    indices = np.linspace(0, len(source) - 1, min(number, len(source))).round().astype(int)

    def square(index: int) -> UInt8[np.ndarray, "*t size size 3"]:
        return _squares(source[index % len(source)].image, image_size)

    return np.stack([damage.first(square, count(int(i))) for i in indices])
