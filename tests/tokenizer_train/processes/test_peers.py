"""Two processes of a run, of which one ends: so does the other, soon, and says why."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# The command with another training: the second process ends in its own way, the first would sleep for long.
COMMAND = """
import os, signal, sys, time
from spae.errors import InputError
from tokenizer_train import cli, loop

def run(config, requests):
    if config.mesh.process == 1:
        {end}
    time.sleep(1000)

loop.run = run
sys.exit(cli.main(sys.argv[1:]))
"""


def ended(folder: Path, end: str) -> list[tuple[int, str]]:
    """Of both processes the exit status and what they wrote on standard error."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", COMMAND.format(end=end), str(ROOT / "configs" / "default64.py")]
    command += ["--variant", "tiny", "--mesh.coordinator", f"localhost:{port}", "--mesh.processes", "2"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_NUM_CPU_DEVICES": "1",
        "SPAE_CACHE": str(folder),
    }
    processes = [
        subprocess.Popen(
            [*command, "--mesh.process", str(process)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for process in range(2)
    ]
    try:
        # JAX alone would take five minutes, and end with SIGABRT.
        errors = [process.communicate(timeout=200)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


@pytest.mark.parametrize(
    ("end", "status", "line"),
    [
        ('raise InputError("cannot read image 3: it is damaged")', 1, "cannot read image 3: it is damaged"),
        (
            "os.kill(os.getpid(), signal.SIGTERM)",
            0,
            f"stopped by {signal.SIGTERM.name} before the first step: ",
        ),
    ],
)
def test_one_that_ends_takes_the_other_along(tmp_path, end: str, status: int, line: str) -> None:
    (first, of_first), (second, of_second) = ended(tmp_path, end)
    assert (first, second) == (status, status), of_first + of_second
    assert of_second.startswith(f"spae-train: {line}")
    assert of_first == f"spae-train: process 1 has ended: {of_second.removeprefix('spae-train: ')}"


def test_a_mistake_of_the_program_shows_its_traceback_and_ends_all(tmp_path) -> None:
    (first, of_first), (second, of_second) = ended(tmp_path, 'raise KeyError("x")')
    assert (first, second) == (1, 1), of_first + of_second
    assert of_second.startswith("Traceback")
    assert of_second.endswith("spae-train: KeyError('x')\n")
    assert of_first == "spae-train: process 1 has ended: KeyError('x')\n"
