"""The training loop of tokenizers and connectors: reads top to bottom.

A run lives in one folder, `run.output`, of this machine or below gs://:

    checkpoints/   state, optimisers, step and data position, the newest `run.keep` of them
    tensorboard/   scalars, reconstructions, words
    guidance/      guidance features of the training images, unless `data.cache` says otherwise
    bundle/        what was trained (averaged weights), written at the end
"""

import signal
import time
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from spae import bundle
from spae.errors import BundleError, InputError
from spae.files import open_path
from tokenizer_train import preparation
from tokenizer_train.checkpoint import Checkpoints, finite
from tokenizer_train.config import Config
from tokenizer_train.connector import preparation as connector_preparation
from tokenizer_train.connector.config import ConnectorExperiment
from tokenizer_train.flops import step_flops
from tokenizer_train.identity import provenance
from tokenizer_train.processes.mesh import (
    check_batch_size,
    is_main,
    make_mesh,
    split,
    start,
    wait_for_all,
)
from tokenizer_train.processes.preemption import Requests, Stopped, listen
from tokenizer_train.reporter import Diverged, Reporter
from tokenizer_train.summaries import Summaries
from tokenizer_train.training import Experiment, Step, Training


def train(config: Config | ConnectorExperiment) -> epath.Path:
    """`run` while listening for SIGTERM and SIGINT: asked to stop, it finishes the step under way, saves and raises
    Stopped. Before the first step there is nothing to save."""
    start(config.mesh)
    with listen() as requests:
        return run(config, requests)


def run(config: Config | ConnectorExperiment, requests: Requests) -> epath.Path:
    """Train until `optimizer.steps`, from the newest checkpoint if there is one; the bundle's folder.

    Images, their order and every random draw are functions of `run.seed` and the step: an interrupted run
    goes on to the same losses, and so does, up to rounding, one on other devices, of other processes.

    With several processes (`mesh.coordinator`) each runs this function, sees the same files and reads its own share
    of the images; the first one alone prints, validates and writes the bundle.

    Raises:
        InputError: The config does not fit the data, the words, the devices or the checkpoint.
        Diverged: The loss is not finite. Every checkpoint there is was written before.
        OSError: The last checkpoint or the bundle could not be written; those from before are whole. Of an earlier
            checkpoint that could not be written there is only a line, and the run goes on.
        Stopped: Somebody asked for it; a checkpoint of the last step is written.
    """
    output = open_path(config.run.output)
    mesh = make_mesh(config.mesh)
    check_batch_size(config.data.batch_size, mesh)
    training, state = prepare(config, mesh)
    checkpoints: Checkpoints[Any] = Checkpoints(output / "checkpoints", config.run.keep)
    with checkpoints, Summaries(output / "tensorboard" if is_main() else None) as summaries:
        done, state, seconds, before = begin(training, state, checkpoints, summaries)
        started = time.monotonic() - seconds
        requests.begin()
        state = steps(training, state, done, started, before, requests, checkpoints, summaries)
        told = provenance(config, training.images, time.monotonic() - started, before)
        training.export(state, output / "bundle", told)
        # Last: a disk too full for the checkpoint may have had room for the bundle, which is what the run was for.
        checkpoints.wait()
    wait_for_all("bundle")
    return output / "bundle"


def prepare(config: Config | ConnectorExperiment, mesh: Mesh) -> tuple[Training[Any], Any]:
    """What the run is made of, and its fresh state, by all processes together. Raises InputError as `run`."""
    if isinstance(config, ConnectorExperiment):
        return connector_preparation.prepare(config, mesh)
    return preparation.prepare(config, mesh)


def begin(
    training: Training[Any], state: Any, checkpoints: Checkpoints[Any], summaries: Summaries
) -> tuple[int, Any, float, dict[str, Any] | None]:
    """Where the run begins: the steps that are done, their state, and the seconds they took. That of the newest
    checkpoint; else a new run's (`Training.begin`). And what is told of the training of what it began with, which a
    checkpoint keeps: it may be gone when the run goes on.

    Raises:
        InputError: The checkpoint is of another run, or what it begins with does not fit.
    """
    if (restored := checkpoints.restore(state)) is not None:
        done, state, position = restored
        if position["run"] != training.identity:
            raise InputError(
                f"the checkpoint in {checkpoints.folder} is of a run with other images, words, losses, seed, batch "
                "size, start or frozen networks: give the config it was trained with, or another run.output"
            )
        check_initial(training.config, position.get("before"), checkpoints.folder)
        if done > training.config.optimizer.steps:
            raise InputError(
                f"optimizer.steps: wanted {done:,} at least, as many as the checkpoint in {checkpoints.folder} has, "
                f"got {training.config.optimizer.steps:,}: give more, or another run.output"
            )
        training.batches.set_state(position["data"])
        summaries.line(f"going on after step {done:,}, from {checkpoints.folder}")
        return done, state, position["seconds"], position.get("before")
    state, before = training.begin(state, summaries.line)
    if before is not None:
        training.validate(state, summaries, 0)  # what there is to be improved on
    return 0, state, 0.0, before


def check_initial(config: Experiment, before: Mapping[str, Any] | None, folder: epath.Path) -> None:
    """That a checkpoint's run began as the config's would; `before`: what the checkpoint tells of the bundle it began
    with. Where that is gone by now, its weights are in the checkpoint.

    Raises:
        InputError: it began with another bundle, or with none.
    """
    initial = config.run.initial if isinstance(config, Config) else None
    same = (initial is None) == (before is None)
    if same and initial is not None and before is not None:
        try:
            now = bundle.sha256(initial)
            same = before.get("sha256", now) == now
        except BundleError:
            pass
    if not same:
        raise InputError(
            f"the checkpoint in {folder} is of a run that did not begin with the bundle of run.initial as it is now: "
            "give the one it began with, or another run.output"
        )


def steps(
    training: Training[Any],
    state: Any,
    done: int,
    started: float,
    before: dict[str, Any] | None,
    requests: Requests,
    checkpoints: Checkpoints[Any],
    summaries: Summaries,
) -> Any:
    """All steps after `done`, with a report, a validation and a checkpoint every so many of them; the last state.

    `started` is when the run would have begun if it had never been interrupted, `before` as `begin` gives it. Raises as
    `run`.
    """
    config, mesh, batches = training.config, training.mesh, training.batches
    train_step = training.make_step()
    reporter = Reporter(config, training.precision, summaries, checkpoints)
    for step in range(done + 1, config.optimizer.steps + 1):
        with reporter.waiting():
            batch = split(next(batches), mesh)
        # Nothing else goes to or from a device but what is asked for: a forgotten float() would stop the pipeline.
        with jax.transfer_guard("disallow"):
            if step == done + 1:
                summaries.line("compiling the step ..")
                reporter.measure(step_cost(train_step, state, batch))
            state, metrics = train_step(state, batch)
            # Dispatched, not done: meanwhile read the metrics of the step before and fetch the next batch.
            reporter.dispatched(step, metrics)
        if step == done + 1:
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
            check_last_save(checkpoints, summaries)
            seconds = time.monotonic() - started
            position = {
                "data": batches.get_state(),
                "seconds": seconds,
                "run": training.identity,
                "before": before,
            }
            checkpoints.save(step, state, position)
        if validates:
            training.validate(state, summaries, step)
        if saves or validates:
            reporter.restart()
        if asked is not None and not last:
            raise stopped(asked, step, checkpoints)
    return state


def step_cost(train_step: Step[Any], state: Any, batch: Mapping[str, jax.Array]) -> float:
    """Floating-point operations of one step. The step is traced and lowered for it, and will not be again."""
    jitted: Any = train_step.func
    traced = jitted.trace(state, batch, **train_step.keywords)
    return step_flops(traced, traced.lower())


def check_last_save(checkpoints: Checkpoints, summaries: Summaries) -> None:
    """Wait for the save before; if it could not be written, say so and go on: the next may find room.

    Raises:
        OSError: It could not be written, and there are several processes, which would wait for each other.
    """
    try:
        checkpoints.wait()
    except OSError as error:
        if jax.process_count() > 1:
            raise
        summaries.line(f"{error}; training goes on, and this is tried again at every checkpoint")


def stopped(asked: signal.Signals, step: int, checkpoints: Checkpoints) -> Stopped:
    """What ends a run that was asked to, once its last checkpoint is written."""
    checkpoints.wait()
    return Stopped(
        f"stopped by {asked.name} after step {step:,}, saved in {checkpoints.folder}: "
        "the same command goes on from there",
        asked,
        step,
    )
