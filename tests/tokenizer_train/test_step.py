"""What compares pictures with images in a step, by hand."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from spae.pyramid import PyramidShape
from tokenizer_train.step import _picture_losses


def compare(shape, length_b):
    """The losses of random pictures whose perceptual distance is their mean difference, and that of each."""
    rng = np.random.default_rng(0)
    images, decoded = rng.random((2, *shape)).astype(np.float32)
    config = SimpleNamespace(
        loss=SimpleNamespace(reconstruction=2.0, perceptual=0.5),
        tokenizer=SimpleNamespace(shape=PyramidShape((1, 2, 4, 4))),
    )
    modules = SimpleNamespace(perceptual=lambda _, a, b: jnp.abs(a - b).mean((1, 2, 3)), discriminator=None)
    constants = SimpleNamespace(perceptual=())
    total, metrics = _picture_losses(config, modules, None, constants, images, decoded, length_b)
    each = np.abs(images - decoded).reshape(len(images), -1).mean(1)
    np.testing.assert_allclose(metrics["reconstruction"], ((images - decoded) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(total, 2 * metrics["reconstruction"] + 0.5 * metrics["perceptual"], rtol=1e-5)
    return float(metrics["perceptual"]), each


@pytest.mark.parametrize("shape", [(4, 5, 5, 3), (4, 2, 5, 5, 3)], ids=["images", "clips"])
def test_pictures_with_places_without_a_word_have_no_part_in_the_perceptual_distance(shape):
    found, each = compare(shape, jnp.array([4, 2, 3, 1]))
    assert found == pytest.approx((each[0] + each[2]) / 4, rel=1e-5)
    found, each = compare(shape, None)
    assert found == pytest.approx(each.mean(), rel=1e-5)
