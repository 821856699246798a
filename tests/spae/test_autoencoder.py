"""The networks: the paper's size, the mirror of halvings and doublings, and patches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.cnn import depth_to_space, space_to_depth
from spae.errors import InputError


def parameters(module: nnx.Module) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def there_and_back(config: AutoencoderConfig):
    """Fresh networks on images: the latents, the queries of meaning and the images that come back. To be compiled, or
    looked at, as one function: operation by operation takes half a minute."""

    def run(images):
        model = Autoencoder(config, 5, 7, rngs=nnx.Rngs(0))
        z, meaning = model.encode(images, None, jnp.zeros((11, 7)))
        return z, meaning.queries, model.decoder(z)

    return run


def test_the_paper_s_size_has_the_paper_s_parameters():
    config = AutoencoderConfig(image_size=128, downsamplings=3)
    model = nnx.eval_shape(lambda: Autoencoder(config, 1536, 1536, rngs=nnx.Rngs(0)))
    assert round(parameters(model.encoder) / 1e6, 1) == 23.7
    assert round(parameters(model.decoder) / 1e6, 1) == 35.7
    assert model.meaning is None


@pytest.mark.parametrize(
    ("multipliers", "downsamplings", "patch"),
    [((1, 2, 2), 2, 1), ((1, 2), 2, 1), ((1, 2, 2), 1, 2), ((1,), 0, 4)],
)
def test_shapes_for_any_number_of_halvings(multipliers, downsamplings, patch):
    config = AutoencoderConfig(
        image_size=16,
        pyramid=(1, 2, 4),
        filters=8,
        multipliers=multipliers,
        blocks=1,
        downsamplings=downsamplings,
        patch=patch,
        meaning_layers=2,
        head_width=8,
    )
    z, queries, decoded = jax.eval_shape(there_and_back(config), jnp.ones((3, 16, 16, 3)))
    assert z.shape == (3, 4, 4, 5)
    assert [q.shape for q in queries] == [(3, 1, 7), (3, 4, 7)]
    assert decoded.shape == (3, 16, 16, 3)


def test_the_map_of_words_is_linear_and_a_perceptron():
    config = AutoencoderConfig(
        image_size=16, pyramid=(4,), network="linear", skip=True, downsamplings=0, patch=4, multipliers=(1,)
    )
    config = dataclasses.replace(config, codebook="mapped", latents=3, map_width=7)
    rng = np.random.default_rng(0)
    graph, state = nnx.split(Autoencoder(config, 5, 5, rngs=nnx.Rngs(0)))
    model = nnx.merge(graph, jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), state))
    view_vc = rng.normal(size=(11, 5)).astype(np.float32)
    scaled = view_vc.astype(np.float64) * 5**0.5
    hidden, _, output = model.perceptron.layers
    inner = np.maximum(scaled @ hidden.kernel[...] + hidden.bias[...], 0)
    wanted = scaled @ model.projection.kernel[...] + model.projection.bias[...]
    wanted += inner @ output.kernel[...] + output.bias[...]
    np.testing.assert_allclose(model.codebook(view_vc), wanted, rtol=1e-5, atol=1e-5)


def test_the_trunk_s_features_alone_decide_the_meaning_queries():
    config = AutoencoderConfig(
        image_size=16,
        pyramid=(1, 4),
        filters=8,
        multipliers=(1, 2),
        blocks=1,
        meaning_layers=1,
        head_width=8,
        trunk="conse",
    )

    @jax.jit
    def query(images):
        model = Autoencoder(config, 5, 7, 6, rngs=nnx.Rngs(0))
        features = jax.random.normal(jax.random.key(0), (2, 6))
        return model.encode(images, features, jnp.zeros((11, 7)))[1].queries[0]

    one, two = query(jnp.zeros((2, 16, 16, 3))), query(jnp.ones((2, 16, 16, 3)))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one[0], one[1])


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_patches_fold_and_unfold(patch, side, channels):
    x = np.random.default_rng(0).normal(size=(2, side * patch, side * patch, channels)).astype(np.float32)
    folded = space_to_depth(x, (patch, patch))
    assert folded.shape == (2, side, side, patch * patch * channels)
    np.testing.assert_array_equal(
        np.asarray(folded)[0, 0, 0].reshape(patch, patch, channels), x[0, :patch, :patch]
    )
    np.testing.assert_array_equal(depth_to_space(folded, (patch, patch)), x)


VIDEO = ((1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16), (4, 16, 16))


def test_the_paper_s_size_for_clips_has_the_paper_s_176_million_without_a_discriminator():
    config = AutoencoderConfig(
        image_size=128, downsamplings=3, frames=16, temporal_downsamplings=2, pyramid=VIDEO
    )
    model = nnx.eval_shape(lambda: Autoencoder(config, 1536, 1536, rngs=nnx.Rngs(0)))
    assert round(parameters(model.encoder) / 1e6, 1) == 69.1
    assert round(parameters(model.decoder) / 1e6, 1) == 106.8
    assert round(parameters(model) / 1e6) == 176
    # As in images, the four upper layers share no position: three searches.
    assert config.shape.waves == ((1, 2, 3, 4), (5,), (6,))
    assert config.shape.tokens() == 1 + 4 + 16 + 128 + 1024 + 1024


def tiny_clips(**changes) -> AutoencoderConfig:
    fields = {
        "image_size": 16,
        "pyramid": ((1, 1, 1), (1, 2, 2), (2, 4, 4)),
        "frames": 8,
        "filters": 8,
        "multipliers": (1, 2, 2),
        "blocks": 1,
        "downsamplings": 2,
        "temporal_downsamplings": 2,
        "meaning_layers": 2,
        "head_width": 8,
    }
    return AutoencoderConfig(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"skip": True},
        {"patch": 2, "downsamplings": 1, "temporal_downsamplings": 1, "frames": 4},
        {"temporal_downsamplings": 0, "frames": 2},
    ],
)
def test_shapes_of_clips(changes):
    config = tiny_clips(**changes)
    run = there_and_back(config)
    clips = np.random.default_rng(0).random((2, config.frames, 16, 16, 3), np.float32)
    z, queries, decoded = jax.eval_shape(run, clips)
    assert z.shape == (2, 2, 4, 4, 5)
    assert [q.shape for q in queries] == [(2, 1, 7), (2, 4, 7)]
    assert decoded.shape == clips.shape
    # Time matters: the order of the frames is seen.
    encode = jax.jit(lambda clips: run(clips)[0])
    forwards, backwards = encode(clips), encode(clips[:, ::-1])
    assert forwards.shape == z.shape
    assert not np.allclose(backwards[:, ::-1], forwards, atol=1e-4)


def test_patches_of_clips_fold_and_unfold():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 8, 3)).astype(np.float32)
    folded = np.asarray(space_to_depth(x, (2, 3, 4)))
    assert folded.shape == (2, 2, 2, 2, 72)
    np.testing.assert_array_equal(folded[1, 1, 0, 1].reshape(2, 3, 4, 3), x[1, 2:4, :3, 4:])
    np.testing.assert_array_equal(depth_to_space(folded, (2, 3, 4)), x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 6}, "last layer of the pyramid has 2"),
        ({"frames": 1}, "temporal_downsamplings"),
        ({"frames": 1, "temporal_downsamplings": 0}, "a side such as 16"),
        ({"temporal_downsamplings": 3}, "temporal_downsamplings"),
        ({"pyramid": (1, 2, 4)}, "triple"),
        ({"pyramid": ((1, 1, 1), (2, 4, 8))}, "last layer"),
    ],
)
def test_a_config_of_clips_that_does_not_fit_is_an_error(change, message):
    with pytest.raises(InputError, match=message):
        tiny_clips(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 65}, "last layer"),
        ({"downsamplings": 3}, "last layer"),
        ({"meaning_layers": 5}, "share no position"),
        ({"trunk": "conse"}, "meaning_layers"),
        ({"image_size": 512, "downsamplings": 5}, "scales"),
    ],
)
def test_a_config_that_does_not_fit_is_an_error(change, message):
    with pytest.raises(InputError, match=message):
        AutoencoderConfig(**{"filters": 8, **change})


def test_pictures_of_words_apart_show_colours_alone():
    config = AutoencoderConfig(
        image_size=16,
        pyramid=(1, 2, 4),
        filters=8,
        multipliers=(1,),
        blocks=1,
        downsamplings=0,
        patch=4,
        meaning_layers=2,
        head_width=8,
        meaning_words="apart",
    )
    model = Autoencoder(config, 5, 7, rngs=nnx.Rngs(0))
    zhat = jax.random.normal(jax.random.key(0), (2, 4, 4, 5))
    whole = np.asarray(model.decoder(zhat))
    shown = np.asarray(model.decode(zhat, [], jnp.zeros((11, 7)), jnp.array([2, 3])))
    np.testing.assert_allclose(shown[1], whole[1], atol=1e-6)
    colours = np.zeros((4, 4, 3), np.float32)
    for row in range(4):
        for column in range(4):
            patch = whole[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            colours[row, column] = patch.reshape(16, 3).mean(axis=0)
    wanted = [
        Image.fromarray(colours[..., channel]).resize((16, 16), Image.Resampling.BILINEAR)
        for channel in range(3)
    ]
    np.testing.assert_allclose(shown[0], np.stack([np.asarray(one) for one in wanted], axis=-1), atol=1e-5)
