"""Devices: what is cut and what is whole, batches over them, and a mesh that does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from spae.errors import InputError
from tokenizer_train.config import MeshConfig
from tokenizer_train.processes.mesh import (
    check_batch_size,
    local_rows,
    make_mesh,
    replicate,
    shardings,
    split,
    start,
    to_host,
)

needs_two = pytest.mark.skipif(len(jax.devices()) < 2, reason="needs two devices")


def test_batches_are_cut_along_the_devices() -> None:
    mesh = make_mesh(MeshConfig())
    rows = local_rows(2 * mesh.size, mesh)
    np.testing.assert_array_equal(rows, np.arange(2 * mesh.size))
    batch = split({"images": np.arange(2 * mesh.size)[:, None]}, mesh)
    assert len(batch["images"].sharding.device_set) == mesh.size
    assert {shard.data.shape for shard in batch["images"].addressable_shards} == {(2, 1)}
    np.testing.assert_array_equal(batch["images"][:, 0], rows)
    table = replicate(np.ones((5, 2), np.float32), mesh)
    # Under Explicit axes this gather raises; it is what every codebook lookup does.
    assert jax.jit(lambda t, i: t[i])(table, batch["images"][:, 0] % 5).shape == (2 * mesh.size, 2)


@needs_two
def test_a_state_is_cut_over_fsdp_alone() -> None:
    size = len(jax.devices())
    mesh = make_mesh(MeshConfig(fsdp=size))
    assert mesh.shape == {"data": 1, "fsdp": size}
    tree = {
        "wide": jnp.arange(64.0 * 32 * size).reshape(64, 32 * size),
        "first of equals": jnp.ones((32 * size, 32 * size)),
        "odd": jnp.ones((size + 1, 2_049)),
        "small": jnp.ones((size, 2)),
        "key": jax.random.key(0),
    }
    places = shardings(tree, mesh)
    assert places["wide"].spec == PartitionSpec(None, "fsdp")
    assert places["first of equals"].spec == PartitionSpec(None, "fsdp")
    for name in ("odd", "small", "key"):
        assert places[name].spec == PartitionSpec(), name
    cut = jax.device_put(tree["wide"], places["wide"])
    assert {shard.data.shape for shard in cut.addressable_shards} == {(64, 32)}
    np.testing.assert_array_equal(to_host(cut, mesh), tree["wide"])
    by_data = shardings(tree, make_mesh(MeshConfig()))
    assert {place.spec for place in jax.tree.leaves(by_data)} == {PartitionSpec()}


def test_what_does_not_fit_is_refused() -> None:
    size = len(jax.devices())
    with pytest.raises(InputError, match=rf"must be the {size} devices of the run, got 3 x {size}"):
        make_mesh(MeshConfig(data=3, fsdp=size))
    with pytest.raises(InputError, match="-1 x 7"):
        make_mesh(MeshConfig(fsdp=7))
    mesh = make_mesh(MeshConfig())
    check_batch_size(2 * mesh.size, mesh)
    if mesh.size > 1:
        with pytest.raises(InputError, match=rf"multiple of the {mesh.size} devices .* try {2 * mesh.size}"):
            check_batch_size(mesh.size + 1, mesh)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fsdp": 0}, r"wanted mesh\.fsdp of at least 1, got 0"),
        ({"data": 0}, r"mesh\.data must be at least 1, or -1"),
        ({"coordinator": "host"}, r"mesh\.coordinator must be HOST:PORT"),
        ({"coordinator": "host:80"}, r"mesh\.processes, mesh\.process must be a number"),
        ({"coordinator": "host:80", "processes": 2, "process": 2}, r"0 \.\. number - 1"),
        ({"processes": 2}, r"left out without a HOST:PORT"),
        ({"coordinator": "auto", "process": 0}, r"left out without a HOST:PORT"),
    ],
)
def test_bad_meshes_are_refused(fields, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MeshConfig(**fields)


def test_without_a_launcher_auto_is_refused(monkeypatch) -> None:
    def nothing_found(*arguments: object) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", nothing_found)
    with pytest.raises(InputError, match="does not join the processes of this run"):
        start(MeshConfig(coordinator="auto"))
    start(MeshConfig())
