"""Both quantizers against a slow version that walks over positions one by one, and the facts of the reference."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spae.errors import InputError
from spae.pyramid import PyramidShape
from spae.quantize import Meaning, residual, streaming_average

SHAPE = PyramidShape((1, 2, 4, 8, 8))
PAPER = PyramidShape((1, 2, 4, 8, 16, 16))
VIDEO = PyramidShape(((1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 4, 4)))


@partial(jax.jit, static_argnums=(0, 3), static_argnames=("fill", "unit"))
def run(quantize, z, codebook, shape, meaning=None, **how):
    """A quantizer as it is used: compiled."""
    return quantize(z, codebook, shape, meaning, **how)


def slow(z, codebook, shape, mode, fill, meaning=None, unit=False):
    """One image (*grid, c), layer by layer, position by position, in float64."""
    z, codebook = z.astype(np.float64), codebook.astype(np.float64)
    words = {position: [] for position in np.ndindex(*shape.grid)}
    ids, averages = [], []
    for layer in range(1, len(shape) + 1):
        row = []
        for n, position in enumerate(map(tuple, shape.positions(layer))):
            earlier = [codebook[k] for k in words[position]]
            if meaning is not None and layer <= len(meaning[0]):
                table, query = meaning[1].astype(np.float64), meaning[0][layer - 1][n].astype(np.float64)
            elif mode == "saq":
                table, query = (
                    codebook,
                    z[position] + sum((z[position] - e for e in earlier), np.zeros(z.shape[-1])),
                )
            else:
                table, query = codebook, z[position] - sum(earlier, np.zeros(z.shape[-1]))
            if unit and table is codebook:
                query = query / np.linalg.norm(query)
                table = codebook / np.linalg.norm(codebook, axis=1, keepdims=True)
            k = int(((query - table) ** 2).sum(-1).argmin())
            words[position].append(k)
            row.append(k)
        ids.append(np.reshape(row, shape.layers[layer - 1]))
        covered = [p for p in words if words[p]]
        image = np.zeros(z.shape)
        for position in words:
            source = position
            if not words[position]:
                if fill == "zeros":
                    continue
                source = min(
                    covered, key=lambda p: sum((a - b) ** 2 for a, b in zip(p, position, strict=True))
                )
            chosen = np.stack([codebook[k] for k in words[source]])
            image[position] = chosen.mean(0) if mode == "saq" else chosen.sum(0)
        averages.append(image)
    return ids, averages


@pytest.mark.parametrize("fill", ["nearest", "zeros"])
@pytest.mark.parametrize("mode", ["saq", "rq"])
@pytest.mark.parametrize("shape", [SHAPE, VIDEO], ids=["image", "video"])
@pytest.mark.parametrize("views", [1, 2])
def test_against_the_slow_version(shape, mode, fill, views):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, *shape.grid, 6)).astype(np.float32)
    codebook = rng.normal(size=(40, 6)).astype(np.float32)
    meaning = None
    if views == 2:
        queries = [
            rng.normal(size=(2, len(shape.positions(layer)), 9)).astype(np.float32) for layer in (1, 2)
        ]
        meaning = Meaning(tuple(queries), rng.normal(size=(40, 9)).astype(np.float32))
    quantize = {"saq": streaming_average, "rq": residual}[mode]
    result = run(quantize, z, codebook, shape, meaning, fill=fill)
    for i in range(2):
        one = None if meaning is None else ([q[i] for q in meaning.queries], np.asarray(meaning.codebook_vd))
        ids, averages = slow(z[i], codebook, shape, mode, fill, one)
        for layer in range(len(shape)):
            np.testing.assert_array_equal(result.ids[layer][i], ids[layer])
            np.testing.assert_allclose(result.averages[layer][i], averages[layer], atol=1e-5)


@pytest.mark.parametrize("quantize", [streaming_average, residual])
def test_search_by_direction_against_the_slow_version(quantize):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(1, 4, 4, 6)).astype(np.float32)
    codebook = (rng.normal(size=(40, 6)) * rng.uniform(0.2, 2, (40, 1))).astype(np.float32)
    shape = PyramidShape((1, 4, 4))
    mode = "saq" if quantize is streaming_average else "rq"
    queries = rng.normal(size=(1, 1, 9)).astype(np.float32)
    meaning = Meaning((queries,), rng.normal(size=(40, 9)).astype(np.float32))
    result = run(quantize, z, codebook, shape, meaning, fill="nearest", unit=True)
    own = ([queries[0]], meaning.codebook_vd)
    ids, averages = slow(z[0], codebook, shape, mode, "nearest", own, unit=True)
    for layer in range(3):
        np.testing.assert_array_equal(result.ids[layer][0], ids[layer])
        np.testing.assert_allclose(result.averages[layer][0], averages[layer], atol=1e-5)
    assert not np.array_equal(ids[2], slow(z[0], codebook, shape, mode, "nearest", own)[0][2])


def test_the_queries_are_the_paper_s_sum():
    rng = np.random.default_rng(1)
    z, codebook = (
        rng.normal(size=(1, 16, 16, 4)).astype(np.float32),
        rng.normal(size=(99, 4)).astype(np.float32),
    )
    result = run(streaming_average, z, codebook, PAPER)
    row, column = PAPER.positions(6)[37]
    earlier = [
        codebook[int(result.ids[layer - 1].reshape(-1)[n])]
        for layer in range(1, 6)
        for n, position in enumerate(PAPER.positions(layer))
        if tuple(position) == (row, column)
    ]
    here = z[0, row, column]
    np.testing.assert_allclose(
        result.queries[5][0, 37], here + sum(here - e for e in earlier), rtol=1e-4, atol=1e-5
    )


def test_identity_a_word_that_is_exactly_z_l_makes_the_average_exactly_z():
    # Three words at the positions of layers 1-4: give the search the exact query of the second layer as a word.
    rng = np.random.default_rng(2)
    z = rng.normal(size=(1, 2, 2, 3)).astype(np.float32)
    shape = PyramidShape((2, 2))
    codebook = rng.normal(size=(10, 3)).astype(np.float32)
    first = run(streaming_average, z, codebook, shape)
    exact = np.concatenate([codebook, np.asarray(first.queries[1]).reshape(4, 3)])
    # The new words must not be chosen by layer 1 for the query to stay what it was.
    ids = [first.ids[0], jnp.arange(10, 14).reshape(1, 2, 2)]
    averages = streaming_average.prefix_averages(ids, jnp.asarray(exact), shape)
    np.testing.assert_allclose(averages[1], z, atol=1e-5)


def test_centring_and_scaling_change_no_id():
    rng = np.random.default_rng(3)
    z = rng.normal(size=(4, 16, 16, 8))
    codebook = rng.normal(size=(500, 8)) + 5
    plain = run(streaming_average, z.astype(np.float32), codebook.astype(np.float32), PAPER)
    shift, scale = codebook.mean(0), 0.37
    moved = run(
        streaming_average,
        ((z - shift) * scale).astype(np.float32),
        ((codebook - shift) * scale).astype(np.float32),
        PAPER,
    )
    for before, after in zip(plain.ids, moved.ids, strict=True):
        np.testing.assert_array_equal(before, after)


def test_layers_1_to_4_cover_85_positions_once_and_leave_three_searches():
    assert PAPER.waves == ((1, 2, 3, 4), (5,), (6,))
    assert PAPER.coverage(4).sum() == (PAPER.coverage(4) > 0).sum() == 85
    counts = np.bincount(PAPER.coverage(6).reshape(-1))
    assert counts[2] == 171
    assert counts[3] == 85


def test_gradients_reach_z_through_the_queries_only():
    rng = np.random.default_rng(4)
    z = jnp.asarray(rng.normal(size=(1, 8, 8, 4)), jnp.float32)
    codebook = jnp.asarray(rng.normal(size=(30, 4)), jnp.float32)
    averages = jax.grad(lambda z: jnp.sum(run(streaming_average, z, codebook, SHAPE).averages[-1]))(z)
    assert not np.any(averages)
    # The last layer's query is (m + 1) z - ..., with m the words before it.
    last = jax.grad(lambda z: jnp.sum(run(streaming_average, z, codebook, SHAPE).queries[-1]))(z)
    np.testing.assert_array_equal(last[0, :, :, 0], SHAPE.coverage(4) + 1)


def test_what_does_not_fit_is_an_error():
    z, codebook = jnp.zeros((1, 8, 8, 4)), jnp.zeros((5, 4))
    with pytest.raises(InputError, match="8, 8"):
        streaming_average(jnp.zeros((1, 4, 4, 4)), codebook, SHAPE)
    with pytest.raises(InputError, match="codebook"):
        streaming_average(z, jnp.zeros((5, 3)), SHAPE)
    with pytest.raises(InputError, match="fill"):
        streaming_average(z, codebook, SHAPE, fill="median")
    queries = (jnp.zeros((1, 1, 3)), jnp.zeros((1, 3, 3)))
    with pytest.raises(InputError, match="layer 2"):
        streaming_average(z, codebook, SHAPE, Meaning(queries, jnp.zeros((5, 3))))
    with pytest.raises(InputError, match="same words"):
        streaming_average(z, codebook, SHAPE, Meaning((jnp.zeros((1, 1, 3)),), jnp.zeros((6, 3))))
