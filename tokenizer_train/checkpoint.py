"""Checkpoints of a run: weights, optimisers, clock and data position as one item, written by Orbax.

A checkpoint becomes visible only when all of it is on disk, so an interrupted save is never taken for whole: a folder
is renamed then; in a bucket (gs://), where that is no single step, a last file says that all the others are there.
Saving goes on in the background while training continues. Every array's sum of bits is kept beside it, because
the array store does not notice a flipped byte; a checkpoint that has changed since is set aside, not used.
"""

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array, Bool

from spae.errors import InputError
from spae.files import bucket_errors, is_remote, open_path

State = TypeVar("State")

UNFINISHED = ".orbax-checkpoint-tmp"  # ends the name of a save under way
DAMAGED = "damaged-"  # begins the name of a checkpoint that was set aside
# Begin the array store's ValueErrors of a bucket or disk that does not answer, or not to us.
UNREACHABLE = ("PERMISSION_DENIED", "UNAUTHENTICATED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED")


class Damaged(Exception):
    """A checkpoint is not what was written; the message says what of it."""


class Checkpoints(Generic[State]):
    """The checkpoints of one run, in one folder, or below gs://, the newest `keep` of them.

    `position` is the JSON-able state of the data stream. Close it (or use it as a context manager) to wait
    for the last save.

    Raises:
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path, keep: int) -> None:
        path = open_path(folder)
        self.folder = path if is_remote(path) else epath.Path(Path(path).absolute())  # as Orbax wants it
        # What an earlier process had not finished when it was killed is cleaned up, or it would fill the disk.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(barrier_sync_fn=_meet),
        )
        self._failure: OSError | None = None  # of the newest save, until somebody waits for it
        self._abandoned = False  # by this process of several, while the others wait for it
        with self._writing():
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints[State]":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def latest(self) -> int | None:
        """The newest finished checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: State, position: dict[str, Any]) -> None:
        """Start to save; the arrays are copied before this returns, so the caller may donate them.

        Whether it succeeds, `wait` tells; call that before the next save too.

        Raises:
            OSError: it cannot be begun, and other processes have begun it, which now wait for this one.
        """
        record = {"position": position, "layout": _layout(state), "sums": sums(state)}
        try:
            with self._writing():
                self._manager.save(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardSave(state),
                        record=ocp.args.JsonSave({**record, "sha256": _digest(record)}),
                    ),
                )
        except OSError as error:
            if self._abandoned:
                raise
            self._failure = error

    def restore(self, like: State) -> tuple[int, State, dict[str, Any]] | None:
        """The newest whole checkpoint as (step, state, position), or None where there is none.

        A damaged one is renamed to `damaged-STEP`, with a line that says so, and the one before is tried. The
        first process judges for all, and holds a copy of the state in its memory meanwhile.

        Args:
            like: A state of the same structure; shapes, dtypes and shardings of the result are taken from it,
                so that a run goes on with another number of devices.

        Raises:
            InputError: the checkpoint is of another model than `like`, or every checkpoint is damaged.
            OSError: they cannot be read.
        """
        problem: Exception | None = None
        step = 0
        if jax.process_index() == 0:
            try:
                with bucket_errors(self.folder):
                    step = self._newest_whole(like)
            except Exception as error:  # the others wait to be told
                problem, step = error, -1
        step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
        if problem is not None:
            raise problem
        if step < 0:
            raise InputError(f"the checkpoints in {self.folder} cannot be used; the first process says why")
        if step == 0:
            return None
        self._manager.reload()
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), record=ocp.args.JsonRestore()
        )
        with bucket_errors(self.folder):
            restored = self._manager.restore(step, args=arguments)
        return step, restored.state, restored.record["position"]

    def wait(self) -> None:
        """Return when the last save is on disk; OSError if it could not be written, and what it left is removed.

        With several processes a save that fails in one is over there: the others wait for it, and can only be ended.
        """
        failure, self._failure = self._failure, None
        try:
            with self._writing():
                self._manager.wait_until_finished()
            if failure is not None:
                raise failure
        except OSError:
            self._remove_unfinished()
            raise

    def close(self) -> None:
        """Wait for the last save and release the threads; OSError if it could not be written."""
        if self._abandoned:
            return
        with self._writing():
            self._manager.close()
        # Writers of a save that failed may have gone on for a while after `wait` had removed what they left.
        self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        # In a bucket, which may be out of reach now, the next start of a run does that.
        if jax.process_index() == 0 and not is_remote(self.folder):
            for unfinished in self.folder.glob(f"*{UNFINISHED}"):
                shutil.rmtree(unfinished, ignore_errors=True)

    def _newest_whole(self, like: State) -> int:
        """The newest step whose checkpoint is whole and of `like`'s model, 0 if there never was one."""
        alone = ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="whole"
        )
        options = ocp.CheckpointManagerOptions(multiprocessing_options=alone, create=False)
        with ocp.CheckpointManager(self.folder, options=options) as manager:
            for step in sorted(manager.all_steps(), reverse=True):
                try:
                    self._check(manager, step, like)
                except Damaged as damage:
                    aside = self._set_aside(step)
                    print(
                        f"the checkpoint of step {step:,} is damaged: {damage}; set aside as {aside}",
                        flush=True,
                    )
                else:
                    return step
        if damaged := sorted(entry.name for entry in self.folder.glob(f"{DAMAGED}*")):
            raise InputError(
                f"no whole checkpoint is left in {self.folder}, only {', '.join(damaged)}: put one back from a "
                "copy, or delete the folder to begin again at step 1"
            )
        return 0

    def _check(self, manager: ocp.CheckpointManager, step: int, like: State) -> None:
        """Raise Damaged unless all of a checkpoint is as it was written, InputError if it is of another model."""
        with _reading("its record"):
            record = manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore())).record
            digest = record.pop("sha256")
        if _digest(record) != digest:
            raise Damaged("its record does not have the checksum that it was written with")
        stored, wanted = record["layout"], _layout(like)
        for path in sorted(wanted.keys() | stored.keys()):
            if wanted.get(path) != stored.get(path):
                raise InputError(
                    f"the checkpoint {self.folder / str(step)} is of another model: the config wants {path} "
                    f"= {wanted.get(path, 'absent')}, the checkpoint has {stored.get(path, 'absent')}; "
                    "give the config it was trained with, or another run.output"
                )
        with _reading("its arrays"):
            arrays = ocp.args.StandardRestore(jax.tree.map(_on_host, like))
            state = manager.restore(step, args=ocp.args.Composite(state=arrays)).state
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            name = jax.tree_util.keystr(path)
            if _host_sum(leaf) != record["sums"][name]:
                raise Damaged(f"the array {name} does not have the checksum that it was written with")

    def _set_aside(self, step: int) -> epath.Path:
        """Rename a checkpoint so that nothing takes it for one."""
        names = (f"{DAMAGED}{step}{again}" for again in ("", *(f"-{n}" for n in range(2, 1000))))
        aside = next(self.folder / name for name in names if not (self.folder / name).exists())
        return (self.folder / str(step)).rename(aside)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A full disk is an OSError, also where the array store calls it a ValueError."""
        try:
            with bucket_errors(self.folder):
                yield
        except (OSError, ValueError) as error:
            self._abandoned = jax.process_count() > 1
            reason = str(error).splitlines()[0]
            raise OSError(f"cannot write a checkpoint to {self.folder}: {reason}") from error


def _meet(*, key: str, timeout_ms: int) -> None:
    """Orbax's barrier between processes; but one whose part of a save has failed does not go there to wait for the
    others, who in turn wait for that part, for twenty minutes: it says at once what is wrong."""
    if jax.process_count() > 1 and (error := sys.exception()) is not None:
        raise error
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


@jax.jit
def finite(tree: Any) -> Bool[Array, ""]:
    """Whether every floating-point array of a pytree holds only finite numbers."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()


def _layout(tree: Any) -> dict[str, list[Any]]:
    """Path -> [shape, dtype] of every array of a pytree, in a form that JSON keeps."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves}


def sums(tree: Any) -> dict[str, int]:
    """Path -> the sum of an array's bits, read as unsigned integers, modulo 2^32.

    Integers, so that the sum is the same in any order: under any sharding, on any number of processes. One
    flipped bit always changes it.
    """
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    values = jax.device_get(_device_sums(jax.tree.leaves(tree))) if paths else []
    return dict(zip(paths, map(int, values), strict=True))


@jax.jit
def _device_sums(leaves: list[Array]) -> Array:
    def bits(x):
        x = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        x = x.astype(jnp.uint8) if x.dtype == bool else x
        return jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")

    return jnp.stack([jnp.sum(bits(x), dtype=jnp.uint32) for x in leaves])


def _host_sum(leaf: Any) -> int:
    """The same sum of an array in the host's memory."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    array = np.ascontiguousarray(jax.random.key_data(leaf) if is_key else leaf).reshape(-1)
    return int(array.view(f"uint{8 * array.dtype.itemsize}").sum(dtype=np.uint32))


def _on_host(leaf: Any) -> Any:
    """What asks Orbax for an array in NumPy's form; for keys of random numbers, which NumPy has not, in JAX's."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        sharding = SingleDeviceSharding(jax.local_devices()[0])
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return np.empty(leaf.shape, leaf.dtype)


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Files that are missing or make no sense are damage; a disk or network that fails is not.

    Orbax and the array store raise ValueError, KeyError and the like for the first, OSError for the second, but
    the array store of a bucket ValueError too.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(f"{what} cannot be read: {_first_line(error)}") from error
    except (OSError, InputError):
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if str(error).startswith(UNREACHABLE):
            raise OSError(f"{what} cannot be read: {_first_line(error)}") from error
        raise Damaged(f"{what} cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
