"""Checkpoints: round trip, other devices, keep N, other models refused, interrupted saves ignored."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spae.errors import InputError
from tokenizer_train.checkpoint import Checkpoints, finite


def state(value: float) -> dict:
    return {"step": jnp.int32(value), "w": jnp.full((4, 2), float(value)), "key": jax.random.key(int(value))}


def test_round_trip_keeps_the_newest(tmp_path) -> None:
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        assert checkpoints.restore(state(0)) is None
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), {"next_index": 10 * step})
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["2", "3"]
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        step, restored, position = checkpoints.restore(state(0))
    assert (step, position) == (3, {"next_index": 30})
    np.testing.assert_array_equal(restored["w"], state(3)["w"])
    assert jax.random.uniform(restored["key"]) == jax.random.uniform(state(3)["key"])


def test_restores_onto_other_devices(tmp_path) -> None:
    devices = np.asarray(jax.local_devices())
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        checkpoints.save(1, state(1), {})
        checkpoints.wait()
        spread = NamedSharding(Mesh(devices, ("data",)), PartitionSpec())
        _, restored, _ = checkpoints.restore(jax.device_put(state(0), spread))
    assert restored["w"].sharding.device_set == set(devices)
    np.testing.assert_array_equal(restored["w"], state(1)["w"])


def test_another_model_is_refused(tmp_path) -> None:
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        checkpoints.save(1, state(1), {})
        checkpoints.wait()
        with pytest.raises(
            InputError, match=r"\['w'\] = \[\[5, 2\], 'float32'\], the checkpoint has \[\[4, 2\]"
        ):
            checkpoints.restore({**state(0), "w": jnp.zeros((5, 2))})
        with pytest.raises(InputError, match=r"\['more'\].*has absent"):
            checkpoints.restore({**state(0), "more": jnp.zeros(1)})


def test_an_interrupted_save_is_not_taken(tmp_path) -> None:
    folder = tmp_path / "c"
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(1, state(1), {})
        checkpoints.save(2, state(2), {})
    # What a killed process leaves of step 2: everything under Orbax's temporary name, some of it missing.
    (folder / "2").rename(folder / "2.orbax-checkpoint-tmp")
    shutil.rmtree(folder / "2.orbax-checkpoint-tmp" / "record")
    with Checkpoints(folder, keep=2) as checkpoints:
        step, restored, _ = checkpoints.restore(state(0))
        assert step == 1
        np.testing.assert_array_equal(restored["w"], state(1)["w"])
        checkpoints.save(2, state(2), {})
        checkpoints.wait()
        assert checkpoints.latest == 2


def test_a_full_disk_is_an_os_error_and_keeps_what_was_whole(tmp_path, monkeypatch) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    checkpoints.save(1, state(1), {})
    checkpoints.wait()

    def full(*_: object, **__: object) -> None:
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", full)
    with pytest.raises(OSError, match=r"cannot write a checkpoint to .*No space left"):
        checkpoints.wait()
    monkeypatch.undo()
    checkpoints.close()
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        assert checkpoints.restore(state(0))[0] == 1


def test_finite() -> None:
    assert finite(state(1))
    assert not finite({**state(1), "w": jnp.array([1.0, jnp.nan])})
    assert not finite({**state(1), "w": jnp.array([jnp.inf])})
