"""Inflation: a still clip is encoded, and decoded, at every time as the image was."""

import dataclasses

import jax
import numpy as np
import pytest
from drawn import drawn
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.errors import InputError
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary
from tokenizer_train.inflate import initial

WORDS = 40
IMAGES = AutoencoderConfig(
    image_size=16,
    pyramid=(1, 2, 4, 4),
    filters=8,
    multipliers=(1, 2),
    blocks=1,
    downsamplings=1,
    patch=2,
    skip=True,
    meaning_layers=2,
    head_width=8,
)
# Every layer has full time, so that every time of a still clip gets the words of the image.
CLIPS = dataclasses.replace(
    IMAGES, pyramid=((3, 1, 1), (3, 2, 2), (3, 4, 4), (3, 4, 4)), frames=6, temporal_downsamplings=1
)


def vocabulary(seed: int = 0) -> Vocabulary:
    embeddings = np.random.default_rng(seed).normal(size=(WORDS, 6)).astype(np.float32)
    views = {"meaning": View.centred(embeddings), "appearance": View.whitened(embeddings, 4)}
    words = tuple(a + b for a in "abcd" for b in "klmnopqrst")
    return Vocabulary(words, np.arange(WORDS), embeddings, views, {"model": "random"})


def model(config: AutoencoderConfig, seed: int) -> Autoencoder:
    """Random in every parameter: fresh ones have zero biases and unit scales, which would hide mistakes."""
    graph, state = nnx.split(drawn(lambda rngs: Autoencoder(config, 4, 6, rngs=rngs), seed))
    rng = np.random.default_rng(seed)
    return nnx.merge(graph, jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape).astype(x.dtype), state))


@nnx.jit
def called(module: nnx.Module, *inputs):
    """The module's output, compiled as a whole."""
    return module(*inputs)


@pytest.fixture(scope="module")
def image_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "images"
    Tokenizer(IMAGES, vocabulary(), model(IMAGES, 1)).save(folder)
    return folder


def inflated(folder, config: AutoencoderConfig) -> tuple[Tokenizer, Tokenizer]:
    graph, params = nnx.split(model(config, 2), nnx.Param)
    found, _ = initial(str(folder), config, vocabulary(), params)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    return Tokenizer.load(folder), Tokenizer(config, vocabulary(), nnx.merge(graph, found))


@pytest.fixture(scope="module")
def pair(image_bundle) -> tuple[Tokenizer, Tokenizer]:
    return inflated(image_bundle, CLIPS)


@settings(max_examples=5)
@given(st.integers(0, 2**32 - 1))
def test_a_still_clip_has_the_image_s_latents_and_words_and_decodes_as_the_image(pair, seed):
    images, clips = pair
    image = np.random.default_rng(seed).integers(0, 256, (2, 16, 16, 3), np.uint8)
    still = np.repeat(image[:, None], 6, axis=1)
    networks = [nnx.merge(t._graph, t.parameters) for t in pair]
    z, _ = called(networks[0].encoder, image / np.float32(255))
    z_clip, _ = called(networks[1].encoder, still / np.float32(255))
    assert z_clip.shape == (2, 3, 4, 4, 4)
    for time in range(3):
        np.testing.assert_allclose(z_clip[:, time], z, atol=1e-5)
    decoded = called(networks[0].decoder, z)
    decoded_clip = called(networks[1].decoder, np.repeat(z[:, None], 3, axis=1))
    for frame in range(6):
        np.testing.assert_allclose(decoded_clip[:, frame], decoded, atol=1e-5)

    words, words_clip = images.encode(image), clips.encode(still)
    for one, several in zip(words, words_clip, strict=True):
        for ids, ids_clip in zip(one.ids, several.ids, strict=True):
            np.testing.assert_array_equal(ids_clip, np.repeat(ids[None], 3, axis=0))
    back, back_clip = images.decode(words).astype(int), clips.decode(words_clip).astype(int)
    assert back_clip.shape == (2, 6, 16, 16, 3)
    # Half a level apart may round apart.
    assert np.abs(back_clip - back[:, None]).max() <= 1


def test_upper_layers_of_one_time_inflate_too(image_bundle):
    config = dataclasses.replace(CLIPS, pyramid=((1, 1, 1), (1, 2, 2), (3, 4, 4), (3, 4, 4)))
    images, clips = inflated(image_bundle, config)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    one, several = images.encode(image), clips.encode(np.repeat(image[None], 6, axis=0))
    for layer in range(2):
        np.testing.assert_array_equal(several.ids[layer][0], one.ids[layer])


def test_a_bundle_of_the_same_kind_is_taken_as_it_is(image_bundle):
    images, again = inflated(image_bundle, IMAGES)
    for a, b in zip(jax.tree.leaves(images.parameters), jax.tree.leaves(again.parameters), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_perceptron_that_the_bundle_lacks_adds_nothing_yet(tmp_path):
    linear = dataclasses.replace(IMAGES, codebook="mapped", latents=3)
    Tokenizer(linear, vocabulary(), model(linear, 1)).save(tmp_path)
    both = dataclasses.replace(linear, map_width=5)
    graph, params = nnx.split(Autoencoder(both, 4, 6, rngs=nnx.Rngs(0)), nnx.Param)
    begun = nnx.merge(graph, initial(str(tmp_path), both, vocabulary(), params)[0])
    view = vocabulary().codebook("appearance")
    np.testing.assert_array_equal(begun.codebook(view), model(linear, 1).codebook(view))
    # Nor is one that is there left out.
    Tokenizer(both, vocabulary(), model(both, 1)).save(tmp_path / "both")
    with pytest.raises(
        InputError, match=r"has parameters that this tokenizer lacks: perceptron\.layers\.0\.bias"
    ):
        initial(str(tmp_path / "both"), linear, vocabulary(), nnx.split(model(linear, 1), nnx.Param)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filters": 16}, "has shape"),
        ({"blocks": 2}, r"lacks decoder\.bottleneck\.1"),
        ({"skip": False}, r"has parameters that this tokenizer lacks: decoder\.skip"),
        ({"pyramid": ((3, 2, 2), (3, 1, 1), (3, 4, 4), (3, 4, 4))}, r"meaning\.position .* has shape"),
    ],
)
def test_another_network_is_refused(image_bundle, change, message):
    config = dataclasses.replace(CLIPS, **change)
    _, params = nnx.split(drawn(lambda rngs: Autoencoder(config, 4, 6, rngs=rngs)), nnx.Param)
    with pytest.raises(InputError, match=message):
        initial(str(image_bundle), config, vocabulary(), params)


def test_other_words_are_refused(image_bundle):
    _, params = nnx.split(drawn(lambda rngs: Autoencoder(CLIPS, 4, 6, rngs=rngs)), nnx.Param)
    with pytest.raises(InputError, match=r"the words of .* are not those of vocabulary\.path"):
        initial(str(image_bundle), CLIPS, vocabulary(seed=1), params)
