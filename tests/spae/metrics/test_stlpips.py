"""The perceptual distance equals the authors' PyTorch package, and can be trained on."""

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spae.errors import InputError
from spae.metrics.stlpips import Stlpips, _blurred_half, _max_pool

GOLDEN_FOLDER = Path(__file__).resolve().parents[2] / "golden"
GOLDEN = json.loads((GOLDEN_FOLDER / "stlpips.json").read_text())

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("stlpips_pytorch") is None, reason="the package stlpips_pytorch is not installed"
)


def load_maker():
    spec = importlib.util.spec_from_file_location("make_stlpips", GOLDEN_FOLDER / "make_stlpips.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = load_maker()


@pytest.fixture(scope="module", params=["alex", "vgg"])
def metric(request):
    return Stlpips(request.param)


def compiled(metric: Stlpips):
    """(distances, gradient of their sum with respect to the first images), each compiled."""
    graph, state = nnx.split(metric)

    def distances(state, first, second):
        return nnx.merge(graph, state)(first, second)

    # The weights are an argument: what is closed over is compiled in, a hundred megabytes of constants.
    gradients = jax.grad(lambda *given: distances(*given).sum(), argnums=1)
    return partial(jax.jit(distances), state), partial(jax.jit(gradients), state)


@needs_weights
def test_distances_and_gradients_are_the_authors(metric):
    golden = GOLDEN[metric.variant]
    distances, gradients = compiled(metric)
    first, second = MAKER.pair(64, seed=64)
    # Beside the golden pair a black image, whose features are zero in places, and an equal pair.
    firsts = jnp.stack([first, jnp.zeros_like(first), second])
    seconds = jnp.stack([second, second, second])
    got = distances(firsts, seconds)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got[0], golden["distances"]["64"], rtol=2e-4)
    np.testing.assert_allclose(got[2], 0, atol=1e-7)
    np.testing.assert_allclose(got, distances(seconds, firsts), rtol=1e-4, atol=1e-7)

    gradient = gradients(firsts, seconds)
    assert jnp.isfinite(gradient).all()
    norm = golden["gradient_norm"]
    np.testing.assert_allclose(np.linalg.norm(gradient[0]), norm, rtol=2e-3)
    for pixel, expected in zip(MAKER.PIXELS, golden["gradient"], strict=True):
        np.testing.assert_allclose(gradient[0][pixel], expected, atol=2e-4 * norm)


@needs_weights
def test_larger_images(metric):
    first, second = MAKER.pair(128, seed=128)
    got = compiled(metric)[0](first[None], second[None])
    np.testing.assert_allclose(got, [GOLDEN[metric.variant]["distances"]["128"]], rtol=2e-4)


@needs_weights
def test_nothing_of_it_is_trained(metric):
    assert not jax.tree.leaves(nnx.state(metric, nnx.Param))


@needs_weights
def test_half_precision_is_close():
    first, second = MAKER.pair(64, seed=64)
    half = compiled(Stlpips("alex", dtype=jnp.bfloat16))[0](first[None], second[None])
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, GOLDEN["alex"]["distances"]["64"], rtol=0.05)


@needs_weights
def test_wrong_shapes():
    metric = Stlpips("alex")
    for first, second in [
        ((1, 64, 64, 3), (1, 64, 32, 3)),
        ((64, 64, 3), (64, 64, 3)),
        ((1, 16, 64, 3),) * 2,
    ]:
        with pytest.raises(InputError, match="two batches"):
            metric(jnp.zeros(first), jnp.zeros(second))


def test_unknown_variant():
    with pytest.raises(InputError, match="alex, vgg"):
        Stlpips("squeeze")


@pytest.mark.parametrize("side", [7, 8])
def test_pooling_against_loops(side):
    x = np.random.default_rng(0).normal(size=(1, side, side, 1)).astype(np.float32)
    padded = np.pad(x[0, :, :, 0], 2, mode="reflect")
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    starts = range(0, side + 2, 2)
    blurred = [[(padded[i : i + 3, j : j + 3] * kernel).sum() for j in starts] for i in starts]
    np.testing.assert_allclose(_blurred_half(x)[0, :, :, 0], blurred, atol=1e-6)
    largest = [[x[0, i : i + 3, j : j + 3].max() for j in range(side - 2)] for i in range(side - 2)]
    np.testing.assert_array_equal(_max_pool(x, 3)[0, :, :, 0], largest)
    assert "torch" not in sys.modules
