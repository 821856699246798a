"""Batches for training: an endless, shuffled, exactly resumable stream over any image source.

Grain reads with threads: on small machines they beat worker processes, and decoding releases the GIL.
The order, the flips and therefore the batches are a function of the seed and of how many batches came before;
that count is the whole state of the stream.
"""

from collections.abc import Iterator
from typing import Any, TypedDict

import grain
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float32, UInt8

from spae.errors import InputError
from spae.images import to_array
from spae.sources import Source
from tokenizer_train.config import DataConfig


class Batch(TypedDict):
    """What one training step takes."""

    images: UInt8[np.ndarray, "B H W 3"]  # 0 .. 255
    features: Float32[
        np.ndarray, "B d"
    ]  # guidance feature of each image, unit length; d = 0 without guidance


class _Records:
    """The source as Grain wants it: random access to plain arrays."""

    def __init__(self, source: Source, features_nd: np.ndarray, image_size: int) -> None:
        self._source = source
        self._features_nd = features_nd
        self._image_size = image_size

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        image = to_array(self._source[int(index)].image, self._image_size)
        return {"images": image, "features": self._features_nd[int(index)]}


def _flip(record: dict[str, np.ndarray], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Mirror every other image; the guidance feature, which a mirror image hardly changes, stays."""
    if generator.random() < 0.5:
        record = {**record, "images": np.ascontiguousarray(record["images"][:, ::-1])}
    return record


class Batches(Iterator[Batch]):
    """The endless stream of batches: every image once per epoch, each epoch in its own order.

    Args:
        source: Images of any size, read by index.
        features_nd: float32 (N, d), the guidance feature of record i in row i; d may be 0.
        image_size: Side of the images handed out, in pixels.
        config: Batch size, flips, threads.
        seed: Of the order and the flips.

    Raises:
        InputError: The source is empty, or the features are not one row per record.
    """

    def __init__(
        self,
        source: Source,
        features_nd: np.ndarray,
        image_size: int,
        config: DataConfig,
        seed: int,
    ) -> None:
        if len(source) == 0:
            raise InputError(f"data.train must hold at least one image, {config.train!r} holds none")
        if features_nd.ndim != 2 or len(features_nd) != len(source):
            raise InputError(
                f"the guidance features must be one row per image, ({len(source)}, d), "
                f"got {features_nd.shape}; delete the guidance cache of this run"
            )
        records = _Records(source, np.asarray(features_nd, np.float32), image_size)
        stream = grain.MapDataset.source(records).seed(seed).shuffle().repeat()
        if config.flip:
            stream = stream.random_map(_flip)
        options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=config.buffer)
        self._stream = iter(stream.to_iter_dataset(options).batch(config.batch_size, drop_remainder=True))

    def __next__(self) -> Batch:
        return next(self._stream)

    def get_state(self) -> dict[str, Any]:
        """Position of the stream, small and JSON-able: what a checkpoint keeps."""
        return self._stream.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue after the batch at which `get_state` was called."""
        self._stream.set_state(state)


def make_mesh() -> Mesh:
    """All local devices along one axis, `data`.

    The axis is Auto: under JAX's default, Explicit, `codebook[ids]` raises ShardingTypeError.
    """
    devices = np.asarray(jax.local_devices())
    return Mesh(devices, ("data",), axis_types=(AxisType.Auto,))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise InputError unless every device gets the same number of images."""
    if batch_size % mesh.size:
        raise InputError(
            f"data.batch_size must be a multiple of the {mesh.size} local devices, got {batch_size}; "
            f"try {-(-batch_size // mesh.size) * mesh.size}"
        )


def split(batch: Batch, mesh: Mesh) -> dict[str, jax.Array]:
    """Put a batch on the devices, cut along its first axis."""
    return jax.device_put(dict(batch), NamedSharding(mesh, PartitionSpec("data")))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Put a whole copy of every array on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def fixed_images(source: Source, count: int, image_size: int) -> UInt8[np.ndarray, "n H W 3"]:
    """`count` images spread evenly over the source (all of them if it holds fewer), always the same ones."""
    if len(source) == 0:
        raise InputError("data.validation must hold at least one image, it holds none")
    indices = np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int)
    return np.stack([to_array(source[int(i)].image, image_size) for i in indices])
