"""Processes and devices: start-up of a run on many hosts, the mesh of all their devices, and what lies where.

The mesh has two axes. The batch is cut over both; parameters, their average and the optimiser's state over `fsdp`
alone, and every group of `fsdp` devices holds all of them. So `fsdp=1` is plain data parallelism. All axes are Auto:
under JAX's default, Explicit, `codebook[ids]` raises ShardingTypeError.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from spae.errors import InputError
from tokenizer_train.config import MeshConfig

BATCH_AXES = ("data", "fsdp")
SMALL = 2_048  # elements; arrays below stay whole: cutting them saves nothing and costs a message each


def start(config: MeshConfig) -> None:
    """Join the other processes of the run, if the config names any; before anything else asks JAX for a device.

    Raises:
        InputError: `mesh.coordinator` is "auto" and no launcher known to JAX started this process, or the other
            processes cannot be reached.
    """
    if config.coordinator is None or jax.distributed.is_initialized():
        return
    # It would take SIGTERM from now on, and heed it only between steps: see `preemption.Requests`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if config.coordinator == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(config.coordinator, config.processes, config.process)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"mesh.coordinator {config.coordinator!r} does not join the processes of this run ({reason}): start all of "
            "them, on a TPU pod, with srun or mpirun for auto, or give HOST:PORT, mesh.processes and mesh.process"
        ) from error
    # Here all are at the same place. CPUs wait half a minute for a first message and as long as it takes for others,
    # and until the next one a process may read files for minutes.
    wait_for_all("start")


def is_main() -> bool:
    """Whether this is the process that prints and writes; all of them compute."""
    return jax.process_index() == 0


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices of all processes (or those given) as `data` x `fsdp`.

    Raises:
        InputError: the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    data = len(devices) // config.fsdp if config.data == -1 else config.data
    if data * config.fsdp != len(devices):
        raise InputError(
            f"mesh.data x mesh.fsdp must be the {len(devices)} devices of the run, got {config.data} x {config.fsdp}; "
            "-1 for mesh.data takes all that mesh.fsdp leaves, if it divides them"
        )
    # Puts devices with fast links next to each other, and those of one host together along fsdp.
    return jax.make_mesh(
        (data, config.fsdp), BATCH_AXES, axis_types=(AxisType.Auto, AxisType.Auto), devices=devices
    )


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise InputError unless every device gets the same number of images."""
    if batch_size % mesh.size:
        raise InputError(
            f"data.batch_size must be a multiple of the {mesh.size} devices of the run, got {batch_size}; "
            f"try {-(-batch_size // mesh.size) * mesh.size}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(batch_size: int, mesh: Mesh) -> Int[np.ndarray, " n"]:
    """Which rows of a global batch the devices of this process hold, in ascending order."""
    places = NamedSharding(mesh, PartitionSpec(BATCH_AXES)).addressable_devices_indices_map((batch_size,))
    rows = np.arange(batch_size)
    return np.unique(np.concatenate([rows[place] for place in places.values()]))


def split(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays, cut along their first axis over all devices, from this process's rows of the batch.

    Args:
        batch: Per name the rows `local_rows(B, mesh)` of an array (B, ..).
        mesh: Of `make_mesh`.
    """
    sharding = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    # A transfer that is asked for, which JAX does not see with several processes.
    with jax.transfer_guard_host_to_device("allow"):
        return {
            name: jax.make_array_from_process_local_data(
                sharding, rows, (len(rows) * mesh.size // len(mesh.local_devices), *rows.shape[1:])
            )
            for name, rows in batch.items()
        }


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Put a whole copy of every array on every device; every process must give the same values."""

    def put(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        # Unlike device_put this does not send the array round to compare it: it may be a large codebook.
        return jax.make_array_from_callback(array.shape, replicated(mesh), lambda index: array[index])

    return jax.tree.map(put, tree)


def shardings(tree: Any, mesh: Mesh) -> Any:
    """Where each array of a train state lies: cut over `fsdp` along the largest axis that it divides, or whole.

    Args:
        tree: Arrays or ShapeDtypeStructs. The state of Adam has the shapes of the parameters, so it lies as they do.
        mesh: Of `make_mesh`.
    """
    parts = mesh.shape["fsdp"]

    def place(leaf: Any) -> NamedSharding:
        divisible = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or not divisible or leaf.size < SMALL:
            return replicated(mesh)
        largest = max(divisible, key=lambda axis: (leaf.shape[axis], axis))
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, "fsdp"))

    return jax.tree.map(place, tree)


@cache
def _gather(mesh: Mesh) -> Any:
    """One function for a mesh: a new one would be compiled again at every validation."""
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def to_host(tree: Any, mesh: Mesh) -> Any:
    """The whole arrays in the memory of every process; all processes must call this together."""
    whole = _gather(mesh)(tree)
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), whole)


def wait_for_all(name: str) -> None:
    """Return when every process of the run has come to the place called `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def check_same(value: str, what: str) -> None:
    """Raise InputError in every process unless all have the same text; `what` says what it stands for."""
    if jax.process_count() == 1:
        return
    own = np.frombuffer(value.encode(), np.uint8)
    padded = np.zeros(1_024, np.uint8)
    padded[: own.size] = own[: padded.size]
    if (np.asarray(multihost_utils.process_allgather(padded)) != padded).any():
        raise InputError(
            f"the {jax.process_count()} processes of this run differ in {what}: give all the same"
        )
