"""What compares pictures with images in a step, by hand."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spae.pyramid import PyramidShape
from tokenizer_train.config import OptimizerConfig
from tokenizer_train.state import transform
from tokenizer_train.step import _picture_losses


def compare(shape, length_b, pyramid=(1, 2, 4, 4), meaning_layers=1):
    """The losses of random pictures whose perceptual distance is their mean difference, and that of each."""
    rng = np.random.default_rng(0)
    images, decoded = rng.random((2, *shape)).astype(np.float32)
    config = SimpleNamespace(
        loss=SimpleNamespace(reconstruction=2.0, perceptual=0.5),
        tokenizer=SimpleNamespace(
            shape=PyramidShape(pyramid), meaning_layers=meaning_layers, apart=meaning_layers
        ),
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


@pytest.mark.parametrize(
    ("pyramid", "meaning_layers", "parts"),
    [
        ((1, 2, 4, 8, 8), 2, [4, 5]),  # four layers show a word at every place, three do not
        ((1, 2, 4, 4), 3, [4]),  # the third has one at every place, of meaning alone
        ((1, 4, 2, 4), 2, [4]),  # so has the second, which the third no longer shows
    ],
)
def test_which_pictures_have_a_part(pyramid, meaning_layers, parts):
    lengths = list(range(1, len(pyramid) + 1))
    found, each = compare((len(lengths), 5, 5, 3), jnp.array(lengths), pyramid, meaning_layers)
    assert found == pytest.approx(sum(each[one - 1] for one in parts) / len(lengths), rel=1e-5)


def test_clipping_is_of_the_gradients_alone_so_that_a_run_can_begin_with_it():
    plain = OptimizerConfig(learning_rate=0.1, warmup_steps=0, decay="constant", clip_norm=None)
    clipped = dataclasses.replace(plain, clip_norm=0.5)
    params, gradients = {"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, -4.0])}
    state = transform(plain).init(params)
    assert jax.tree.structure(state) == jax.tree.structure(transform(clipped).init(params))
    # The moments tell, where Adam's first step would not.
    _, after = transform(clipped).update(gradients, state, params)
    _, wanted = transform(plain).update({"a": gradients["a"] / 10}, state, params)  # of norm 5, to .5
    jax.tree.map(np.testing.assert_allclose, after, wanted)
