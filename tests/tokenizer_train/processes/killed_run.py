"""A run that is killed again and again; started by test_preemption.py as a process of its own, which has imported
everything and never used a device, so that each life of the run is a fork that starts at once.

    python killed_run.py VOCABULARY IMAGES FOLDER TRIALS

Prints JSON: the losses of the run that nobody killed, those of every life of the other one, and how each life began
and ended.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "1"

import jax

from spae.architecture import AutoencoderConfig
from tokenizer_train.checkpoint import UNFINISHED
from tokenizer_train.config import (
    Config,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    RunConfig,
    VocabularyConfig,
)
from tokenizer_train.loop import train
from tokenizer_train.summaries import Summaries

PATIENCE = 300  # seconds for a life to log its first step


def make_config(vocabulary: str, images: str, output: Path) -> Config:
    return Config(
        tokenizer=AutoencoderConfig(
            image_size=16, pyramid=(1, 2, 4), network="linear", skip=True, downsamplings=0, patch=4
        ),
        vocabulary=VocabularyConfig(path=vocabulary),
        data=DataConfig(train=images, validation=images, batch_size=4, threads=1, buffer=8),
        loss=LossConfig(adversarial=0.0, perceptual=0.0, semantic=0.0, semantic_layers=0, prefix_dropout=0.5),
        optimizer=OptimizerConfig(steps=100_000, warmup_steps=2, learning_rate=1e-3),
        run=RunConfig(output=str(output), log_every=1, evaluate_every=100_000, checkpoint_every=3),
    )


def live(config: Config, log: Path) -> int:
    """Fork a life of the run, which appends a line to `log` for each step; its process id."""
    if child := os.fork():
        return child
    lines = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def scalars(self, step, values, group):
        if group == "train":
            # repr of a float says all of its bits.
            os.write(lines, (json.dumps([step, {k: repr(v) for k, v in values.items()}]) + "\n").encode())

    Summaries.scalars = scalars
    os.dup2(os.open(log.with_suffix(".output"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    # Of its own: a kill may leave half of a function there.
    jax.config.update("jax_compilation_cache_dir", str(log.parent / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        train(config)
    finally:
        os._exit(1)


def read(log: Path) -> list:
    # A line is there once its end is: a longer write is seen, and killed, between two pages of it.
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def count(log: Path) -> int:
    """Lines that are whole; asked for often, so nothing is parsed."""
    return log.read_bytes().count(b"\n") if log.exists() else 0


def wait_for(child: int, condition, pause: float = 0.005) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        if os.waitpid(child, os.WNOHANG)[0] or time.monotonic() > limit:
            raise SystemExit("the run ended by itself or did not start")
        time.sleep(pause)


def stop_during_a_save(child: int, output: Path, draw: random.Random) -> None:
    """Stop the process from the first moment that a save is seen to its last; it is alive, but does nothing more."""
    while True:
        wait_for(child, lambda: unfinished(output), pause=0.0005)  # a save is short
        time.sleep(draw.uniform(0, 0.01))
        os.kill(child, signal.SIGSTOP)
        os.waitpid(child, os.WUNTRACED)
        if unfinished(output):
            return
        os.kill(child, signal.SIGCONT)


def kill(child: int, log: Path) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    # What the kill cut short is not what the next life goes on writing.
    os.truncate(log, log.read_bytes().rfind(b"\n") + 1)


def finished(output: Path) -> int:
    folder = output / "checkpoints"
    return max((int(entry.name) for entry in folder.glob("*") if entry.name.isdigit()), default=0)


def unfinished(output: Path) -> bool:
    return any((output / "checkpoints").glob(f"*{UNFINISHED}"))


def main(vocabulary: str, images: str, folder: str, trials: str) -> None:
    draw = random.Random(0)
    output, whole_output, log = Path(folder) / "killed", Path(folder) / "whole", Path(folder) / "killed.log"
    lives = []
    for trial in range(int(trials)):
        before, newest = count(log), finished(output)
        child = live(make_config(vocabulary, images, output), log)
        if trial % 2:
            wait_for(child, lambda before=before: count(log) > before)
            stop_during_a_save(child, output, draw)
        else:
            steps = draw.randint(1, 8)
            wait_for(child, lambda before=before, steps=steps: count(log) >= before + steps)
            time.sleep(draw.uniform(0, 0.02))
        kill(child, log)
        first = read(log)[before][0]
        lives.append({"first": first, "newest": newest, "saving": unfinished(output)})
    length = max(step for step, _ in read(log))
    child = live(make_config(vocabulary, images, whole_output), whole := Path(folder) / "whole.log")
    wait_for(child, lambda: count(whole) >= length)
    kill(child, whole)
    print(json.dumps({"lives": lives, "killed": read(log), "whole": read(whole)[:length]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
