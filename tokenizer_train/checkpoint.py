"""Checkpoints of a run: weights, optimisers, clock and data position as one item, written by Orbax.

A checkpoint becomes visible only when all of it is on disk, so an interrupted save is never taken for whole.
Saving goes on in the background while training continues.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import Array, Bool

from spae.errors import InputError

State = TypeVar("State")


def _layout(tree: Any) -> dict[str, list[Any]]:
    """Path -> [shape, dtype] of every array of a pytree, in a form that JSON keeps."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves}


class Checkpoints(Generic[State]):
    """The checkpoints of one run, in one folder, the newest `keep` of them.

    `position` is the JSON-able state of the data stream. Close it (or use it as a context manager) to wait
    for the last save.
    """

    def __init__(self, folder: str | Path, keep: int) -> None:
        self.folder = Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints[State]":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def latest(self) -> int | None:
        """The newest whole checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: State, position: dict[str, Any]) -> None:
        """Start to save; the arrays are copied before this returns, so the caller may donate them.

        Raises:
            OSError: An earlier save could not be written.
        """
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    position=ocp.args.JsonSave(position),
                    layout=ocp.args.JsonSave(_layout(state)),
                ),
            )

    def restore(self, like: State) -> tuple[int, State, dict[str, Any]] | None:
        """The newest whole checkpoint as (step, state, position), or None where there is none.

        Args:
            like: A state of the same structure; shapes, dtypes and shardings of the result are taken from it,
                so that a run goes on with another number of devices.

        Raises:
            InputError: The checkpoint is of another model than `like`.
        """
        step = self.latest
        if step is None:
            return None
        stored = self._manager.restore(step, args=ocp.args.Composite(layout=ocp.args.JsonRestore())).layout
        wanted = _layout(like)
        for path in sorted(wanted.keys() | stored.keys()):
            if wanted.get(path) != stored.get(path):
                raise InputError(
                    f"the checkpoint {self.folder / str(step)} is of another model: the config wants {path} "
                    f"= {wanted.get(path, 'absent')}, the checkpoint has {stored.get(path, 'absent')}; "
                    "give the config it was trained with, or another run.output"
                )
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract),
                position=ocp.args.JsonRestore(),
            ),
        )
        return step, restored.state, restored.position

    def wait(self) -> None:
        """Return when every save is on disk; OSError if one of them could not be written."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for the last save and release the threads; OSError if it could not be written."""
        with self._writing():
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A full disk is an OSError, also where the array store calls it a ValueError."""
        try:
            yield
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise OSError(f"cannot write a checkpoint to {self.folder}: {reason}") from error


@jax.jit
def finite(tree: Any) -> Bool[Array, ""]:
    """Whether every floating-point array of a pytree holds only finite numbers."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()
