"""Perceptual distances: ResNet against PyTorch (golden/make_resnet.py), and what is refused."""

import importlib.util
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from spae.errors import InputError
from spae.metrics.stlpips import Stlpips
from tokenizer_train.config import LossConfig
from tokenizer_train.networks.perceptual import LogitDistance, load
from tokenizer_train.networks.resnet import ResNet, from_torch

GOLDEN = Path(__file__).parents[2] / "golden"
BLOCKS, WIDTH, CLASSES = (2, 1, 1, 1), 4, 10

called = nnx.jit(lambda network, *images: network(*images))


def images() -> tuple[np.ndarray, np.ndarray]:
    """Those of the golden values."""
    y, x = np.mgrid[:48, :64] / 48.0
    first = np.stack([0.5 + 0.5 * np.sin(9 * x), y, 0.5 + 0.5 * np.cos(20 * x * y)], -1)
    second = np.stack([0.5 + 0.4 * np.sin(9 * x + 1), 0.8 * y, 0.5 + 0.5 * np.cos(15 * x * y)], -1)
    return first[None].astype(np.float32), second[None].astype(np.float32)


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(GOLDEN / "resnet.safetensors")


def weights(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in tensors.items() if not name.startswith("golden.")}


def network(tensors: dict[str, np.ndarray]) -> ResNet:
    return from_torch(weights(tensors), BLOCKS, WIDTH, CLASSES)


def test_logits_are_pytorchs(tensors) -> None:
    logits = called(network(tensors), np.concatenate(images()))
    assert np.ptp(tensors["golden.logits"], axis=0).max() > 0.01  # the two images are told apart
    np.testing.assert_allclose(logits, tensors["golden.logits"], atol=1e-4)


def test_distance_is_pytorchs_and_can_be_descended(tensors) -> None:
    first, second = map(jnp.asarray, images())
    graph, params = nnx.split(LogitDistance(network(tensors)))

    @jax.jit
    def distance(second):
        return nnx.merge(graph, params)(first, second).sum()

    value, gradient = jax.value_and_grad(distance)(second)
    np.testing.assert_allclose(value, tensors["golden.distance"].sum(), rtol=1e-4)
    assert distance(first) == 0
    step = 1e-3 * float(value) / jnp.sum(gradient**2)
    assert float(distance(second - step * gradient)) == pytest.approx(0.999 * float(value), rel=2e-4)


def test_each_pair_has_its_own_distance(tensors) -> None:
    first, second = images()
    model = LogitDistance(network(tensors))
    distances = called(model, np.concatenate([first, first]), np.concatenate([first, second]))
    assert distances.shape == (2,)
    assert distances.dtype == jnp.float32
    assert distances[0] < 1e-6 * distances[1]
    with pytest.raises(InputError, match="of one shape"):
        model(jnp.asarray(first), jnp.asarray(first[0]))


def test_the_full_network_has_resnet50s_parameters() -> None:
    """He et al., table 1: 25,557,032 with two numbers for each of 26,560 norms, of which folding leaves one."""
    state = nnx.state(nnx.eval_shape(lambda: ResNet(rngs=nnx.Rngs(0))))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state)) == 25_557_032 - 26_560


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("layer2.0.downsample.1.running_var"), r"layer2\.0\.downsample\.1\.running_var"),
        (lambda t: t.update(extra=np.zeros(1, np.float32)), "'extra'"),
        (lambda t: t.update({"layer2.1.conv1.weight": np.zeros((8, 32, 1, 1), np.float32)}), "more"),
        (lambda t: t.update({"bn1.bias": np.zeros(5, np.float32)}), "as many channels in bn1"),
        (lambda t: t.update({"fc.weight": t["fc.weight"][:9]}), "expected shape"),
    ],
)
def test_other_weights_are_refused(tensors, change, message: str) -> None:
    change(tensors)
    with pytest.raises(InputError, match=message):
        network(tensors)


def test_half_precision_weights_are_read(tensors) -> None:
    half = {name: value.astype(np.float16) for name, value in tensors.items()}
    logits = called(network(half), np.concatenate(images()))
    np.testing.assert_allclose(logits, tensors["golden.logits"], atol=0.1)


def test_networks_by_name(tensors, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"loss\.perceptual_weights"):
        load("resnet50-logits")
    with pytest.raises(InputError, match="wanted stlpips-vgg"):
        load("vgg", None)
    with pytest.raises(InputError, match="expected a safetensors file"):
        load("resnet50-logits", str(tmp_path / "nothing.safetensors"))
    safetensors.numpy.save_file(weights(tensors), tmp_path / "small.safetensors")
    with pytest.raises(InputError, match="another model's weights"):
        load("resnet50-logits", str(tmp_path / "small.safetensors"))


@pytest.mark.skipif(
    importlib.util.find_spec("stlpips_pytorch") is None, reason="the package stlpips_pytorch is not installed"
)
def test_stlpips_by_name() -> None:
    model = load("stlpips-alex")
    assert isinstance(model, Stlpips)
    assert model.variant == "alex"


def test_a_config_with_logits_names_their_weights() -> None:
    with pytest.raises(InputError, match=r"loss\.perceptual_weights must be .*resnet50-logits"):
        LossConfig(perceptual_network="resnet50-logits")
    assert LossConfig(perceptual_network="resnet50-logits", perceptual_weights="x").perceptual_weights == "x"
