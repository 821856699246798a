"""The kernels, run as programs of XLA's, against the full matrix in float64; and lowered for accelerators."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spae import nearest as module
from spae.nearest import log_sum_exp, nearest
from spae.nearest_pallas import TILINGS
from spae.nearest_pallas import log_sum_exp as kernel_log_sum_exp
from spae.nearest_pallas import nearest as kernel_nearest

PLATFORMS = list(TILINGS)
# Of 3 components a TPU's products are in parts, of 69 of float32; a GPU takes them in one step and in three.
WIDTHS = [3, 69]
CALLS = {"tpu": "tpu_custom_call", "cuda": "xla.gpu.triton"}
TEMPERATURE = 3.0


@partial(jax.jit, static_argnums=2)
def search(z, codebook, platform):
    return kernel_nearest(z, codebook, platform, interpret=True)


@partial(jax.jit, static_argnums=2)
def log_sum(z, codebook, platform):
    return kernel_log_sum_exp(z, codebook, TEMPERATURE, platform, interpret=True)


def distances(z: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    z, codebook = z.astype(np.float64), codebook.astype(np.float64)
    return (z**2).sum(1)[:, None] - 2 * z @ codebook.T + (codebook**2).sum(1)


def drawn(platform: str, width: int, seed: int, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of two tiles of positions, and of three of words, the last of which are cut short."""
    tiling, rng = TILINGS[platform], np.random.default_rng(seed)
    sizes = (tiling.positions + 5, 2 * tiling.words + 7)
    draw = partial(rng.integers, -2, 3) if whole else rng.normal
    z, codebook = (draw(size=(n, width)).astype(np.float32) for n in sizes)
    return z, codebook


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("platform", PLATFORMS)
@settings(max_examples=6, deadline=None)
@given(st.booleans(), st.integers(0, 2**32 - 1))
def test_the_word_is_the_nearest_and_of_equals_the_first(platform, width, whole, seed):
    z, codebook = drawn(platform, width, seed, whole)
    if whole:
        z[:, 3:], codebook[:, 3:] = 0, 0  # so that there are equal words
    distance = distances(z, codebook)
    ids = np.asarray(search(z, codebook, platform))
    assert ids.dtype == np.int32
    if whole:
        np.testing.assert_array_equal(ids, distance.argmin(1))
    else:  # but for what float32 cannot tell apart
        np.testing.assert_allclose(distance[np.arange(len(z)), ids], distance.min(1), atol=1e-4)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_it_finds_what_the_loops_find(platform):
    z, codebook = drawn(platform, 3, 0, whole=False)
    np.testing.assert_array_equal(search(z, codebook, platform), jax.jit(nearest)(z, codebook))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_sums_of_exponentials(platform, width):
    z, codebook = drawn(platform, width, 1, whole=False)
    expected = np.log(np.exp(-distances(z, codebook) / TEMPERATURE).sum(1))
    np.testing.assert_allclose(log_sum(z, codebook, platform), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_one_word_and_no_vectors(platform):
    z, codebook = drawn(platform, 3, 2, whole=False)
    assert search(z[:1], codebook[:1], platform).tolist() == [0]
    assert search(z[:0], codebook, platform).shape == log_sum(z[:0], codebook, platform).shape == (0,)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_vectors_that_are_not_finite_find_a_word_all_the_same(platform, width):
    z, codebook = drawn(platform, width, 3, whole=False)
    expected = distances(z, codebook).argmin(1)
    z[3], z[4, 0], z[5, 1], z[6] = np.nan, np.inf, -np.inf, 3e38
    ids = np.asarray(search(z, codebook, platform))
    assert ids[3] == 0
    assert 0 <= ids.min() <= ids.max() < len(codebook)
    np.testing.assert_array_equal(ids[7:], expected[7:])  # and leave their neighbours alone


def lowered(function, n: int, v: int, c: int, platform: str) -> str:
    """The program for a platform that need not be there; what its compiler makes of the kernel is not looked at."""
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((n, c), (v, c))]
    # Another function each time, for whose trace `KERNELS` is read again.
    traced = jax.jit(lambda z, codebook: function(z, codebook)).trace(*shapes)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("sizes", [(1, 600, 5), (597, 14_293, 24), (19_104, 16_384, 1_536)])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_platform_that_was_measured_gets_its_kernel(platform, sizes, monkeypatch):
    monkeypatch.setattr(module, "KERNELS", frozenset(PLATFORMS))
    value = partial(log_sum_exp, temperature=TEMPERATURE)
    gradient = jax.grad(lambda z, e: jnp.sum(log_sum_exp(z, e, TEMPERATURE)))
    for function in (nearest, value, gradient):
        assert CALLS[platform] in lowered(function, *sizes, platform)
        assert "custom_call" not in lowered(function, *sizes, "cpu")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_one_that_was_not_keeps_the_loops(platform):
    assert CALLS[platform] not in lowered(nearest, 5, 7, 3, platform)
