"""The Inception network against torch-fidelity's module over random weights (golden/make_inception.py)."""

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
from spae.metrics import inception
from spae.metrics.inception import IMAGE_SIZE, Inception

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def load_maker():
    spec = importlib.util.spec_from_file_location("make_inception", GOLDEN / "make_inception.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = load_maker()


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "inception.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def tensors(golden) -> dict[str, np.ndarray]:
    return MAKER.weights(json.loads(str(golden["shapes"])))


def test_features_and_logits_are_torch_fidelitys(tensors, golden):
    network, run = Inception(tensors), nnx.jit(lambda network, images: network(images))
    for number, pair in enumerate(MAKER.images()):
        features, logits = run(network, jnp.asarray(pair))
        assert features.dtype == logits.dtype == jnp.float32
        for ours, theirs in (
            (features[:, :: MAKER.FEATURE_STEP], golden[f"features{number}"]),
            (logits[:, :: MAKER.LOGIT_STEP], golden[f"logits{number}"]),
        ):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
            # The two images differ by far more than that.
            assert np.abs(theirs[0] - theirs[1]).mean() > 1e-2 * np.abs(theirs).max()


def test_enlarging_against_loops():
    small = np.random.default_rng(0).uniform(0, 255, (1, 3, 5, 3)).astype(np.float32)
    large = np.asarray(inception._enlarged(jnp.asarray(small)))
    assert large.shape == (1, IMAGE_SIZE, IMAGE_SIZE, 3)
    for row, column in [(0, 0), (298, 298), (150, 77), (100, 298), (1, 240)]:
        y, x = row * 3 / IMAGE_SIZE, column * 5 / IMAGE_SIZE
        top, left = int(y), int(x)
        below, right = min(top + 1, 2), min(left + 1, 4)
        a, b = y - top, x - left
        expected = (1 - a) * ((1 - b) * small[0, top, left] + b * small[0, top, right])
        expected += a * ((1 - b) * small[0, below, left] + b * small[0, below, right])
        np.testing.assert_allclose(large[0, row, column], expected, rtol=1e-4, atol=1e-3)


def test_wrong_images_and_weights(tensors, tmp_path):
    network = Inception(tensors)
    assert not jax.tree.leaves(nnx.state(network, nnx.Param))
    for images in (jnp.zeros((1, 64, 64, 3)), jnp.zeros((64, 64, 3), jnp.uint8)):
        with pytest.raises(InputError, match="uint8 images"):
            network(images)
    with pytest.raises(InputError, match=r"Mixed_7c\.branch_pool\.bn\.bias"):
        Inception({name: x for name, x in tensors.items() if name != "Mixed_7c.branch_pool.bn.bias"})
    with pytest.raises(InputError, match=r"shape \(1008, 2048\) for fc\.weight"):
        # torchvision's own Inception has 1,000 classes.
        Inception(tensors | {"fc.weight": tensors["fc.weight"][:1000]})
    with pytest.raises(InputError, match="more"):
        Inception(tensors | {"AuxLogits.fc.bias": np.zeros(1000)})
    file = tmp_path / "resnet.safetensors"
    safetensors.numpy.save_file({"conv1.weight": np.zeros(3)}, file)
    with pytest.raises(InputError, match="pt_inception-2015-12-05"):
        inception.load(file)
