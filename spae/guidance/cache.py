"""Image vectors of a whole source, computed once and kept on disk.

The table of word scores of N images and V words is the product features @ word_features.T. It is kept in this
factored form, (N, d) and (V, d): exact, of rank d, and for ConSE over 16,384 words forty times smaller.
"""

import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Float32, UInt8

from spae.errors import InputError
from spae.files import bucket_errors, cache_folder, is_remote, open_path, write_file
from spae.guidance.protocol import Guidance, ImageVectors
from spae.guidance.scores import word_features
from spae.images import to_array
from spae.progress import Progress
from spae.sources import Source

SHARD_ROWS = 8_192  # images of a file: 25 MB of CLIP ViT-L/14's vectors, on two cores many minutes of work
# What a kill can cost at most: so many calls of the guidance are a part of a file, and kept until the file is whole.
PART_BATCHES = 16
PART_WORDS = 1_024
_THREADS = 8


class Features:
    """Vectors of all images of a source, float32 (N, d), row i for `source[i]`; on disk, a row is read when it is asked
    for. `np.asarray` reads them all. A row is NaN where the image could not be read. Of files in a bucket there are
    copies in `spae.files.cache_folder()`."""

    def __init__(self, files: Sequence[epath.Path], shape: tuple[int, int]) -> None:
        self.shape = shape
        self._shards = [
            _mapped(file, (len(rows), shape[1])) for file, rows in zip(files, _shards(shape[0]), strict=True)
        ]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> Float32[np.ndarray, " d"]:
        shard, place = divmod(row, SHARD_ROWS)
        return np.array(self._shards[shard][place])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate(self._shards).astype(dtype or np.float32)

    def mean(self) -> Float32[np.ndarray, " d"]:
        """The mean row of the images that could be read, with one shard in memory at a time; the same however many
        processes made them.

        Raises:
            InputError: none could be read.
        """
        total_d, count = np.zeros(self.shape[1], np.float64), 0
        for shard in self._shards:
            read_n = ~np.isnan(shard[:, 0])
            total_d += shard.sum(axis=0, dtype=np.float64, where=read_n[:, None])
            count += int(read_n.sum())
        if not count:
            raise InputError(f"none of the {len(self):,} images could be read: are they still there?")
        return (total_d / count).astype(np.float32)


def compute_image_features(
    guidance: ImageVectors,
    source: Source,
    cache: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    share: tuple[int, int] = (0, 1),
    left_out: Callable[[InputError], object] | None = None,
) -> None:
    """The guidance's vector of every image of the source, of a clip the mean of its frames' vectors (SPAE's video
    variant), computed and written where it is not on disk.

    The files' names are a hash over the source's identity and the guidance's fingerprint, so nothing stale is read, as
    far as `Source.identity` can tell. They hold a few thousand images each, and are made of parts of `PART_BATCHES`
    batches that are written one by one: what was computed before a kill is not computed again. A file that is damaged
    is reported on stderr and made again: it holds nothing that cannot be computed anew.

    Args:
        cache: folder, also in a bucket; None for `spae.files.cache_folder()`.
        batch_size: images per call of the guidance, cut over all devices of this process.
        share: (i, n): of n processes that share the work this is the i-th, from 0; it makes and checks every n-th file.
        left_out: told of every image that cannot be read, which gets a row of NaN; None: the first one is an error.

    Raises:
        InputError: the source is empty, or holds an image that cannot be read, or `batch_size` of them in a row; a file
            cannot be written.
        OSError: the bucket cannot be read.
    """
    if not len(source):
        raise InputError("expected a source with at least one image, got an empty one: check its path")
    first, step = share
    shards = list(zip(_image_files(guidance, source, cache), _shards(len(source)), strict=True))[first::step]
    total = sum(len(rows) for _, rows in shards)
    done = sum(_done(file, rows, PART_BATCHES * batch_size) for file, rows in shards)
    with Progress(total, f"{guidance.name} features", "image", done) as progress:

        def compute(rows: range) -> np.ndarray:
            return _compute(guidance, source, rows, batch_size, progress, left_out)

        for file, rows in shards:
            _kept_in_parts(file, rows, guidance.width, PART_BATCHES * batch_size, compute)


def stored_image_features(
    guidance: ImageVectors, source: Source, cache: str | os.PathLike[str] | None = None
) -> Features:
    """What `compute_image_features` has left on disk.

    Raises:
        InputError: a file is missing.
    """
    return Features(_image_files(guidance, source, cache), (len(source), guidance.width))


def cached_word_features(
    guidance: Guidance, words: Sequence[str], cache: str | os.PathLike[str] | None = None
) -> Float[np.ndarray, "v d"]:
    """`spae.guidance.scores.word_features`, kept like the vectors of images: the words are the content.

    Raises:
        InputError: there are no words.
    """
    content = (guidance.name, guidance.fingerprint, *guidance.templates, *words)
    file, rows = open_path(cache or cache_folder()) / f"{_hash(content)}.safetensors", range(len(words))
    done = _done(file, rows, PART_WORDS)
    with Progress(len(words), f"{guidance.name} words", "word", done) as progress:

        def compute(part: range) -> np.ndarray:
            features = word_features(guidance, words[part.start : part.stop])
            progress.update(len(part))
            return features

        return _kept_in_parts(file, rows, guidance.width, PART_WORDS, compute)


def _hash(content: Sequence[object]) -> str:
    return hashlib.sha256("\n".join(map(str, content)).encode()).hexdigest()


def _shards(count: int) -> list[range]:
    """The rows of each file."""
    return [range(start, min(start + SHARD_ROWS, count)) for start in range(0, count, SHARD_ROWS)]


def _image_files(
    guidance: ImageVectors, source: Source, cache: str | os.PathLike[str] | None
) -> list[epath.Path]:
    content = (
        guidance.name,
        guidance.fingerprint,
        source.identity,
        guidance.image_size,
        source.size,
        SHARD_ROWS,
    )
    name, count = _hash(content), len(_shards(len(source)))
    folder = open_path(cache or cache_folder())
    return [folder / f"{name}-{number:05}-of-{count:05}.safetensors" for number in range(count)]


def _parts(file: epath.Path, rows: range, size: int) -> list[tuple[epath.Path, range]]:
    """The rows of a file in parts of at most `size`, and where each is kept until the file is whole; of a file of one
    part there is nothing to keep."""
    cut = [rows[start : start + size] for start in range(0, len(rows), size)]
    places = [file.with_name(f"{file.stem}-rows-{part.start}-{part.stop}{file.suffix}") for part in cut]
    return list(zip(places, cut, strict=True)) if len(cut) > 1 else []


def _done(file: epath.Path, rows: range, size: int) -> int:
    """How many of a file's rows are on disk."""
    if file.is_file():
        return len(rows)
    return sum(len(part) for place, part in _parts(file, rows, size) if place.is_file())


def _kept_in_parts(
    file: epath.Path, rows: range, width: int, size: int, compute: Callable[[range], np.ndarray]
) -> np.ndarray:
    """As `_kept`, the rows of a file, of which no more than `size` are computed between one write and the next."""
    parts = _parts(file, rows, size)

    def whole() -> np.ndarray:
        if not parts:
            return compute(rows)
        made = [_kept(place, (len(part), width), partial(compute, part)) for place, part in parts]
        return np.concatenate(made)

    features = _kept(file, (len(rows), width), whole)
    for place, _ in parts:
        place.unlink(missing_ok=True)
    return features


def _kept(file: epath.Path, shape: tuple[int, int], compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The features from the file; computed and written if it is not there or damaged."""
    if file.is_file():
        try:
            return _read(file, shape)
        except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
            if isinstance(error, OSError) and is_remote(file):
                raise  # the network's: what cannot be read now need not be damaged
            print(f"spae: damaged cache {file} ({error}): computing it again", file=sys.stderr)
    features = compute()
    checksum = np.frombuffer(hashlib.sha256(features.tobytes()).digest(), np.uint8)
    if not is_remote(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, safetensors.numpy.save({"features": features, "sha256": checksum}))
    return features


def _mapped(file: epath.Path, shape: tuple[int, int]) -> Float32[np.ndarray, "n d"]:
    """The rows of a file without reading them. `_kept` has looked at them before."""
    try:
        if is_remote(file):
            # Rows are read one by one and at random, of which a bucket is not capable. The copy is known by the
            # checksum with which the file ends: features that are deleted and made anew are another file.
            with bucket_errors(file), file.open("rb") as opened:
                opened.seek(-32, os.SEEK_END)
                checksum = opened.read().hex()
            bucket, file = file, open_path(cache_folder()) / f"{checksum}.safetensors"
            _kept(file, shape, lambda: _read(bucket, shape))
        with open(file, "rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            start = json.loads(opened.read(length))["features"]["data_offsets"][0]
        return np.memmap(file, np.float32, "r", 8 + length + start, shape)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"cannot read {file} ({error}): the folder of the features must be one that all processes see"
        ) from error


def _read(file: epath.Path, shape: tuple[int, int]) -> np.ndarray:
    with bucket_errors(file):
        data = file.read_bytes()
    tensors = safetensors.numpy.load(data)
    features = tensors["features"]
    if features.shape != shape or features.dtype != np.float32:
        raise ValueError(f"expected float32 {shape}, got {features.dtype} {features.shape}")
    # Several gigabytes may have lain on a bad disk: safetensors has no checksum of its own.
    if hashlib.sha256(features.tobytes()).digest() != tensors["sha256"].tobytes():
        raise ValueError("its checksum does not fit")
    return features


def _compute(
    guidance: ImageVectors,
    source: Source,
    rows: range,
    batch_size: int,
    progress: Progress,
    left_out: Callable[[InputError], object] | None,
) -> np.ndarray:
    features = np.full((len(rows), guidance.width), np.nan, np.float32)
    for found, images in _batches(source, rows, guidance.image_size, batch_size, left_out):
        # Of clips every frame is an image.
        frames = images.reshape(-1, *images.shape[-3:])
        vectors = np.concatenate(
            [
                _vectors(guidance, frames[i : i + batch_size], batch_size)
                for i in range(0, len(frames), batch_size)
            ]
        )
        means = vectors.reshape(len(found), -1, guidance.width).mean(axis=1)
        features[np.array(found) - rows.start] = means
        progress.update(len(found))
    return features


def _vectors(
    guidance: ImageVectors, images: UInt8[np.ndarray, "b h w 3"], size: int
) -> Float[np.ndarray, "b d"]:
    """The vectors of at most `size` images, computed as so many, or as a few more where the devices do not divide them:
    one shape is compiled. Each device of this process takes its part; the weights go there with every call."""
    devices = jax.local_devices()
    padded = np.pad(images, ((0, size - len(images) + -size % len(devices)), (0, 0), (0, 0), (0, 0)))
    mesh = Mesh(devices, ("images",), axis_types=(AxisType.Auto,))
    cut = jax.device_put(padded, NamedSharding(mesh, PartitionSpec("images")))
    return np.asarray(guidance.images(cut.astype(jnp.float32) / 255))[: len(images)]


def _batches(
    source: Source, wanted: range, side: int, size: int, left_out: Callable[[InputError], object] | None
) -> Iterator[tuple[list[int], UInt8[np.ndarray, "b h w 3"]]]:
    """Row numbers and images, or clips, of one shape; small squares stay as they are: the tower enlarges them."""
    waiting: defaultdict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)

    def load(row: int) -> np.ndarray | None:
        try:
            image = source[row].image
        except InputError as error:
            if left_out is None:
                raise
            left_out(error)
            return None
        square = image.shape[-3] == image.shape[-2] <= side
        if square:
            return image
        return np.stack([to_array(one, side) for one in image]) if image.ndim == 4 else to_array(image, side)

    def emit(batch: list[tuple[int, np.ndarray]]) -> tuple[list[int], np.ndarray]:
        return [row for row, _ in batch], np.stack([image for _, image in batch])

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(wanted), size):
            rows = wanted[start : start + size]
            images = list(pool.map(load, rows))
            if len(rows) == size and all(image is None for image in images):
                raise InputError(
                    f"{len(rows)} images in a row cannot be read, up to {source.key(rows[-1])}: are they still there?"
                )
            for row, image in zip(rows, images, strict=True):
                if image is None:
                    continue
                batch = waiting[image.shape[-2]]
                batch.append((row, image))
                if len(batch) == size:
                    yield emit(waiting.pop(image.shape[-2]))
    for batch in waiting.values():
        yield emit(batch)
