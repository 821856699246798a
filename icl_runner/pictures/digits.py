"""Which digit does a picture show? A small classifier, trained once on MNIST: the judge of generated digits.

It sees grey pictures of 28 x 28, white on black. In training the digits are moved by up to two pixels and half of them
made coarser, because what it will judge comes out of a tokenizer a little shifted and blurred.
"""

import os
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors
import safetensors.numpy
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8
from PIL import Image

from icl_runner.data.layouts import content, mnist_arrays
from spae.errors import InputError
from spae.files import cache_folder, write_file
from spae.progress import Progress
from spae.weights.state_dict import abstract

SIDE = 28
EPOCHS, BATCH, RATE = 3, 128, 2e-3
_BATCH_JUDGED = 256
# Part of the file's name: raise it when training again would give another classifier.
_VERSION = "digits-1"


class DigitNet(nnx.Module):
    """Two convolutions, each halved by pooling, and two dense layers: 206,922 parameters."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(7 * 7 * 32, 128, rngs=rngs)
        self.out = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, images_bhw: Float[Array, "b 28 28"]) -> Float[Array, "b 10"]:
        x = images_bhw[..., None]
        for conv in (self.conv1, self.conv2):
            x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), strides=(2, 2))
        return self.out(nnx.relu(self.dense(x.reshape(len(x), -1))))


class DigitJudge:
    """Whether pictures show a digit; see `icl_runner.pictures.drawing.Judge`.

    Args:
        mnist: mnist.npz, or a folder with it.
    """

    def __init__(self, mnist: str | Path) -> None:
        self.setting: dict[str, str] = {}
        self._mnist = mnist

    def prepare(self) -> None:
        """Raises as `train`."""
        self._file = train(self._mnist)

    def __call__(self, images: UInt8[np.ndarray, "n h w 3"], label: str) -> dict[str, Bool[np.ndarray, " n"]]:
        return {"digit": classify(images, self._file) == int(label)}


def train(mnist: str | Path, cache: str | os.PathLike[str] | None = None, *, epochs: int = EPOCHS) -> Path:
    """Train the classifier on the 60,000 training digits of mnist.npz, if that has not been done; returns its file, one
    for each content of mnist.npz, for others pass on their images in the same form.

    About a minute on two CPU cores. The seed is fixed; machines may differ in the last bits of the weights.

    Args:
        mnist: mnist.npz, or a folder with it.
        cache: a folder, None for `spae.files.cache_folder()`.

    Raises:
        InputError: no such file, or it is not MNIST; the cache folder cannot be written.
    """
    source = Path(mnist)
    source = source if source.suffix == ".npz" else source / "mnist.npz"
    images_nhw, labels_n = mnist_arrays(source, "train")
    path = Path(cache or cache_folder()) / f"{_VERSION}-{content([source])[:12]}.safetensors"
    if not path.is_file():
        params = _fit(images_nhw, labels_n, epochs)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, safetensors.numpy.save(params))
    return path


def classify(images: UInt8[np.ndarray, "n h w 3"], file: Path) -> Int[np.ndarray, " n"]:
    """The digit 0..9 that each picture, white on black and of any size, looks most like, to the classifier that `train`
    wrote.

    Raises:
        InputError: not uint8 (n, h, w, 3), or the file is not of `train`.
    """
    return logits(images, file).argmax(axis=-1)


def logits(images: UInt8[np.ndarray, "n h w 3"], file: Path) -> Float[np.ndarray, "n 10"]:
    """The classifier's logits; see `classify`."""
    grey_nhw = to_grey(images)
    graph, state = _load(file)
    rows = []
    for start in range(0, len(grey_nhw), _BATCH_JUDGED):
        batch = grey_nhw[start : start + _BATCH_JUDGED]
        padded = np.pad(batch, ((0, _BATCH_JUDGED - len(batch)), (0, 0), (0, 0)))
        rows.append(np.asarray(_forward(graph, state, padded))[: len(batch)])
    return np.concatenate(rows) if rows else np.zeros((0, 10), np.float32)


def to_grey(images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n 28 28"]:
    """What the classifier sees of RGB pictures: luminance, antialiased bicubic to 28 x 28, in [0, 1]."""
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[-1] != 3
    ):
        found = getattr(images, "dtype", type(images).__name__), getattr(images, "shape", "")
        raise InputError(f"wanted uint8 images (n, h, w, 3), got {found[0]} {found[1]}")
    grey = [Image.fromarray(image).convert("L") for image in images]
    small = [
        one.resize((SIDE, SIDE), Image.Resampling.BICUBIC) if one.size != (SIDE, SIDE) else one
        for one in grey
    ]
    return (
        np.stack([np.asarray(one) for one in small]).astype(np.float32) / 255
        if small
        else np.zeros((0, 28, 28))
    )


@lru_cache(maxsize=4)
def _load(path: Path) -> tuple[nnx.GraphDef, nnx.State]:
    try:
        params = safetensors.numpy.load(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"cannot read {path} ({error}): delete it and train again") from error
    graph, state = nnx.split(abstract(lambda rngs: DigitNet(rngs=rngs)))
    flat = [(place, variable, ".".join(map(str, place))) for place, variable in nnx.to_flat_state(state)]
    if {name: variable.shape for _, variable, name in flat} != {
        name: value.shape for name, value in params.items()
    }:
        raise InputError(
            f"{path} holds other parameters than the digit classifier's: delete it and train again"
        )
    filled = [(place, variable.replace(jnp.asarray(params[name]))) for place, variable, name in flat]
    return graph, nnx.from_flat_state(filled)


@jax.jit(static_argnums=0)
def _forward(
    graph: nnx.GraphDef, state: nnx.State, images_bhw: Float[Array, "b 28 28"]
) -> Float[Array, "b 10"]:
    return nnx.merge(graph, state)(images_bhw)


def _fit(
    images_nhw: UInt8[np.ndarray, "n 28 28"], labels_n: Int[np.ndarray, " n"], epochs: int
) -> dict[str, np.ndarray]:
    """Parameters by name after Adam with a learning rate that falls to zero along a cosine."""
    batches = len(images_nhw) // BATCH
    if not batches:
        raise InputError(f"wanted at least {BATCH} digits to train on, got {len(images_nhw)}")
    schedule = optax.cosine_decay_schedule(RATE, epochs * batches)
    model = DigitNet(rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(schedule), wrt=nnx.Param)

    @nnx.jit
    def step(model: DigitNet, optimizer: nnx.Optimizer, images_bhw: Array, labels_b: Array) -> None:
        def loss(model: DigitNet) -> Array:
            return optax.softmax_cross_entropy_with_integer_labels(model(images_bhw), labels_b).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    generator = np.random.default_rng(0)
    with Progress(epochs * batches, "digit classifier", "step") as progress:
        for _ in range(epochs):
            order = generator.permutation(len(images_nhw))[: batches * BATCH].reshape(batches, BATCH)
            for rows in order:
                batch = _disturb(images_nhw[rows], generator)
                step(model, optimizer, jnp.asarray(batch), jnp.asarray(labels_n[rows], jnp.int32))
                progress.update()
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, place)): np.asarray(value[...]) for place, value in flat}


def _disturb(images_bhw: UInt8[np.ndarray, "b 28 28"], generator: np.random.Generator) -> np.ndarray:
    """Moved by -2 .. 2 pixels each way; every other one averaged over 2 x 2 pixels. float32 in [0, 1]."""
    x = np.pad(images_bhw.astype(np.float32) / 255, ((0, 0), (2, 2), (2, 2)))
    moved = np.empty(images_bhw.shape, np.float32)
    for image, out, (top, left) in zip(x, moved, generator.integers(0, 5, (len(x), 2)), strict=True):
        out[...] = image[top : top + SIDE, left : left + SIDE]
    coarse = moved[::2].reshape(-1, SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4))
    moved[::2] = coarse.repeat(2, axis=1).repeat(2, axis=2)
    return moved
