"""Codebooks that are trained, rankings of words, and cross-attention: networks and bundles, against slow NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import drawn
from flax import nnx

from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder, ranked
from spae.errors import InputError
from spae.guidance.conse import WIDTH, ConseImageTower
from spae.nearest import CHUNK
from spae.quantize import streaming_average
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary, code_vocabulary

SMALL = AutoencoderConfig(
    image_size=8, pyramid=(1, 2, 4), filters=4, multipliers=(1,), blocks=1, downsamplings=1
)
PHOTOGRAPH = np.random.default_rng(5).integers(0, 256, (8, 8, 3), np.uint8)


def autoencoder(width: int = 6, words: int = 20, **changes) -> Autoencoder:
    return Autoencoder(dataclasses.replace(SMALL, **changes), width, width, 0, words, rngs=nnx.Rngs(0))


@nnx.jit
def called(module: nnx.Module, *inputs):
    """The module's output, compiled as a whole."""
    return module(*inputs)


def unit_vocabulary(words: int, width: int) -> Vocabulary:
    """Words whose embeddings have length 1, as the text side of a guidance gives them."""
    rows = np.random.default_rng(1).normal(size=(words, width))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    views = {"meaning": View.raw(), "appearance": View.whitened(rows, 6)}
    names = tuple(a + b for a in "abcdefghij" for b in "klmnopqrst")[:words]
    return Vocabulary(names, np.arange(words), rows, views, {})


def trained(model: Autoencoder) -> Autoencoder:
    """The model with parameters that no initial value gives."""
    graph, state = nnx.split(model)
    rng = np.random.default_rng(2)
    return nnx.merge(
        graph, jax.tree.map(lambda x: x + rng.normal(scale=0.1, size=x.shape).astype(x.dtype), state)
    )


def test_a_frozen_codebook_is_the_view_itself():
    view = jax.random.normal(jax.random.key(0), (20, 6))
    model = autoencoder()
    assert model.codebook(view) is view
    assert not [
        path for path, _ in nnx.to_flat_state(nnx.state(model)) if "codes" in path or "projection" in path
    ]


def test_a_learned_codebook_begins_as_the_view_and_every_code_of_it_is_free():
    view = jax.random.normal(jax.random.key(0), (20, 6))
    model = autoencoder(codebook="learned")
    np.testing.assert_array_equal(model.codebook(view), view)
    gradient = nnx.grad(lambda m: jnp.sum(m.codebook(view)[3] ** 2) / 2)(model)
    wanted = np.zeros((20, 6))
    wanted[3] = view[3]
    np.testing.assert_allclose(gradient["codes"][...], wanted, rtol=1e-6)


def test_a_projected_codebook_is_a_linear_map_of_the_view():
    view = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    model = trained(autoencoder(codebook="projected"))
    kernel = np.asarray(model.projection.kernel[...], np.float64)
    wanted = view @ kernel + np.asarray(model.projection.bias[...], np.float64)
    np.testing.assert_allclose(model.codebook(view), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("codebook", ["learned", "projected"])
def test_a_tokenizer_searches_and_averages_what_its_model_says_and_so_does_its_bundle(codebook, tmp_path):
    vocabulary = code_vocabulary(20, 6)
    config = dataclasses.replace(SMALL, codebook=codebook)
    model = trained(autoencoder(codebook=codebook))
    table = np.asarray(model.codebook(jnp.asarray(vocabulary.embeddings)), np.float64)
    z = np.asarray(called(model.encoder, PHOTOGRAPH[None] / np.float32(255))[0][0], np.float64)
    tokenizer = Tokenizer(config, vocabulary, model)
    pyramid = tokenizer.encode(PHOTOGRAPH)
    # The top word stands alone at its place (2, 2), so it is the one nearest to z there.
    assert pyramid.ids[0].item() == ((z[2, 2] - table) ** 2).sum(1).argmin()
    averages = streaming_average.prefix_averages(
        [ids[None] for ids in pyramid.ids], jnp.asarray(table, jnp.float32), config.shape
    )
    wanted = called(model.decoder, averages[-1])[0]
    np.testing.assert_allclose(tokenizer.decode(pyramid), np.clip(wanted, 0, 1) * 255, atol=0.51)

    # Brought up to date, a tokenizer searches the new table.
    other = Tokenizer(config, vocabulary, autoencoder(codebook=codebook))
    other.replace(model)
    assert other.encode(PHOTOGRAPH) == pyramid
    assert other.fingerprint == tokenizer.fingerprint

    with pytest.raises(InputError, match="wanted the dtype float32 or float16, got 'int8'"):
        tokenizer.save(tmp_path / "bundle", dtype="int8")
    tokenizer.save(tmp_path / "bundle")
    loaded = Tokenizer.load(tmp_path / "bundle")
    assert loaded.encode(PHOTOGRAPH) == pyramid
    text = pyramid.text()
    assert text.startswith("code")
    assert loaded.parse(text).repairs == ()
    np.testing.assert_array_equal(loaded.decode(text), tokenizer.decode(pyramid))


def test_codes_are_the_same_everywhere_and_no_two_are_alike():
    codes = code_vocabulary(300, 5)
    np.testing.assert_array_equal(codes.embeddings, code_vocabulary(300, 5).embeddings)
    assert len(np.unique(codes.embeddings, axis=0)) == 300
    assert np.mean((codes.embeddings**2).sum(1)) == pytest.approx(1, abs=0.15)
    assert codes.words[17] == "code17"
    with pytest.raises(InputError, match="at least one code"):
        code_vocabulary(0, 5)


@pytest.mark.parametrize("words", [20, CHUNK + 3])
def test_a_ranking_holds_the_words_of_largest_cosine_best_first(words):
    rng = np.random.default_rng(words)
    table, features = rng.normal(size=(words, 7)), rng.normal(size=(3, 7))
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    found = ranked(jnp.asarray(features, jnp.float32), jnp.asarray(table, jnp.float32), (1, 4, 8))
    order = np.argsort(-(features @ table.T), axis=1)
    for ids, queries, (start, end) in zip(found.ids, found.queries, ((0, 1), (1, 5), (5, 13)), strict=True):
        np.testing.assert_array_equal(ids, order[:, start:end])
        np.testing.assert_allclose(queries, np.repeat(features[:, None], end - start, axis=1), rtol=1e-6)


@pytest.fixture(scope="module")
def ranking_tokenizer() -> Tokenizer:
    config = dataclasses.replace(
        SMALL, codebook="projected", meaning_layers=2, meaning="ranked", cross_attention=True, trunk="conse"
    )
    model = drawn(lambda rngs: Autoencoder(config, 6, WIDTH, WIDTH, 40, rngs=rngs), 3)
    trunk = drawn(lambda rngs: ConseImageTower(rngs=rngs), 4)
    return Tokenizer(config, unit_vocabulary(40, WIDTH), model, trunk)


def test_a_tokenizer_of_rankings(ranking_tokenizer, tmp_path):
    pyramid = ranking_tokenizer.encode(PHOTOGRAPH)
    feature = np.asarray(called(ranking_tokenizer.trunk, PHOTOGRAPH[None] / np.float32(255)))[0]
    order = np.argsort(-(ranking_tokenizer.vocabulary.embeddings @ feature))
    np.testing.assert_array_equal(np.concatenate([ids.ravel() for ids in pyramid.ids[:2]]), order[:5])

    again, rivals = ranking_tokenizer.rivals(PHOTOGRAPH, 3)
    assert again == pyramid
    np.testing.assert_array_equal(rivals[0][0, 0], order[1:4])
    np.testing.assert_array_equal(rivals[1].reshape(4, 3), [order[i : i + 3] for i in range(2, 6)])
    with pytest.raises(InputError, match="wanted 1 to 35 rivals"):
        ranking_tokenizer.rivals(PHOTOGRAPH, 36)

    ranking_tokenizer.save(tmp_path / "bundle")
    loaded = Tokenizer.load(tmp_path / "bundle")
    assert loaded.encode(PHOTOGRAPH) == pyramid
    for layers in (1, 2, 3):
        np.testing.assert_array_equal(
            loaded.decode(pyramid, layers), ranking_tokenizer.decode(pyramid, layers)
        )


def test_cross_attention_against_the_formula(ranking_tokenizer):
    """softmax(q k' / sqrt(width)) v over the words, one head, added to the input."""
    model = nnx.merge(ranking_tokenizer._graph, ranking_tokenizer._params)
    module = model.decoder.attention
    rng = np.random.default_rng(0)
    x, words = (rng.normal(size=size).astype(np.float32) for size in ((2, 4, 4, 4), (2, 5, WIDTH)))

    def linear(layer, value):
        kernel, bias = np.asarray(layer.kernel[...], np.float64), np.asarray(layer.bias[...], np.float64)
        return np.einsum("bni,io->bno", value, kernel.reshape(value.shape[-1], -1)) + bias.reshape(-1)

    attention = module.attention
    q = linear(attention.query, np.asarray(called(module.norm, x), np.float64).reshape(2, 16, 4))
    k, v = (linear(layer, np.asarray(words, np.float64)) for layer in (attention.key, attention.value))
    weight = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(4))
    weight /= weight.sum(-1, keepdims=True)
    mixed = weight @ v
    out = np.einsum("bnj,jo->bno", mixed, np.asarray(attention.out.kernel[...], np.float64).reshape(4, 4))
    wanted = np.asarray(x, np.float64) + (out + np.asarray(attention.out.bias[...])).reshape(2, 4, 4, 4)
    np.testing.assert_allclose(called(module, x, words), wanted, atol=1e-4)


def test_the_decoder_looks_at_the_words_and_at_no_others(ranking_tokenizer):
    model = nnx.merge(ranking_tokenizer._graph, ranking_tokenizer._params)
    meaning = jnp.asarray(ranking_tokenizer.vocabulary.codebook("meaning"))
    zhat = np.random.default_rng(0).normal(size=(1, 4, 4, 6)).astype(np.float32)
    decode = jax.jit(lambda *ids: model.decode(zhat, ids, meaning, 3))
    ids = [np.full((1, 1, 1), 3), np.arange(4).reshape(1, 2, 2), np.zeros((1, 4, 4), int)]
    one = decode(*ids)
    np.testing.assert_array_equal(one, decode(*ids[:2], ids[2] + 7))
    assert not np.allclose(one, decode(ids[0] + 7, *ids[1:]), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meaning": "ranked"}, "name a trunk"),
        ({"cross_attention": True}, "wanted at least 1, got 0"),
        ({"codebook": "learned", "meaning_layers": 1}, "wanted meaning_layers 0, got 1"),
        ({"codebook": "thawed"}, "codebook is one of frozen, learned, projected"),
        ({"meaning": "drawn"}, "meaning is one of head, ranked"),
    ],
)
def test_choices_that_do_not_fit(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SMALL, **change)


def test_features_of_another_space_cannot_rank_words():
    config = dataclasses.replace(SMALL, meaning_layers=1, meaning="ranked", trunk="conse")
    with pytest.raises(InputError, match="in one space"):
        Autoencoder(config, 6, 8, WIDTH, rngs=nnx.Rngs(0))
