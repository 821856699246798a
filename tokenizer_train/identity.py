"""What a run is known by, so that it goes on as it began; and what a bundle tells of how it was trained."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import jax

from spae.guidance.protocol import Guidance
from spae.sources import Source
from spae.vocabulary import Vocabulary
from tokenizer_train.checkpoint import sums
from tokenizer_train.config import Config
from tokenizer_train.connector.config import ConnectorExperiment
from tokenizer_train.places import told
from tokenizer_train.state import Modules


def identity(
    config: Config,
    vocabulary: Vocabulary,
    sources: Sequence[tuple[Source, float]],
    guidance: Guidance | None,
) -> str:
    """sha256 of what must not change while a run goes on: tokenizer, losses, seed, batch, words, guidance, images.

    Everything by what it is, not by where it lies. `frozen_identity` has what is loaded later.
    """
    parts = (
        dataclasses.asdict(config.tokenizer),
        {**dataclasses.asdict(config.loss), "perceptual_weights": None},
        (config.run.seed, config.data.batch_size, config.data.flip, config.run.start, config.run.trains),
        (guidance.name, guidance.fingerprint) if guidance is not None else None,
        vocabulary.words,
        hashlib.sha256(vocabulary.codebook("appearance").tobytes()).hexdigest(),
        hashlib.sha256(vocabulary.codebook("meaning").tobytes()).hexdigest(),
        [(source.identity, weight) for source, weight in sources],
    )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def frozen_identity(modules: Modules) -> str:
    """sha256 over the sums of the bits of the frozen networks that files beside the config hold."""
    frozen = sums((modules.constants.perceptual, modules.constants.language_model))
    return hashlib.sha256(json.dumps(frozen, sort_keys=True).encode()).hexdigest()


def provenance(
    config: Config | ConnectorExperiment, images: int, seconds: float, initial: dict[str, Any] | None = None
) -> dict[str, Any]:
    """How a tokenizer or a connector was trained, for its bundle.json.

    Args:
        config: of the run; no path in it is told whole.
        images: that it was trained on.
        seconds: that the steps took.
        initial: the same of the bundle whose weights the run began with.
    """
    told_before = {"initial": initial} if initial else {}
    return told_before | {
        "config": told(config),
        "images": images,
        "seconds": round(seconds),
        "devices": [device.device_kind for device in jax.devices()],
        "jax": jax.__version__,
        "spae": version("spae"),
    }
