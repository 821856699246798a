"""Runs that are stopped: asked to by a signal, or killed at any moment."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from jax._src import distributed

from tokenizer_train.checkpoint import Checkpoints
from tokenizer_train.cli import main
from tokenizer_train.processes.preemption import Stopped, listen
from tokenizer_train.summaries import Summaries

# 20, half of them during a save. More with this variable, for whoever has the time.
TRIALS = int(os.environ.get("SPAE_KILLS", "20"))


def test_a_run_that_is_killed_at_any_moment_goes_on_to_the_same_losses(
    vocabulary_folder, image_folder, tmp_path
) -> None:
    script = Path(__file__).with_name("killed_run.py")
    arguments = [str(vocabulary_folder), str(image_folder), str(tmp_path), str(TRIALS)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    output = tmp_path / "killed.output"
    assert done.returncode == 0, done.stderr + (output.read_text() if output.exists() else "")
    told = json.loads(done.stdout)
    assert len(told["lives"]) == TRIALS
    for life in told["lives"]:
        # Neither an older checkpoint than the newest, nor one that was being written, nor step 1 again.
        assert life["first"] == life["newest"] + 1, life
    assert all(life["saving"] for life in told["lives"][1::2])
    whole = dict(map(tuple, ((step, json.dumps(losses)) for step, losses in told["whole"])))
    assert sorted(whole) == list(range(1, len(whole) + 1))
    seen = set()
    for step, losses in told["killed"]:
        assert json.dumps(losses) == whole[step], step
        seen.add(step)
    assert seen == set(whole)
    # Something was done again: the kills did come between checkpoints.
    assert len(told["killed"]) > len(whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_asked_to_stop_it_saves_and_goes_on_later(
    linear_config, monkeypatch, capsys, number: signal.Signals, status: int
) -> None:
    logged: dict[str, list[int]] = {"train": [], "speed": [], "validation": []}

    def scalars(self, step, values, group):
        logged[group].append(step)
        if group == "train" and step in (3, 6):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Summaries, "scalars", scalars)
    monkeypatch.setattr("tokenizer_train.cli.load_config", lambda file, variant: linear_config)
    before = signal.getsignal(number)
    assert main(["config.py"]) == status
    out, err = capsys.readouterr()
    # Step 4 was under way when the losses of step 3 were read.
    folder = Path(linear_config.run.output) / "checkpoints"
    line = f"stopped by {number.name} after step 4, saved in {folder}: the same command goes on from there"
    assert (out.splitlines()[-1], err) == (line, "")
    assert logged == {"train": [1, 2, 3, 4], "speed": [1, 2, 3, 4], "validation": []}
    assert signal.getsignal(number) is before
    with Checkpoints(folder, 2) as checkpoints:
        assert checkpoints.latest == 4
    logged["train"].clear()
    assert main(["config.py"]) == status
    assert logged["train"] == [5, 6, 7]


def test_asked_to_stop_while_features_are_made_it_keeps_whole_files_of_them(
    linear_config, hash_guidance, monkeypatch, capsys
) -> None:
    embed, calls = hash_guidance.images, []

    def images(images_bhwc):
        calls.append(len(images_bhwc))
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return embed(images_bhwc)

    monkeypatch.setattr(hash_guidance, "images", images)
    monkeypatch.setattr("spae.guidance.cache.SHARD_ROWS", 8)  # 30 images in four files
    monkeypatch.setattr("tokenizer_train.cli.load_config", lambda file, variant: linear_config)
    assert main(["config.py"]) == 0
    out = capsys.readouterr().out
    assert out == (
        "stopped by SIGTERM before the first step: the same command begins again, with those files of features that "
        "are whole\n"
    )
    assert len(list((Path(linear_config.run.output) / "guidance").glob("*.safetensors"))) == 2
    monkeypatch.setattr("tokenizer_train.preparation.create", lambda *arguments: 1 / 0)  # that is far enough
    with pytest.raises(ZeroDivisionError):
        main(["config.py"])
    assert len(calls) == 5


def test_before_the_first_step_there_is_nothing_to_save() -> None:
    with pytest.raises(Stopped, match="before the first step") as stopped, listen():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.signal == signal.SIGTERM


def test_of_several_processes_none_misses_a_request_that_comes_while_the_service_begins(monkeypatch) -> None:
    service = distributed.global_state
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        service, "initialize_preemption_sync_manager", lambda: os.kill(os.getpid(), signal.SIGTERM)
    )
    kept = jax.config.jax_enable_preemption_service
    try:
        with pytest.raises(Stopped, match="before the first step"), listen() as requests:
            requests.begin()
    finally:
        jax.config.update("jax_enable_preemption_service", kept)


def test_what_the_service_has_taken_stays_its_own(monkeypatch) -> None:
    service = distributed.global_state
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(service, "preemption_sync_manager", None)
    before, kept = signal.getsignal(signal.SIGTERM), jax.config.jax_enable_preemption_service

    def take() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        service.preemption_sync_manager = object()

    monkeypatch.setattr(service, "initialize_preemption_sync_manager", take)
    try:
        for _ in range(2):
            with listen() as requests:
                requests.begin()
                assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
        jax.config.update("jax_enable_preemption_service", kept)


def test_a_request_that_a_finalizer_swallowed_is_heeded_after_the_first_step() -> None:
    with listen() as requests:
        with contextlib.suppress(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        requests.begin()
        assert requests.after(1) == signal.SIGTERM


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    with listen() as requests:
        requests.begin()
        os.kill(os.getpid(), signal.SIGINT)
        assert requests.after(1) == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_in_another_thread_nothing_is_taken() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with listen() as requests:
            seen.append((signal.getsignal(signal.SIGTERM), requests.after(1)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, None)]


class Pair:
    """Starts the two processes of a run, which is the same each time; without networks, which are not its subject."""

    def __init__(self, folder: Path, vocabulary: Path, images: Path) -> None:
        self.checkpoints = folder / "run" / "checkpoints"
        self.outputs = [folder / f"{process}.txt" for process in range(2)]
        root = Path(__file__).resolve().parents[3]
        self._fields = {
            "vocabulary.path": vocabulary,
            "data.train": images,
            "data.validation": images,
            "data.validation-split": None,
            "tokenizer.latents": 4,
            "optimizer.steps": 100_000,
            "run.output": folder / "run",
            "run.log-every": 1,
            "run.evaluate-every": 100_000,
            "run.checkpoint-every": 3,
            "mesh.processes": 2,
        }
        self._command = [
            sys.executable,
            "-m",
            "tokenizer_train.cli",
            str(root / "configs" / "default64.py"),
        ]
        self._command += ["--variant", "linear"]
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(root),
            "JAX_NUM_CPU_DEVICES": "1",
            "SPAE_CACHE": str(folder),
        }

    @contextlib.contextmanager
    def start(self) -> Iterator[list[subprocess.Popen]]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            fields = {**self._fields, "mesh.coordinator": f"localhost:{free.getsockname()[1]}"}
        processes = []
        for process, output in enumerate(self.outputs):
            own = {**fields, "mesh.process": process}
            command = [*self._command, *(word for name in own for word in (f"--{name}", str(own[name])))]
            with output.open("w") as opened:
                processes.append(
                    subprocess.Popen(
                        command, env=self._environment, stdout=opened, stderr=subprocess.STDOUT, text=True
                    )
                )
        try:
            yield processes
        finally:
            for one in processes:
                one.kill()
                one.wait()

    def saved(self) -> list[int]:
        """The steps of the checkpoints that are whole."""
        found = self.checkpoints.iterdir() if self.checkpoints.exists() else []
        return sorted(int(entry.name) for entry in found if entry.name.isdigit())

    def wait_for(self, processes: list[subprocess.Popen], condition: Callable[[], bool]) -> None:
        limit = time.monotonic() + 300
        while not condition():
            assert all(process.poll() is None for process in processes), self.outputs[0].read_text()
            assert time.monotonic() < limit
            time.sleep(0.05)


def test_two_processes_end_together_and_go_on_together(vocabulary_folder, image_folder, tmp_path) -> None:
    pair = Pair(tmp_path, vocabulary_folder, image_folder)
    with pair.start() as processes:
        pair.wait_for(processes, lambda: len(pair.saved()) > 1)
        # The second process's disk is full: files may not grow beyond some bytes.
        resource.prlimit(
            processes[1].pid, resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        )
        assert [process.wait(200) for process in processes] == [1, 1]
    line = f"process 1 has ended: cannot write a checkpoint to {pair.checkpoints}: "
    assert line in pair.outputs[0].read_text().splitlines()[-1]

    *_, before, newest = pair.saved()
    for file in (pair.checkpoints / str(newest) / "record").rglob("*"):
        if file.is_file():
            file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    with pair.start() as processes:
        pair.wait_for(processes, lambda: "  speed  " in pair.outputs[0].read_text())
        processes[1].terminate()
        assert [process.wait(200) for process in processes] == [0, 0]
    first, second = (output.read_text() for output in pair.outputs)
    assert f"the checkpoint of step {newest:,} is damaged: " in first
    assert f"set aside as {pair.checkpoints / f'damaged-{newest}'}" in first
    assert f"going on after step {before:,}, from {pair.checkpoints}" in first
    assert first.splitlines()[-1].startswith(f"stopped by SIGTERM after step {pair.saved()[-1]:,}, saved in ")
    assert "is damaged" not in second
    assert "stopped by" not in second
