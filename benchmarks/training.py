"""One training step of a config, on random data that already lies on the device."""

from typing import Any

import jax
import numpy as np

from benchmarks.timing import Result, interleaved, rates, result, timed
from spae.vocabulary import Vocabulary
from tokenizer_train.config import Config
from tokenizer_train.processes.mesh import make_mesh, split
from tokenizer_train.state import create
from tokenizer_train.step import make_step

FEATURES = 384  # width of the default guidance's features


def train_step(config: Config, vocabulary: Vocabulary, repeats: int) -> dict[str, Result]:
    """Steps/s with this vocabulary in the place of the config's; images and guidance features are random."""
    generator = np.random.default_rng(0)
    words_vf = _unit(generator.normal(size=(len(vocabulary), FEATURES)))
    mesh = make_mesh(config.mesh)
    modules, state = create(config, vocabulary, words_vf, np.zeros(len(vocabulary), np.float32), mesh)
    size, batch_size = config.tokenizer.image_size, config.data.batch_size
    batch = split(
        {
            "images": generator.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8),
            "features": _unit(generator.normal(size=(batch_size, FEATURES))),
        },
        mesh,
    )
    step = make_step(config, modules, mesh)

    def call() -> Any:
        # A step reuses the memory of the state it gets, so each goes on from the one before.
        nonlocal state
        state, metrics = step(state, batch)
        return state, metrics

    first = timed(call)
    seconds = interleaved({"step": call}, repeats)["step"]
    entry = result(
        seconds,
        first=first,
        dtype=config.run.precision,
        batch=batch_size,
        resolution=size,
        vocabulary=len(vocabulary),
        devices=len(jax.local_devices()),
    )
    return {"step": rates(entry, 1, "steps_per_s")}


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
