"""The next nearest words of every place, against a slow walk over all words in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import drawn
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.errors import InputError
from spae.nearest import CHUNK, nearest_few
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary

few = jax.jit(nearest_few, static_argnums=2)


def distances(z: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    z, codebook = z.astype(np.float64), codebook.astype(np.float64)
    return ((z[:, None] - codebook[None]) ** 2).sum(-1)


@pytest.mark.parametrize("words", [3, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
@pytest.mark.parametrize("count", [1, 3])
def test_the_few_nearest_are_those_of_the_full_search(words, count):
    rng = np.random.default_rng(words)
    z, codebook = rng.normal(size=(50, 7)).astype(np.float32), rng.normal(size=(words, 7)).astype(np.float32)
    ids = np.asarray(few(z, codebook, count))
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, distances(z, codebook).argsort(1)[:, :count])


@settings(max_examples=15)
@given(st.sampled_from([5, CHUNK, CHUNK + 3, 2 * CHUNK - 1]), st.integers(0, 2**32 - 1))
def test_of_equally_near_words_the_lower_id_comes_first(words, seed):
    # Whole numbers, so that equal distances are equal in float32 too; few values, so that ties abound.
    rng = np.random.default_rng(seed)
    z, codebook = rng.integers(-2, 3, (20, 3)), rng.integers(-2, 3, (words, 3))
    ids = np.asarray(few(z.astype(np.float32), codebook.astype(np.float32), 5))
    np.testing.assert_array_equal(ids, distances(z, codebook).argsort(1, kind="stable")[:, :5])


@pytest.mark.parametrize("count", [0, 4])
def test_a_count_that_the_codebook_does_not_have(count):
    with pytest.raises(ValueError, match="from 1 to the 3 words"):
        nearest_few(np.zeros((1, 2), np.float32), np.zeros((3, 2), np.float32), count)


def made(meaning_layers: int, quantizer: str) -> Tokenizer:
    config = AutoencoderConfig(
        image_size=8,
        pyramid=(1, 2, 4, 4),
        filters=4,
        multipliers=(1,),
        blocks=1,
        downsamplings=1,
        meaning_layers=meaning_layers,
        head_width=8,
        trunk="none",
        quantizer=quantizer,
    )
    embeddings = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    views = {"meaning": View.raw(), "appearance": View.whitened(embeddings, 4)}
    words = tuple(f"{a}{b}" for a in "abcde" for b in "klmnop")
    model = drawn(lambda rngs: Autoencoder(config, 4, 8, rngs=rngs))
    return Tokenizer(config, Vocabulary(words, np.arange(30), embeddings, views, {}), model)


def slow_ranking(tokenizer: Tokenizer, image: np.ndarray) -> list[np.ndarray]:
    """Per layer (*grid, V): all words of every place, nearest first, place by place as section 3.1 says."""
    config, shape = tokenizer.config, tokenizer.shape
    codebook = tokenizer.vocabulary.codebook("appearance").astype(np.float64)
    meanings = tokenizer.vocabulary.codebook("meaning")
    model = nnx.merge(tokenizer._graph, tokenizer._params)
    z_bhwc, meaning = nnx.jit(lambda m, x: m.encode(x, None, meanings))(
        model, jnp.asarray(image[None] / 255, jnp.float32)
    )
    z_hwc = np.asarray(z_bhwc[0], np.float64)
    before: dict[tuple[int, ...], list[int]] = {}
    ranking = []
    for layer, grid in enumerate(shape.layers, start=1):
        of_layer = []
        for n, place in enumerate(map(tuple, shape.positions(layer))):
            if layer <= config.meaning_layers:
                query, table = np.asarray(meaning.queries[layer - 1][0, n], np.float64), meanings
            else:
                z, words = z_hwc[place], before.get(place, [])
                query, table = z.copy(), codebook
                for word in words:
                    query += (z - codebook[word]) if config.quantizer == "saq" else -codebook[word]
            of_layer.append(distances(query[None], table)[0].argsort())
            before.setdefault(place, []).append(int(of_layer[-1][0]))
        ranking.append(np.array(of_layer).reshape(*grid, -1))
    return ranking


@pytest.mark.parametrize(("meaning_layers", "quantizer"), [(2, "saq"), (0, "saq"), (1, "rq")])
def test_rivals_are_the_next_nearest_words(meaning_layers, quantizer):
    tokenizer = made(meaning_layers, quantizer)
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    pyramid, rivals = tokenizer.rivals(image, 5)
    assert pyramid == tokenizer.encode(image)
    for ids, others, ranking in zip(pyramid.ids, rivals, slow_ranking(tokenizer, image), strict=True):
        assert others.dtype == np.int32
        np.testing.assert_array_equal(ids, ranking[..., 0])
        np.testing.assert_array_equal(others, ranking[..., 1:6])


def test_every_other_word_can_be_a_rival():
    tokenizer = made(2, "saq")
    image = np.zeros((5, 9, 3), np.uint8)
    pyramid, rivals = tokenizer.rivals(image, 29)
    for ids, others in zip(pyramid.ids, rivals, strict=True):
        everything = np.concatenate([ids[..., None], others], axis=-1)
        np.testing.assert_array_equal(
            np.sort(everything, axis=-1), np.broadcast_to(np.arange(30), everything.shape)
        )


@pytest.mark.parametrize("count", [0, -1, 30])
def test_counts_that_there_are_not(count):
    with pytest.raises(InputError, match="wanted 1 to 29 rivals of each word, got"):
        made(2, "saq").rivals(np.zeros((8, 8, 3), np.uint8), count)
