"""A run small enough to train in a test: a random vocabulary, coloured images, a guidance made of hashes."""

import dataclasses
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jax.sharding import Mesh
from PIL import Image

from spae.vocabulary import View, Vocabulary
from tokenizer_train import preparation
from tokenizer_train.config import Config, DataConfig, OptimizerConfig, RunConfig, VocabularyConfig
from tokenizer_train.config_file import load_config
from tokenizer_train.loop import train
from tokenizer_train.state import Modules, TrainState
from tokenizer_train.step import make_step
from tokenizer_train.summaries import Summaries
from tokenizer_train.training import Step

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
WORDS = 60
CLASSES = 5
IMAGES = 6  # of each class


@pytest.fixture(scope="session")
def vocabulary_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    embeddings = np.random.default_rng(0).normal(size=(WORDS, 8)).astype(np.float32)
    views = {"meaning": View.centred(embeddings), "appearance": View.whitened(embeddings, 4)}
    words = tuple(f"{a}{b}" for a in "abcdef" for b in "klmnopqrst")
    Vocabulary(words, np.arange(WORDS), embeddings, views, {"model": "random"}).save(folder)
    return folder


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory) -> Path:
    """Five classes, each of its own colour, with some structure."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for c in range(CLASSES):
        (folder / f"class{c}").mkdir()
        colour = generator.integers(0, 255, 3)
        for i in range(IMAGES):
            noise = generator.normal(size=(6, 6, 3)) * 30
            image = Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8))
            image.resize((40, 36)).save(folder / f"class{c}" / f"{i}.png")
    return folder


class HashGuidance:
    """Unit vectors from the mean colour of images, and from the letters of texts."""

    name = "hash"
    templates = ("{}",)
    image_size = 32
    width = 12
    fingerprint = "hash 1"

    def images(self, images_bhwc):
        colour_bc = np.asarray(images_bhwc).mean(axis=(1, 2))
        return self._unit(np.cos(colour_bc @ np.random.default_rng(1).normal(size=(3, 12)) * 6))

    def regions(self, images_bhwc, sides):
        (side,) = sides
        b, size = images_bhwc.shape[0], images_bhwc.shape[1] // side
        cut = np.asarray(images_bhwc).reshape(b, side, size, side, size, 3).swapaxes(2, 3)
        return self.images(cut.reshape(-1, size, size, 3)).reshape(b, side * side, -1)

    def texts(self, texts):
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        return self._unit(np.stack([np.random.default_rng(seed).normal(size=12) for seed in seeds]))

    def _unit(self, x):
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def hash_guidance(monkeypatch) -> HashGuidance:
    guidance = HashGuidance()
    monkeypatch.setattr("tokenizer_train.guidance.load_guidance", lambda name: guidance)
    return guidance


STEPS: dict[Any, Step[TrainState]] = {}


def shared_step(config: Config, modules: Modules, mesh: Mesh) -> Step[TrainState]:
    """`step.make_step`, once for all configs that it makes the same of."""
    optimizer, run = config.optimizer, config.run
    if optimizer.decay == "constant":  # however many steps there are: as few as the others allow
        optimizer = dataclasses.replace(optimizer, steps=optimizer.warmup_steps + optimizer.cooldown_steps)
    choices = run.initial is None, run.trains, run.precision, run.rematerialize
    # Of widths that no field tells, those of the words and of the trunk's features, the graphs do.
    graphs = modules.autoencoder, modules.discriminator, modules.language_model
    made = STEPS.setdefault(
        (config.tokenizer, config.loss, optimizer, choices, graphs, mesh), make_step(config, modules, mesh)
    )
    return partial(made.func, constants=modules.constants)


@pytest.fixture
def shared_steps(monkeypatch) -> None:
    """Runs that would make the same step share one, which is traced and compiled once."""
    monkeypatch.setattr(preparation, "make_step", shared_step)


@pytest.fixture
def tiny_config(
    vocabulary_folder: Path, image_folder: Path, tmp_path: Path, hash_guidance, shared_steps
) -> Config:
    """default64's tiny variant on those, without a discriminator; at a constant rate, so that the step of runs of any
    length is one function, which is compiled once for all tests."""
    tiny = load_config(CONFIGS / "default64.py", "tiny")
    return dataclasses.replace(
        tiny,
        vocabulary=VocabularyConfig(path=str(vocabulary_folder)),
        data=DataConfig(
            train=str(image_folder), validation=str(image_folder), batch_size=8, threads=1, buffer=16
        ),
        loss=dataclasses.replace(tiny.loss, adversarial=0.0),
        optimizer=OptimizerConfig(steps=10, learning_rate=3e-4, warmup_steps=0, decay="constant"),
        run=RunConfig(
            output=str(tmp_path / "run"), log_every=1, evaluate_every=100, checkpoint_every=5, keep=2
        ),
    )


@pytest.fixture
def linear_config(tiny_config: Config) -> Config:
    """That without its networks, of which the linear paths beside them are left: for what goes on around the steps.
    Its step is compiled in a moment."""
    return dataclasses.replace(
        tiny_config, tokenizer=dataclasses.replace(tiny_config.tokenizer, network="linear")
    )


@pytest.fixture
def unvalidated(monkeypatch) -> None:
    """Runs leave out their validation, which compiles what encodes and decodes: for tests that do not look at it."""
    monkeypatch.setattr(preparation, "validate", lambda *arguments: None)


@pytest.fixture
def losses(monkeypatch) -> dict[int, dict[str, float]]:
    """Step -> metrics, as they are logged."""
    logged: dict[int, dict[str, float]] = {}
    scalars = Summaries.scalars

    def noted(self, step, values, group):
        scalars(self, step, values, group)
        if group == "train":
            logged[step] = dict(values)

    monkeypatch.setattr(Summaries, "scalars", noted)
    return logged


@pytest.fixture
def kill_after(monkeypatch) -> Callable[[Config, int], None]:
    """Trains until the metrics of a step have been logged, and ends there as Ctrl-C does."""
    scalars = Summaries.scalars

    def kill(config: Config, last: int) -> None:
        def killed(self, step, values, group):
            scalars(self, step, values, group)
            if step == last:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Summaries, "scalars", killed)
            with pytest.raises(KeyboardInterrupt):
                train(config)

    return kill
