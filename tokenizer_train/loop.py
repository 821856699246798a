"""The training loop: reads top to bottom.

A run lives in one folder, `run.output`, of this machine or below gs://:

    checkpoints/   state, optimisers, step and data position, the newest `run.keep` of them
    tensorboard/   scalars, reconstructions, words
    guidance/      guidance features of the training images, unless `data.cache` says otherwise
    bundle/        the trained tokenizer (averaged weights), written at the end
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import UInt8

from spae.errors import InputError
from spae.files import open_path
from spae.guidance.protocol import Guidance
from spae.metrics import psnr
from spae.sources import Source
from spae.tokenizer import Tokenizer
from spae.vocabulary import Vocabulary
from tokenizer_train.board import Board
from tokenizer_train.checkpoint import Checkpoints, finite, sums
from tokenizer_train.config import Config
from tokenizer_train.damage import Damage
from tokenizer_train.data import Batches, fixed_images, mirrored_places, open_data
from tokenizer_train.flops import step_flops
from tokenizer_train.guidance import Chosen, features, load
from tokenizer_train.inflate import initial
from tokenizer_train.processes.mesh import (
    check_batch_size,
    check_same,
    is_main,
    local_rows,
    make_mesh,
    split,
    start,
    wait_for_all,
)
from tokenizer_train.processes.preemption import Requests, Stopped, listen
from tokenizer_train.speed import Speed
from tokenizer_train.start import beginning
from tokenizer_train.state import Modules, TrainState, create, tokenizer
from tokenizer_train.step import make_step

VALIDATION_IMAGES = 64  # behind the figures during training
SHOWN_IMAGES = 8  # of them, on the sheet of pictures
SHOWN_LAYERS = 3  # whose words stand beside it


class Diverged(ArithmeticError):
    """A loss or a weight is no longer finite; the message names the step and the last good checkpoint."""


def train(config: Config) -> epath.Path:
    """`run` while listening for SIGTERM and SIGINT: asked to stop, it finishes the step under way, saves and raises
    Stopped. Before the first step there is nothing to save."""
    start(config.mesh)
    with listen() as requests:
        return run(config, requests)


def run(config: Config, requests: Requests) -> epath.Path:
    """Train until `optimizer.steps`, from the newest checkpoint if there is one; the bundle's folder.

    Images, their order and every random draw are functions of `run.seed` and the step: an interrupted run
    goes on to the same losses, and so does, up to rounding, one on other devices, of other processes.

    With several processes (`mesh.coordinator`) each runs this function, sees the same files and reads its own share
    of the images; the first one alone prints, validates and writes the bundle.

    Raises:
        InputError: The config does not fit the data, the vocabulary, the devices or the checkpoint.
        Diverged: The loss is not finite. Every checkpoint there is was written before.
        OSError: The last checkpoint or the bundle could not be written; those from before are whole. Of an earlier
            checkpoint that could not be written there is only a line, and the run goes on.
        Stopped: Somebody asked for it; a checkpoint of the last step is written.
    """
    output = open_path(config.run.output)
    size = config.tokenizer.image_size
    mesh = make_mesh(config.mesh)
    check_batch_size(config.data.batch_size, mesh)
    vocabulary = config.vocabulary.load()
    sources = training_sources(config)
    validation_source = open_data(
        config.data.validation, config.data.validation_split, config.tokenizer, config.data
    )
    validation = fixed_images(validation_source, VALIDATION_IMAGES, size, Damage(config.data.damaged))
    guidance = load(config)
    run_id = identity(config, vocabulary, sources, guidance)
    check_same(run_id, "config, words, guidance or images")
    begun, pursuit = beginning(config, vocabulary, guidance, sources[0][0])
    seen = Chosen(guidance, pursuit) if guidance is not None and pursuit is not None else guidance
    images_nf, words_vf, means_v = features(config, seen, vocabulary, sources)
    trunk = guidance.tower if guidance is not None and config.tokenizer.trunk != "none" else None
    rows = local_rows(config.data.batch_size, mesh)
    mirrored = None
    if pursuit is not None:
        mirrored = mirrored_places(config.tokenizer.shape, config.tokenizer.meaning_layers)
    batches = Batches(sources, images_nf, size, config.data, config.run.seed, rows, mirrored)

    modules, state = create(config, vocabulary, words_vf, means_v, mesh, begun)
    run_id = f"{run_id} {frozen_identity(modules)}"
    if isinstance(seen, Chosen):
        run_id = f"{run_id} {seen.fingerprint}"
    check_same(run_id, "the weights of the perceptual network or the language model, or the words of meaning")
    train_step = make_step(config, modules, mesh)

    checkpoints: Checkpoints[TrainState] = Checkpoints(output / "checkpoints", config.run.keep)
    with checkpoints, Board(output / "tensorboard" if is_main() else None) as board:
        first, seconds = 1, 0.0
        if (restored := checkpoints.restore(state)) is not None:
            done, state, position = restored
            if position["run"] != run_id:
                raise InputError(
                    f"the checkpoint in {checkpoints.folder} is of a run with other images, words, losses, seed or "
                    "frozen networks: give the config it was trained with, or another run.output"
                )
            first, seconds = done + 1, position["seconds"]
            batches.set_state(position["data"])
            board.line(f"going on after step {done:,}, from {checkpoints.folder}")
        elif config.run.initial is not None:
            params = initial(config.run.initial, config.tokenizer, vocabulary, state.params)
            state = dataclasses.replace(state, params=params, ema=jax.tree.map(jnp.copy, params))
            board.line(f"beginning with the weights of {config.run.initial}")

        reporter = Reporter(config, board, checkpoints)
        model: Tokenizer | None = None
        started = time.monotonic() - seconds
        requests.begin()
        for step in range(first, config.optimizer.steps + 1):
            with reporter.waiting():
                batch = split(next(batches), mesh)
            # Nothing else goes to or from a device but what is asked for: a forgotten float() would stop the pipeline.
            with jax.transfer_guard("disallow"):
                if step == first:
                    reporter.measure(step_cost(train_step, state, batch))
                state, metrics = train_step(state, batch)
                # Dispatched, not done: meanwhile read the metrics of the step before and fetch the next batch.
                reporter.dispatched(step, metrics)
            if step == first:
                reporter.restart()  # compiling is no speed

            asked = requests.after(step)
            last = step == config.optimizer.steps
            saves = last or asked is not None or step % config.run.checkpoint_every == 0
            validates = last or (asked is None and step % config.run.evaluate_every == 0)
            if saves or validates:
                reporter.flush()
                if not jax.device_get(finite(state)):
                    raise Diverged(reporter.diverged(step, "a weight"))
            if saves:
                check_last_save(checkpoints, board)
                position = {"data": batches.get_state(), "seconds": time.monotonic() - started, "run": run_id}
                checkpoints.save(step, state, position)
            if validates:
                model = tokenizer(
                    modules, state, config, vocabulary, trunk, mesh, like=model, pursuit=pursuit
                )
                if is_main():
                    validate(model, validation, board, step)
            if saves or validates:
                reporter.restart()
            if asked is not None and not last:
                checkpoints.wait()
                raise Stopped(
                    f"stopped by {asked.name} after step {step:,}, saved in {checkpoints.folder}: "
                    "the same command goes on from there",
                    asked,
                    step,
                )

        folder = output / "bundle"
        info = provenance(config, sum(len(source) for source, _ in sources), time.monotonic() - started)
        model = tokenizer(modules, state, config, vocabulary, trunk, mesh, like=model, pursuit=pursuit)
        if is_main():
            model.save(folder, {"training": info})
        # Last: a disk too full for the checkpoint may have had room for the bundle, which is what the run was for.
        checkpoints.wait()
    wait_for_all("bundle")
    return folder


def training_sources(config: Config) -> list[tuple[Source, float]]:
    """`data.train`, of weight 1, and the sources of `data.mixture` with theirs."""
    first = open_data(config.data.train, config.data.train_split, config.tokenizer, config.data)
    more = [
        (open_data(path, None, config.tokenizer, config.data), weight) for path, weight in config.data.mixture
    ]
    return [(first, 1.0), *more]


def step_cost(train_step: partial, state: TrainState, batch: Mapping[str, jax.Array]) -> float:
    """Floating-point operations of one step. The step is traced and lowered for it, and will not be again."""
    jitted: Any = train_step.func
    traced = jitted.trace(state, batch, **train_step.keywords)
    return step_flops(traced, traced.lower())


def check_last_save(checkpoints: Checkpoints, board: Board) -> None:
    """Wait for the save before; if it could not be written, say so and go on: the next may find room.

    Raises:
        OSError: It could not be written, and there are several processes, which would wait for each other.
    """
    try:
        checkpoints.wait()
    except OSError as error:
        if jax.process_count() > 1:
            raise
        board.line(f"{error}; training goes on, and this is tried again at every checkpoint")


class Reporter:
    """Reads the metrics of a step when the next one is on its way; stops the run when they are not finite."""

    def __init__(self, config: Config, board: Board, checkpoints: Checkpoints) -> None:
        self._config, self._board, self._checkpoints = config, board, checkpoints
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._speed = Speed(config.data.batch_size, config.run.precision)

    def measure(self, flops: float) -> None:
        """From now on, with these operations a step."""
        self._speed.flops = flops

    def waiting(self) -> AbstractContextManager[None]:
        """Around what fetches the next batch."""
        return self._speed.waiting()

    def restart(self) -> None:
        """Leave what happened since the last line out of the next line's speed."""
        self._speed.restart()

    def dispatched(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """A step is on its way: report on the one before."""
        before, self._pending = self._pending, (step, metrics)
        if before is not None:
            self._report(*before)

    def flush(self) -> None:
        """Report on the last step too, which waits for it."""
        if self._pending is not None:
            before, self._pending = self._pending, None
            self._report(*before)

    def diverged(self, step: int, what: str) -> str:
        self._checkpoints.wait()
        good = self._checkpoints.latest
        kept = f"the last good checkpoint is step {good:,}" if good else "there is no checkpoint yet"
        return (
            f"{what} is not finite at step {step:,}; {kept} ({self._checkpoints.folder}): lower "
            "optimizer.learning_rate, set optimizer.clip_norm or run.precision float32, and run again"
        )

    def _report(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        if bad := [name for name, value in values.items() if not math.isfinite(value)]:
            raise Diverged(self.diverged(step, f"the metric {bad[0]!r}"))
        self._speed.stepped()
        if step % self._config.run.log_every == 0:
            self._board.scalars(step, values, "train")
            self._board.scalars(step, self._speed.figures(), "speed")
            self._speed.restart()


def validate(model: Tokenizer, images: UInt8[np.ndarray, "n *T H W 3"], board: Board, step: int) -> None:
    """PSNR of every prefix and distinct words of every layer over fixed images, or clips; pictures of the first."""
    pyramids = model.encode(images)
    depth = len(model.shape)
    prefixes = [model.decode(pyramids, layers=n) for n in range(1, depth + 1)]
    figures = {f"psnr/{n}": float(psnr(images, x).mean()) for n, x in enumerate(prefixes, start=1)}
    for n in range(1, depth + 1):
        used = np.unique(np.stack([pyramid.ids[n - 1] for pyramid in pyramids]))
        figures[f"words/{n}"] = used.size
    board.scalars(step, figures, "validation")
    shown = slice(SHOWN_IMAGES)
    board.pictures(step, [images[shown], *(prefix[shown] for prefix in prefixes)])
    board.words(step, [pyramid.text(min(SHOWN_LAYERS, depth)) for pyramid in pyramids[shown]])


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


def provenance(config: Config, images: int, seconds: float) -> dict[str, Any]:
    """How a tokenizer was trained, for its bundle.json."""
    return {
        "config": _without_folders(dataclasses.asdict(config)),
        "images": images,
        "seconds": round(seconds),
        "devices": [device.device_kind for device in jax.devices()],
        "jax": jax.__version__,
        "spae": version("spae"),
    }


def _without_folders(config: dict[str, Any]) -> dict[str, Any]:
    """The config with only the last two parts of every path: where a data set lay says nothing to others."""
    data, vocabulary = dict(config["data"]), dict(config["vocabulary"])
    for name in ("train", "validation"):
        data[name] = "/".join(Path(data[name]).parts[-2:])
    if vocabulary["path"] is not None:
        vocabulary["path"] = Path(vocabulary["path"]).name
    data["mixture"] = [["/".join(Path(path).parts[-2:]), weight] for path, weight in data["mixture"]]
    del data["cache"]
    run = {name: value for name, value in config["run"].items() if name != "output"}
    run["initial"] = Path(run["initial"]).name if run["initial"] else None
    weights = config["loss"]["perceptual_weights"]
    loss = {**config["loss"], "perceptual_weights": Path(weights).name if weights else None}
    kind, _, path = config["guidance"].partition(":")
    guidance = f"{kind}:{Path(path).name}" if path else kind
    language_model = Path(config["language_model"]).name if config["language_model"] else None
    # Which machines it ran on is not what was trained.
    mesh = {name: config["mesh"][name] for name in ("data", "fsdp")}
    return {
        **config,
        "data": data,
        "vocabulary": vocabulary,
        "run": run,
        "loss": loss,
        "mesh": mesh,
        "guidance": guidance,
        "language_model": language_model,
    }
