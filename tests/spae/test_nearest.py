"""Exact search and log-sum-exp against the full matrix in float64, and their memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spae.nearest import BLOCK, CHUNK, TILE, _nearest_narrow, _nearest_wide, log_sum_exp, nearest

# As they are used: compiled. Called as they are, their loops would be compiled again at every call.
search, narrowly, widely = jax.jit(nearest), jax.jit(_nearest_narrow), jax.jit(_nearest_wide)


def distances(z: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    z, codebook = z.astype(np.float64), codebook.astype(np.float64)
    return ((z[:, None] - codebook[None]) ** 2).sum(-1)


@pytest.mark.parametrize("width", [7, 40])
@pytest.mark.parametrize("words", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_nearest_is_the_full_search(words, width):
    rng = np.random.default_rng(words)
    z, codebook = (rng.normal(size=(n, width)).astype(np.float32) for n in (50, words))
    ids = np.asarray(search(z, codebook))
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, distances(z, codebook).argmin(1))


@settings(max_examples=20)
@given(st.sampled_from([1, CHUNK - 1, CHUNK + 3, 2 * CHUNK]), st.integers(0, 2**32 - 1))
def test_ties_go_to_the_lowest_id(words, seed):
    # Whole numbers, so that equal distances are equal in float32 too; few values, so that ties abound.
    rng = np.random.default_rng(seed)
    z, codebook = rng.integers(-2, 3, (20, 40)), rng.integers(-2, 3, (words, 40))
    z[:, 3:], codebook[:, 3:] = 0, 0  # wide enough for the search among wide ones
    ids = np.asarray(search(z.astype(np.float32), codebook.astype(np.float32)))
    np.testing.assert_array_equal(ids, distances(z, codebook).argmin(1))


@settings(max_examples=30)
@given(
    st.sampled_from([(1, 3), (20, BLOCK - 1), (TILE, BLOCK), (TILE + 5, 3 * BLOCK + 7)]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_both_ways_to_search_find_the_same(sizes, whole, seed):
    """Fewer words than a block, rests of blocks and of tiles; equal words within a block and in two."""
    (n, v), rng = sizes, np.random.default_rng(seed)
    z = rng.integers(-2, 3, (n, 3)) if whole else rng.normal(size=(n, 3))
    codebook = rng.integers(-2, 3, (v, 3)) if whole else rng.normal(size=(v, 3))
    z, codebook = z.astype(np.float32), codebook.astype(np.float32)
    narrow, wide = narrowly(z, codebook), widely(z, codebook)
    np.testing.assert_array_equal(narrow, wide)
    np.testing.assert_array_equal(narrow, distances(z, codebook).argmin(1))
    assert narrow.dtype == wide.dtype == jnp.int32


@pytest.mark.parametrize("words", [BLOCK - 1, 3 * BLOCK + 7])
def test_vectors_that_are_not_finite_find_a_word_all_the_same(words):
    rng = np.random.default_rng(0)
    z, codebook = rng.normal(size=(20, 3)).astype(np.float32), rng.normal(size=(words, 3)).astype(np.float32)
    expected = distances(z, codebook).argmin(1)
    z[3], z[4, 0], z[5, 1], z[6] = np.nan, np.inf, -np.inf, 3e38
    for ids in map(np.asarray, (narrowly(z, codebook), widely(z, codebook))):
        assert ids[3] == 0
        assert 0 <= ids.min() <= ids.max() < words
        np.testing.assert_array_equal(ids[7:], expected[7:])  # and leave their neighbours alone


@pytest.mark.parametrize("width", [3, 40])
def test_no_vectors_find_nothing(width):
    assert nearest(np.zeros((0, width), np.float32), np.zeros((9, width), np.float32)).shape == (0,)


@pytest.mark.parametrize("words", [1, CHUNK, CHUNK + 5, 2 * CHUNK + 1])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 30.0])
def test_log_sum_exp_and_its_derivatives(words, temperature):
    rng = np.random.default_rng(words)
    z, codebook = rng.normal(size=(9, 5)).astype(np.float32), rng.normal(size=(words, 5)).astype(np.float32)
    weight = rng.normal(size=9).astype(np.float32)

    def full(z, codebook):
        return jax.nn.logsumexp(-jnp.sum((z[:, None] - codebook[None]) ** 2, -1) / temperature, axis=1)

    @jax.jit
    def both(z, codebook):
        found = []
        for function in (lambda *a: log_sum_exp(*a, temperature), full):
            value, pull = jax.vjp(function, z, codebook)
            found.append((value, pull(weight)))
        return found

    (value, ours), (expected, theirs) = both(z, codebook)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("function", ["nearest", "narrow", "narrow, many words", "log_sum_exp", "gradient"])
def test_the_matrix_is_never_held(function):
    sizes = {"narrow": (19_104, 16_384, 16), "narrow, many words": (597, 262_144, 16)}
    n, v, c = sizes.get(function, (597, 65_536, 512))
    run = {
        "nearest": nearest,
        "narrow": nearest,
        "narrow, many words": nearest,
        "log_sum_exp": lambda z, e: log_sum_exp(z, e, 1.0),
        "gradient": jax.grad(lambda z, e: log_sum_exp(z, e, 1.0).sum()),
    }[function]
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((n, c), (v, c))]
    memory = jax.jit(run).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 25e6 < n * v * 4


def test_widths_that_differ_are_an_error():
    with pytest.raises(ValueError, match="one width"):
        nearest(jnp.zeros((3, 4)), jnp.zeros((5, 6)))
    with pytest.raises(ValueError, match="at least one word"):
        nearest(jnp.zeros((3, 4)), jnp.zeros((0, 4)))
    with pytest.raises(ValueError, match="temperature"):
        log_sum_exp(jnp.zeros((3, 4)), jnp.zeros((5, 4)), 0.0)
