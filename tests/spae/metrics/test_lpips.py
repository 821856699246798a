"""LPIPS against its authors' code (golden/make_lpips.py), and the files it is read from."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from spae.errors import InputError
from spae.metrics import lpips
from spae.metrics.lpips import Lpips

GOLDEN_FOLDER = Path(__file__).resolve().parents[2] / "golden"
GOLDEN = json.loads((GOLDEN_FOLDER / "lpips.json").read_text())


def load_maker(name: str):
    spec = importlib.util.spec_from_file_location(name, GOLDEN_FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = load_maker("make_lpips")
pair = load_maker("make_stlpips").pair

# The network is an argument: one that is closed over is compiled in, a hundred megabytes of constants.
compared = nnx.jit(lambda distance, first, second: distance(first, second))
directions = nnx.jit(lambda distance, images: distance.directions(images))
between = nnx.jit(lambda distance, first, second: distance.between(first, second))


@pytest.mark.parametrize("variant", ["alex", "vgg"])
def test_distances_are_the_authors(variant):
    distance = Lpips(variant, *MAKER.weights(variant))
    for size in (64, 97):
        first, second = pair(size, seed=size)
        # Beside the golden pair one of black, whose channel vectors may be zero, and an equal one.
        firsts = jnp.stack([first, jnp.zeros_like(first), second])
        seconds = jnp.stack([second, jnp.zeros_like(first), second])
        got = compared(distance, firsts, seconds)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got[0], GOLDEN[variant][str(size)], rtol=1e-5)
        np.testing.assert_allclose(got[1:], 0, atol=1e-6)


def test_directions_are_made_once_for_several_comparisons():
    distance = Lpips("alex", *MAKER.weights("alex"))
    original, other = (jnp.asarray(image)[None] for image in pair(64, seed=3))
    of_original = directions(distance, original)
    for x_bhwc in of_original:
        lengths = jnp.linalg.norm(x_bhwc, axis=-1)
        np.testing.assert_allclose(jnp.where(lengths > 0, lengths, 1), 1, rtol=1e-5)
    for image in (other, 1 - original, original):
        got = between(distance, of_original, directions(distance, image))
        np.testing.assert_allclose(got, compared(distance, original, image), rtol=1e-5, atol=1e-9)


def test_it_can_be_trained_with():
    distance = Lpips("alex", *MAKER.weights("alex"))
    assert not jax.tree.leaves(nnx.state(distance, nnx.Param))
    first, second = (jnp.asarray(image)[None] for image in pair(32, seed=1))
    graph, weights = nnx.split(distance)
    gradient = jax.jit(jax.grad(lambda x, weights: nnx.merge(graph, weights)(x, second).sum()))
    assert jnp.linalg.norm(gradient(first, weights)) > 0
    assert jnp.isfinite(gradient(second, weights)).all()


def test_files_are_found(tmp_path):
    network, heads = MAKER.weights("alex")
    classifier = {"classifier.1.weight": np.zeros((2, 2), np.float32)}
    safetensors.numpy.save_file(network | classifier, tmp_path / "alexnet-owt-7be5be79.safetensors")
    with pytest.raises(InputError, match=r"alex\.pth beside"):
        lpips.find(tmp_path)
    safetensors.numpy.save_file(heads, tmp_path / "alex.safetensors")
    (found,) = lpips.find(tmp_path)
    assert (found.variant, len(found.sha256())) == ("alex", 2)
    np.testing.assert_array_equal(found.load().heads[1][...], heads["lin1.model.1.weight"].ravel())
    with pytest.raises(InputError, match="vgg16-397923af"):
        lpips.find(tmp_path / "nowhere")


def test_other_weights_are_refused():
    network, heads = MAKER.weights("alex")
    with pytest.raises(InputError, match="alex, vgg"):
        Lpips("squeeze", network, heads)
    with pytest.raises(InputError, match=r"lin0|expected shape"):
        Lpips("vgg", network, heads)
    with pytest.raises(InputError, match=r"features\.8\.bias"):
        Lpips("alex", {name: x for name, x in network.items() if name != "features.8.bias"}, heads)
    with pytest.raises(InputError, match="1 tensors more"):
        Lpips("alex", network | {"extra": heads["lin0.model.1.weight"]}, heads)
