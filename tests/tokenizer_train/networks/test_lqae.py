"""LQAE on the same code path: the tiny run, a frozen model that stays frozen, masking, the masked-LM loss."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from flax import nnx

import spae
from spae import bundle
from spae.errors import BundleError, InputError
from spae.frozen_lm.build_vocabulary import build
from spae.frozen_lm.masked_lm import read_masked_lm
from spae.images import to_array
from spae.sources import open_source
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary
from tokenizer_train import losses
from tokenizer_train.config import Config, OptimizerConfig, VocabularyConfig
from tokenizer_train.config_file import load_config
from tokenizer_train.loop import train
from tokenizer_train.networks import language_model
from tokenizer_train.state import transform
from tokenizer_train.summaries import Summaries

ROOT = Path(__file__).resolve().parents[3]
ROBERTA = ROOT / "tests" / "golden" / "masked_lm" / "roberta"


@pytest.fixture(scope="module")
def words_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("roberta")
    build(ROBERTA, min_zipf=None, min_length=1, view="raw").save(folder)
    return folder


@pytest.fixture
def lqae(words_folder, image_folder, tmp_path, shared_steps) -> Config:
    tiny = load_config(ROOT / "configs" / "lqae256.py", "tiny")
    return dataclasses.replace(
        tiny,
        vocabulary=VocabularyConfig(path=str(words_folder)),
        data=dataclasses.replace(tiny.data, train=str(image_folder), validation=str(image_folder)),
        optimizer=dataclasses.replace(tiny.optimizer, steps=6, learning_rate=3e-3),
        run=dataclasses.replace(
            tiny.run, output=str(tmp_path / "run"), log_every=1, evaluate_every=6, precision="float32"
        ),
        language_model=str(ROBERTA),
    )


def test_a_tiny_run_and_its_bundle(lqae, image_folder, tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(
        Summaries,
        "scalars",
        lambda self, step, values, group: logged.append(values) if group == "train" else None,
    )
    folder = train(lqae)
    assert len(logged) == 6
    assert {"reconstruction", "commitment", "masked_lm", "words/1"} <= logged[0].keys()
    assert logged[-1]["reconstruction"] < logged[0]["reconstruction"]
    last = logged[-1]
    assert last["loss"] == pytest.approx(
        last["reconstruction"] + 0.01 * last["commitment"] + 1e-4 * last["masked_lm"], rel=1e-5
    )

    # The frozen model is in the bundle, and is bit for bit what it was.
    model = read_masked_lm(ROBERTA)
    info, files = bundle.read(folder)
    kept = {k: v for k, v in files["params.safetensors"].items() if k.startswith("language_model.")}
    frozen = dict(nnx.to_flat_state(nnx.state(model.encoder)))
    assert len(kept) == len(frozen)
    for path, variable in frozen.items():
        np.testing.assert_array_equal(kept["language_model." + ".".join(map(str, path))], variable[...])
    assert info["training"]["config"]["language_model"] == "roberta"

    # Nothing is masked when decoding: the decoder works from the states of the words themselves.
    tokenizer = spae.load(folder)
    image = to_array(open_source(image_folder)[0].image, 32)
    pyramid = tokenizer.encode(image)
    vectors = tokenizer.vocabulary.embeddings[pyramid.ids[0]][None]
    autoencoder = nnx.merge(tokenizer._graph, tokenizer._params)
    decode = nnx.jit(lambda decoder, encoder, vectors: decoder(encoder.grid(vectors)))
    decoded = np.asarray(decode(autoencoder.decoder, model.encoder, vectors))[0]
    wanted = np.clip(np.rint(decoded * 255), 0, 255)
    assert np.abs(tokenizer.decode(pyramid.text()).astype(float) - wanted).max() <= 1

    part = {k: v for k, v in files["params.safetensors"].items() if k != "language_model.norm.scale"}
    bundle.write(tmp_path / "part", info, {**files, "params.safetensors": part})
    with pytest.raises(BundleError, match=r"language_model\.norm\.scale"):
        Tokenizer.load(tmp_path / "part")
    with pytest.raises(InputError, match="wanted a language model"):
        Tokenizer(tokenizer.config, tokenizer.vocabulary, autoencoder)
    narrow = View.whitened(tokenizer.vocabulary.embeddings, 4)
    other = dataclasses.replace(tokenizer.vocabulary, views={"meaning": narrow, "appearance": narrow})
    with pytest.raises(InputError, match="reads 16 words of width 4, got one for 38 of width 32"):
        Tokenizer(tokenizer.config, other, autoencoder, language_model=model.encoder)


def test_a_run_goes_on_with_the_same_language_model_wherever_it_lies(lqae, tmp_path):
    done = dataclasses.replace(lqae, optimizer=dataclasses.replace(lqae.optimizer, steps=2))
    train(done)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(ROBERTA, elsewhere)
    train(dataclasses.replace(done, language_model=str(elsewhere)))
    # Its words are the same, one bias of its encoder is not.
    [file] = elsewhere.glob("*.safetensors")
    tensors = safetensors.numpy.load_file(file)
    [name, *_] = sorted(name for name in tensors if name.endswith("output.dense.bias"))
    safetensors.numpy.save_file({**tensors, name: tensors[name] + 1}, file)
    with pytest.raises(InputError, match="start or frozen networks"):
        train(dataclasses.replace(done, language_model=str(elsewhere)))


def test_the_masked_vectors_are_the_mask_s():
    model = read_masked_lm(ROBERTA)
    vectors = jnp.asarray(np.random.default_rng(0).normal(size=(64, 4, 4, 32)), jnp.float32)
    seen, masked = language_model.mask(model, vectors, 0.5, jax.random.key(0))
    # 1,024 draws: five standard deviations.
    assert abs(float(masked.mean()) - 0.5) < 5 * 0.5 / 1024**0.5
    assert not np.array_equal(masked[0], masked[1])
    mask_c = model.table.embedding[model.mask_id]
    np.testing.assert_array_equal(seen, np.where(masked[..., None], mask_c, vectors))
    untouched, none = language_model.mask(model, vectors, 0.0, jax.random.key(0))
    np.testing.assert_array_equal(untouched, vectors)
    assert not none.any()
    # A masked vector was not seen: nothing flows back to it.
    flows = jax.grad(lambda v: language_model.mask(model, v, 0.5, jax.random.key(0))[0].sum())(vectors)
    np.testing.assert_array_equal(flows, np.broadcast_to(~masked[..., None], flows.shape))


def test_the_masked_lm_loss_against_optax():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5, 11)).astype(np.float32) * 4
    tokens = rng.integers(0, 11, (3, 5))
    masked = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], bool)
    each = np.asarray(optax.softmax_cross_entropy_with_integer_labels(logits, tokens))
    wanted = (each[0][masked[0]].mean() + each[1, 4] + 0) / 3
    np.testing.assert_allclose(losses.masked_lm(logits, tokens, masked), wanted, rtol=1e-5)


def test_weight_decay_is_adamw_s():
    """One step by hand: Adam's first step has the size of the learning rate; the decay pulls by rate x decay x w."""
    config = OptimizerConfig(
        steps=10, learning_rate=0.1, betas=(0.9, 0.99), warmup_steps=0, decay="constant", weight_decay=0.5
    )
    adam, params = transform(config), jnp.array([2.0, -4.0])
    update, _ = adam.update(jnp.array([3.0, 1.0]), adam.init(params), params)
    np.testing.assert_allclose(update, [-0.1 - 0.1, -0.1 + 0.2], rtol=1e-5)


def test_what_does_not_fit_is_an_error(lqae, words_folder, tmp_path):
    words = Vocabulary.load(words_folder)
    for name, change, message in (
        ("tokenizer", {"language_model": "none"}, "language_model must be None where"),
        ("tokenizer", {"pyramid": (2, 4)}, "one word at every position"),
        ("tokenizer", {"codebook": "projected"}, 'wanted codebook "frozen"'),
        ("tokenizer", {"language_model": "causal"}, "one of none, masked"),
        ("loss", {"masking": 1.5}, "loss.masking"),
        ("loss", {"masked_lm": -1.0}, "loss.masked_lm"),
        ("optimizer", {"weight_decay": float("nan")}, "optimizer.weight_decay"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(lqae, **{name: dataclasses.replace(getattr(lqae, name), **change)})
    with pytest.raises(InputError, match="language_model must be a Hugging Face folder"):
        dataclasses.replace(lqae, language_model=None)
    centred = View.centred(words.embeddings)
    other = dataclasses.replace(words, views={"meaning": centred, "appearance": centred})
    with pytest.raises(InputError, match="are not rows of the word table"):
        language_model.load(lqae, other)
    assert language_model.load(lqae, words).head is not None
