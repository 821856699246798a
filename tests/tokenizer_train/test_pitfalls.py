"""What went wrong in comparable programs of JAX; docs/operations.md lists it with these tests and others."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from eight_devices import state
from jax.sharding import AxisType, SingleDeviceSharding

from spae.sources import Source
from tokenizer_train.checkpoint import Checkpoints
from tokenizer_train.config import DataConfig, MeshConfig
from tokenizer_train.data import Batches
from tokenizer_train.evaluation.batches import read
from tokenizer_train.processes.mesh import make_mesh, shardings

ROOT = Path(__file__).resolve().parents[2]


def same(restored: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert restored.keys() == wanted.keys()
    for name, leaf in wanted.items():
        assert restored[name].dtype == leaf.dtype, name
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            draw = jax.vmap(jax.random.uniform) if leaf.ndim else jax.random.uniform
            np.testing.assert_array_equal(draw(restored[name]), draw(leaf))
        else:
            np.testing.assert_array_equal(restored[name], leaf)


@pytest.fixture(scope="module")
def of_eight_devices(tmp_path_factory) -> Path:
    """The checkpoints of a process with eight devices, with a state that is cut over all of them."""
    folder = tmp_path_factory.mktemp("eight") / "checkpoints"
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": "8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(Path(__file__).with_name("eight_devices.py")), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_a_checkpoint_of_eight_devices_on_one(of_eight_devices) -> None:
    one = SingleDeviceSharding(jax.devices("cpu")[0])
    with Checkpoints(of_eight_devices, keep=1) as checkpoints:
        step, restored, position = checkpoints.restore(jax.device_put(state(0), one))
    assert (step, position) == (5, {"batches": 5})
    assert {leaf.sharding for leaf in jax.tree.leaves(restored)} == {one}
    same(restored, state(5))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_checkpoint_is_restored_under_an_active_mesh(of_eight_devices, kind) -> None:
    """Where arrays come to lie is what is asked for, and not the mesh that a caller happens to be in."""
    size = len(jax.devices())
    mesh = make_mesh(MeshConfig(fsdp=size))
    places = shardings(state(0), mesh)
    like = jax.tree.map(jax.device_put, state(0), places)
    active = jax.make_mesh((size,), ("other",), axis_types=(kind,))
    with jax.set_mesh(active), Checkpoints(of_eight_devices, keep=1) as checkpoints:
        _, restored, _ = checkpoints.restore(like)
    same(restored, state(5))
    assert all(leaf.sharding.is_equivalent_to(places[name], leaf.ndim) for name, leaf in restored.items())


class Numbers(Source):
    """Image i is i everywhere."""

    def __init__(self, count: int) -> None:
        super().__init__([], None)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return str(index)

    def _read(self, index: int):
        return np.full((4, 4, 3), index, np.uint8), None, None, self.key(index)


def stream(processes: int, process: int, threads: int, count: int = 34) -> Batches:
    """Of `count` images the batches of 16, as one of several processes reads them."""
    config = DataConfig(train="t", validation="v", batch_size=16, flip=False, threads=threads, buffer=8)
    rows = np.arange(16).reshape(processes, -1)[process]
    return Batches([(Numbers(count), 1.0)], [np.zeros((count, 0), np.float32)], 4, config, 0, rows)


def handed_out(batches: list[Batches], number: int) -> np.ndarray:
    """The images of that many global batches: (number, 16)."""
    parts = [[next(share)["images"][:, 0, 0, 0] for _ in range(number)] for share in batches]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("processes", [2, 4])
def test_no_remainder_is_dropped_or_split_by_workers(processes) -> None:
    """34 images, batches of 16: two are left over, and no epoch begins with a batch."""
    seen = handed_out([stream(processes, process, threads=3) for process in range(processes)], 17)
    epochs = seen.reshape(8, 34)
    np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(34), (8, 1)))
    np.testing.assert_array_equal(seen, handed_out([stream(1, 0, threads=1)], 17))


def test_the_position_holds_when_the_number_of_processes_changes() -> None:
    whole = handed_out([stream(1, 0, threads=2)], 9)
    two = [stream(2, process, threads=2) for process in range(2)]
    np.testing.assert_array_equal(handed_out(two, 3), whole[:3])
    positions = [share.get_state() for share in two]
    four = [stream(4, process, threads=1) for process in range(4)]
    for share in four:
        share.set_state(positions[1])
    np.testing.assert_array_equal(handed_out(four, 3), whole[3:6])
    one = [stream(1, 0, threads=1)]
    one[0].set_state(four[2].get_state())
    np.testing.assert_array_equal(handed_out(one, 3), whole[6:])


def test_fewer_images_than_a_batch_are_still_all_read() -> None:
    seen = handed_out([stream(2, process, threads=2, count=5) for process in range(2)], 5)
    np.testing.assert_array_equal(np.sort(seen.reshape(16, 5), 1), np.tile(np.arange(5), (16, 1)))


def test_nothing_forks_beside_jax(monkeypatch) -> None:
    """Threads read; a fork of a process in which JAX has threads of its own may wait for ever for a lock of theirs."""
    jnp.zeros(1).block_until_ready()

    def forked(*_: object, **__: object) -> None:
        raise AssertionError("a process was forked, or started by multiprocessing")

    monkeypatch.setattr(os, "fork", forked)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", forked)
    handed_out([stream(1, 0, threads=4)], 3)
    assert len(list(read(Numbers(34), np.arange(34), np.asarray, 16, "images"))) == 3


def test_nothing_of_ours_asks_for_a_fork() -> None:
    files = [
        file
        for package in ("spae", "tokenizer_train", "icl_runner")
        for file in (ROOT / package).rglob("*.py")
    ]
    assert len(files) > 100
    for file in files:
        text = file.read_text("utf-8")
        for name in ("os.fork", "multiprocessing", "ProcessPoolExecutor", "mp_prefetch"):
            assert name not in text.replace("multiprocessing_options", ""), f"{file} uses {name}"


def test_a_key_of_another_kind_is_another_model(of_eight_devices) -> None:
    like = {**state(0), "key": jax.random.key(0, impl="rbg")}
    with Checkpoints(of_eight_devices, keep=1) as checkpoints, pytest.raises(ValueError, match=r"\['key'\]"):
        checkpoints.restore(like)
