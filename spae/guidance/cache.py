"""Image vectors of a whole source, computed once and kept on disk.

The table of word scores of N images and V words is the product features @ word_features.T. It is kept in this
factored form, (N, d) and (V, d): exact, of rank d, and for ConSE over 16,384 words forty times smaller.
"""

import hashlib
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float, UInt8
from tqdm import tqdm

from spae.errors import InputError
from spae.files import cache_folder
from spae.guidance.protocol import Guidance
from spae.guidance.scores import word_features
from spae.images import to_array
from spae.sources import Source

_THREADS = 8


def image_features(
    guidance: Guidance, source: Source, cache: str | os.PathLike[str] | None = None, batch_size: int = 64
) -> Float[np.ndarray, "n d"]:
    """The guidance's vector of every image of the source, float32, row i for `source[i]`; of a clip the mean of its
    frames' vectors (SPAE's video variant).

    The file's name is a hash over the source's content and the guidance's fingerprint, so nothing stale is
    ever read. A file that is damaged all the same is reported on stderr and made again: it holds nothing that
    cannot be computed anew.

    Args:
        cache: folder; None for `spae.files.cache_folder()`.
        batch_size: images per call of the guidance.

    Raises:
        InputError: the source is empty, or holds an image that cannot be read.
    """
    if not len(source):
        raise InputError("expected a source with at least one image, got an empty one: check its path")
    shape = (len(source), guidance.width)
    content = (guidance.name, guidance.fingerprint, source.fingerprint, guidance.image_size, source.size)
    return _kept(content, shape, lambda: _compute(guidance, source, batch_size), cache)


def cached_word_features(
    guidance: Guidance, words: Sequence[str], cache: str | os.PathLike[str] | None = None
) -> Float[np.ndarray, "v d"]:
    """`spae.guidance.scores.word_features`, kept like the vectors of images: the words are the content.

    Raises:
        InputError: there are no words.
    """
    content = (guidance.name, guidance.fingerprint, *guidance.templates, *words)
    return _kept(content, (len(words), guidance.width), lambda: word_features(guidance, words), cache)


def _kept(
    content: Sequence[object],
    shape: tuple[int, int],
    compute: Callable[[], np.ndarray],
    cache: str | os.PathLike[str] | None,
) -> np.ndarray:
    """The features from the file named by their content's hash; computed and written if it is not there or damaged."""
    name = hashlib.sha256("\n".join(map(str, content)).encode()).hexdigest()
    file = Path(cache or cache_folder()) / f"{name}.safetensors"
    if file.is_file():
        try:
            return _read(file, shape)
        except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
            print(f"spae: damaged cache {file} ({error}): computing it again", file=sys.stderr)
    features = compute()
    _write(file, features)
    return features


def _read(file: Path, shape: tuple[int, int]) -> np.ndarray:
    tensors = safetensors.numpy.load_file(file)
    features = tensors["features"]
    if features.shape != shape or features.dtype != np.float32:
        raise ValueError(f"expected float32 {shape}, got {features.dtype} {features.shape}")
    # Several gigabytes may have lain on a bad disk: safetensors has no checksum of its own.
    if hashlib.sha256(features.tobytes()).digest() != tensors["sha256"].tobytes():
        raise ValueError("its checksum does not fit")
    return features


def _write(file: Path, features: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    checksum = np.frombuffer(hashlib.sha256(features.tobytes()).digest(), np.uint8)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
        try:
            part.write(safetensors.numpy.save({"features": features, "sha256": checksum}))
            part.close()
            os.replace(part.name, file)
        except BaseException:
            os.unlink(part.name)
            raise


def _compute(guidance: Guidance, source: Source, batch_size: int) -> np.ndarray:
    features = np.empty((len(source), guidance.width), np.float32)
    progress = tqdm(total=len(source), desc=f"{guidance.name} images", unit="image", disable=None)
    with progress:
        for rows, images in _batches(source, guidance.image_size, batch_size):
            # Of clips every frame is an image.
            frames = images.reshape(-1, *images.shape[-3:])
            vectors = np.concatenate(
                [
                    _vectors(guidance, frames[i : i + batch_size], batch_size)
                    for i in range(0, len(frames), batch_size)
                ]
            )
            features[rows] = vectors.reshape(len(rows), -1, guidance.width).mean(axis=1)
            progress.update(len(rows))
    return features


def _vectors(guidance: Guidance, images: UInt8[np.ndarray, "b h w 3"], size: int) -> Float[np.ndarray, "b d"]:
    """The vectors of at most `size` images, computed as so many: one shape is compiled."""
    padded = np.pad(images, ((0, size - len(images)), (0, 0), (0, 0), (0, 0)))
    return np.asarray(guidance.images(jnp.asarray(padded, jnp.float32) / 255))[: len(images)]


def _batches(
    source: Source, side: int, size: int
) -> Iterator[tuple[list[int], UInt8[np.ndarray, "b h w 3"]]]:
    """Row numbers and images, or clips, of one shape; small squares stay as they are: the tower enlarges them."""
    waiting: defaultdict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)

    def load(row: int) -> np.ndarray:
        image = source[row].image
        square = image.shape[-3] == image.shape[-2] <= side
        if square:
            return image
        return np.stack([to_array(one, side) for one in image]) if image.ndim == 4 else to_array(image, side)

    def emit(batch: list[tuple[int, np.ndarray]]) -> tuple[list[int], np.ndarray]:
        return [row for row, _ in batch], np.stack([image for _, image in batch])

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(source), size):
            rows = range(start, min(start + size, len(source)))
            for row, image in zip(rows, pool.map(load, rows), strict=True):
                batch = waiting[image.shape[-2]]
                batch.append((row, image))
                if len(batch) == size:
                    yield emit(waiting.pop(image.shape[-2]))
    for batch in waiting.values():
        yield emit(batch)
