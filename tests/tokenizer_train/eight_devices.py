"""A state cut over eight fake devices, and the process that saves it, for test_pitfalls.py.

JAX_NUM_CPU_DEVICES=8 python eight_devices.py FOLDER
"""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from tokenizer_train.checkpoint import Checkpoints
from tokenizer_train.config import MeshConfig
from tokenizer_train.processes.mesh import make_mesh, shardings


def state(value: int) -> dict[str, Any]:
    """Arrays of several types, one of them large enough to be cut, and keys of random numbers of both kinds."""
    return {
        "step": jnp.int32(value),
        "wide": jnp.arange(64.0 * 128).reshape(64, 128) + value,
        "half": jnp.full((3, 5), value, jnp.bfloat16),
        "key": jax.random.key(value),
        "keys": jax.random.split(jax.random.key(value, impl="rbg"), 3),
    }


def main(folder: str) -> None:
    mesh = make_mesh(MeshConfig(fsdp=8))
    cut = jax.tree.map(jax.device_put, state(5), shardings(state(5), mesh))
    assert {shard.data.shape for shard in cut["wide"].addressable_shards} == {(64, 16)}
    with Checkpoints(Path(folder), keep=1) as checkpoints:
        checkpoints.save(5, cut, {"batches": 5})


if __name__ == "__main__":
    main(sys.argv[1])
