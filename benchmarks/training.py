"""One training step of a config, on random data that already lies on the device."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.limits import work
from benchmarks.peer import Peer
from benchmarks.timing import Result, interleaved, rates, result, timed
from spae.vocabulary import Vocabulary
from tokenizer_train.config import Config
from tokenizer_train.processes.mesh import make_mesh, split
from tokenizer_train.state import create
from tokenizer_train.step import make_step

FEATURES = 384  # width of the default guidance's features


def train_step(
    config: Config, vocabulary: Vocabulary, repeats: int, peer: Peer | None = None
) -> dict[str, Result]:
    """Steps/s with this vocabulary in the place of the config's; images and guidance features are random. The peer's
    step has squared error, commitment and codebook loss, Adam and averaged weights, and no random prefixes."""
    generator = np.random.default_rng(0)
    words_vf = _unit(generator.normal(size=(len(vocabulary), FEATURES)))
    mesh = make_mesh(config.mesh)
    modules, state = create(config, vocabulary, words_vf, np.zeros(len(vocabulary), np.float32), mesh)
    size, batch_size = config.tokenizer.image_size, config.data.batch_size
    batch = split(
        {
            "images": generator.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8),
            "features": _seen(config, len(vocabulary), generator),
        },
        mesh,
    )
    step = make_step(config, modules, mesh)

    must_do = work(step.func.trace(state, batch, **step.keywords))

    def call() -> Any:
        # A step reuses the memory of the state it gets, so each goes on from the one before.
        nonlocal state
        state, metrics = step(state, batch)
        return state, metrics

    first = timed(call)
    calls: dict[str, Callable[[], Any]] = {"step": call}
    if peer is not None:
        for compiled in (False, True):
            calls[f"step, PyTorch{' compiled' if compiled else ''}"] = partial(
                peer.ask, call="train", batch=batch_size, compiled=compiled
            )
    seconds = interleaved(calls, repeats)
    facts: dict[str, Any] = {
        "dtype": config.run.precision,
        "batch": batch_size,
        "resolution": size,
        "vocabulary": len(vocabulary),
        "devices": len(jax.local_devices()),
        **must_do,
    }
    entries = {"step": result(seconds["step"], first=first, **facts)}
    if peer is not None:
        entries |= {
            name: result(seconds[name], batch=batch_size, **peer.facts) for name in calls if name != "step"
        }
    return {name: rates(entry, 1, "steps_per_s") for name, entry in entries.items()}


def _seen(config: Config, words: int, generator: np.random.Generator) -> np.ndarray:
    """What stands beside the images: the guidance's vectors of them, or with pursuit their words of meaning."""
    batch_size, tokenizer = config.data.batch_size, config.tokenizer
    if tokenizer.meaning != "pursuit":
        return _unit(generator.normal(size=(batch_size, FEATURES)))
    places = tokenizer.shape.tokens(tokenizer.meaning_layers)
    return generator.integers(0, words, (batch_size, places)).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
