"""Checkpoints that are not what was written, disks that are full, folders that cannot be written to."""

import gc
import math
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from spae.errors import InputError
from tokenizer_train import checkpoint
from tokenizer_train.checkpoint import Checkpoints
from tokenizer_train.loop import train
from tokenizer_train.summaries import Summaries

# Orbax's own threads die of what is done to their files here, and it closes their event loops with reads and writes
# not yet begun.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What Orbax leaves behind is noticed when it is collected: here, not in another file's tests."""
    yield
    gc.collect()


POSITION = {"data": {"next_index": 10}, "run": "abc"}


def state(value: int) -> dict:
    return {
        "step": jnp.int32(value),
        "w": jax.random.normal(jax.random.key(value), (40, 20)),
        "half": jnp.full((7,), value, jnp.bfloat16),
        "mask": jnp.array([True, False]),
        "key": jax.random.key(value),
    }


def same(a: dict, b: dict) -> bool:
    return all(
        np.array_equal(*(jax.random.key_data(x) if name == "key" else x for x in (a[name], b[name])))
        for name in a
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("written") / "c"
    with Checkpoints(folder, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state(step), {**POSITION, "step": step})
            checkpoints.wait()
    return folder


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_whatever_file_is_damaged_the_newest_whole_state_comes_back(
    written, tmp_path, capsys, damage
) -> None:
    files = sorted(file.relative_to(written) for file in written.rglob("*") if file.is_file())
    files = [file for file in files if file.parts[0] == "2" and (written / file).stat().st_size]
    assert len(files) > 8
    aside = []
    for number, file in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(written, folder)
        damage(folder / file)
        with Checkpoints(folder, keep=2) as checkpoints:
            step, restored, position = checkpoints.restore(state(0))
        # Some files say nothing that is needed. Where one does, the checkpoint before is taken; never wrong numbers.
        assert same(restored, state(step)), file
        assert position == {**POSITION, "step": step}
        said = capsys.readouterr().out
        if step == 2:
            assert said == ""
        else:
            assert said.startswith("the checkpoint of step 2 is damaged: ")
            assert said.endswith(f"; set aside as {folder / 'damaged-2'}\n")
            assert said.count("\n") == 1
            # Set aside whole: what can be saved of it by hand is still there.
            assert len(list((folder / "damaged-2").rglob("*"))) >= len(files) - 1
            aside.append(file)
    parts = {file.parts[1] for file in aside}
    assert {"state", "record"} <= parts
    assert len(aside) >= 3


def test_a_flipped_number_is_noticed_where_the_array_store_does_not(written, tmp_path, monkeypatch) -> None:
    """Every single bit of an array changes the sum; the order of numbers and how they are spread do not."""
    array = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    expected = checkpoint.sums({"w": jnp.asarray(array)})["['w']"]
    assert expected == checkpoint._host_sum(array)
    assert expected == int(array.view(np.uint32).astype(object).sum()) % 2**32
    for bit in range(32):
        changed = array.copy()
        changed.view(np.uint32)[3, 2] ^= np.uint32(1 << bit)
        assert checkpoint._host_sum(changed) != expected
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("data",))
    cut_up = jax.device_put(array, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    assert checkpoint.sums({"w": cut_up})["['w']"] == expected
    folder = tmp_path / "c"
    shutil.copytree(written, folder)
    with Checkpoints(folder, keep=2) as checkpoints:
        kept = checkpoint._host_sum
        monkeypatch.setattr(checkpoint, "_host_sum", lambda leaf: kept(leaf) ^ (np.shape(leaf) == (40, 20)))
        with pytest.raises(InputError, match=r"no whole checkpoint is left in .*damaged-1, damaged-2"):
            checkpoints.restore(state(0))


def test_all_damaged_is_an_error_for_ever_and_no_start_from_nothing(written, tmp_path, capsys) -> None:
    folder = tmp_path / "c"
    shutil.copytree(written, folder)
    for step in ("1", "2"):
        flip(folder / step / "record" / "metadata")
    for _ in range(2):
        with (
            Checkpoints(folder, keep=2) as checkpoints,
            pytest.raises(
                InputError, match=r"no whole checkpoint .*, only damaged-1, damaged-2: put one back"
            ),
        ):
            checkpoints.restore(state(0))
    assert capsys.readouterr().out.count("is damaged: ") == 2
    # A second checkpoint of the same step gets another name.
    shutil.copytree(written / "2", folder / "2")
    flip(folder / "2" / "record" / "metadata")
    with Checkpoints(folder, keep=2) as checkpoints, pytest.raises(InputError, match="damaged-2-2"):
        checkpoints.restore(state(0))


def test_a_folder_that_cannot_be_made_is_said(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write a checkpoint to .*file/checkpoints"):
        Checkpoints(tmp_path / "file" / "checkpoints", keep=2)


@pytest.fixture
def full_disk():
    """Files may not grow beyond some bytes: what a full disk does to a write, to the real writer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        soft = before[0] if size is None else size
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, before[1]))

    # Half a compiled function on disk would be another test's damage.
    kept = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)
    yield limit
    limit(None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", kept)


def test_a_full_disk_does_not_end_a_run_that_can_go_on(
    linear_config, unvalidated, full_disk, monkeypatch, capsys
) -> None:
    scalars, line = Summaries.scalars, Summaries.line

    def filling(self, step, values, group):
        scalars(self, step, values, group)
        if group == "train" and step == 4:
            full_disk(2_000)

    def emptying(self, text):
        line(self, text)
        if "cannot write a checkpoint" in text:
            full_disk(None)

    monkeypatch.setattr(Summaries, "scalars", filling)
    monkeypatch.setattr(Summaries, "line", emptying)
    train(linear_config)
    out = capsys.readouterr().out
    folder = Path(linear_config.run.output) / "checkpoints"
    assert f"cannot write a checkpoint to {folder}: " in out
    assert "; training goes on, and this is tried again at every checkpoint" in out
    assert sorted(entry.name for entry in folder.iterdir()) == ["10"]


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(tmp_path, full_disk) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    checkpoints.save(1, state(1), {})
    checkpoints.wait()
    full_disk(1_000)
    checkpoints.save(2, state(2), {})
    with pytest.raises(OSError, match="cannot write a checkpoint"):
        checkpoints.wait()
    full_disk(None)
    # Once said it is over; there is room again; what was half written takes no more of it.
    checkpoints.wait()
    checkpoints.save(3, state(3), {})
    checkpoints.close()
    assert sorted(entry.name for entry in (tmp_path / "c").iterdir()) == ["1", "3"]
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        assert checkpoints.restore(state(0))[0] == 3


def test_a_full_disk_costs_the_curves_and_not_the_run(tmp_path, full_disk, capsys) -> None:
    with Summaries(tmp_path) as summaries:
        summaries.scalars(1, {"loss": 1.0}, "train")
        full_disk(10)
        for step in (2, 3):
            summaries.scalars(step, {"loss": 2.0}, "train")
        full_disk(None)
        summaries.scalars(4, {"loss": 4.0}, "train")
    out = capsys.readouterr().out
    assert out.count("the curves have a gap, training goes on") == 1
    events = [event for file in sorted(tmp_path.iterdir()) for event in read_events(file)]
    assert [event.step for event in events if event.HasField("summary")] == [1, 4]


def read_events(file: Path) -> Iterator[Event]:
    """Records of TensorBoard's files: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    content = file.read_bytes()
    while content:
        length = int.from_bytes(content[:8], "little")
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_a_silent_board_writes_nothing(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    with Summaries(None) as summaries:
        summaries.line("x")
        summaries.scalars(1, {"loss": 1.0}, "train")
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
