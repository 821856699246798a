"""Transformer blocks and masked language models against PyTorch and transformers; folders that do not fit."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import drawn
from flax import nnx
from safetensors.numpy import load_file, save_file

from spae.errors import InputError
from spae.frozen_lm.build_vocabulary import build
from spae.frozen_lm.masked_lm import read_masked_lm
from spae.layers.transformer import Block
from spae.weights.state_dict import fill

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
FOLDERS = GOLDEN / "masked_lm"


encoded = nnx.jit(lambda encoder, *inputs: encoder(*inputs))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the tiny BERT, to be changed."""
    return Path(shutil.copytree(FOLDERS / "bert", tmp_path / "bert"))


def changed_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors")


@pytest.mark.parametrize("name", ["first", "last"])
def test_a_block_is_pytorch_s(name):
    golden = np.load(GOLDEN / "transformer.npz")
    block = drawn(lambda rngs: Block(16, 24, 4, norm_first=name == "first", rngs=rngs))
    for part in ("weight", "bias"):
        thirds = np.split(golden[f"{name}.self_attn.in_proj_{part}"], 3)
        linear = {
            "query": thirds[0],
            "key": thirds[1],
            "value": thirds[2],
            "out": golden[f"{name}.self_attn.out_proj.{part}"],
            "up": golden[f"{name}.linear1.{part}"],
            "down": golden[f"{name}.linear2.{part}"],
        }
        for layer, value in linear.items():
            module = getattr(block, layer)
            fill(module.kernel if part == "weight" else module.bias, value.T, layer)
        for norm in ("norm1", "norm2"):
            module = getattr(block, norm)
            fill(module.scale if part == "weight" else module.bias, golden[f"{name}.{norm}.{part}"], norm)
    found = encoded(block, golden[f"{name}.x"])
    np.testing.assert_allclose(found, golden[f"{name}.y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_states_logits_and_gradients_are_transformers(name):
    golden = np.load(FOLDERS / name / "golden.npz")
    model = read_masked_lm(FOLDERS / name)

    @jax.jit
    def results(vectors_btc):
        states_btc = model.encoder(vectors_btc)
        logits_btv = model.logits(states_btc)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits_btv), golden["targets"][..., None], -1)
        return -jnp.mean(picked), (states_btc, logits_btv)

    gradient, (states, logits) = jax.jit(jax.grad(results, has_aux=True))(golden["vectors"])
    np.testing.assert_allclose(states, golden["states"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradient, golden["gradient"], rtol=1e-3, atol=1e-6)


def test_states_of_a_grid_are_those_of_its_rows():
    model = read_masked_lm(FOLDERS / "bert")
    vectors = np.random.default_rng(0).normal(size=(2, 3, 4, 32)).astype(np.float32)
    flat = encoded(model.encoder, vectors.reshape(2, 12, 32))
    grid = nnx.jit(lambda encoder, vectors: encoder.grid(vectors))(model.encoder, vectors)
    np.testing.assert_array_equal(grid.reshape(2, 12, 32), flat)


def test_padding_is_not_looked_at():
    encoder = read_masked_lm(FOLDERS / "roberta").encoder
    vectors = np.random.default_rng(0).normal(size=(1, 6, 32)).astype(np.float32)
    mask = np.arange(6)[None] < 4
    short, long = encoded(encoder, vectors[:, :4]), encoded(encoder, vectors, mask)
    np.testing.assert_allclose(long[:, :4], short, atol=1e-5)
    assert not np.allclose(encoded(encoder, vectors)[:, :4], short, atol=1e-3)


def test_google_s_names_and_a_model_without_a_head(folder):
    whole = read_masked_lm(folder)

    def old_and_bare(tensors):
        kept = {k.removeprefix("bert."): v for k, v in tensors.items() if not k.startswith("cls.")}
        names = {k: k.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta") for k in kept}
        return {names[k]: v for k, v in kept.items()} | {
            "pooler.dense.weight": np.zeros((32, 32), np.float32),
            "pooler.dense.bias": np.zeros(32, np.float32),
        }

    changed_tensors(folder, old_and_bare)
    bare = read_masked_lm(folder)
    vectors = np.random.default_rng(0).normal(size=(1, 6, 32)).astype(np.float32)
    states = encoded(bare.encoder, vectors)
    np.testing.assert_array_equal(states, encoded(whole.encoder, vectors))
    with pytest.raises(InputError, match="no masked-LM head"):
        bare.logits(states)
    with pytest.raises(InputError, match="reads at most 40 words, got 41"):
        bare.encoder(np.zeros((1, 41, 32), np.float32))


def without(name):
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


def untied(tensors):
    table = tensors["bert.embeddings.word_embeddings.weight"]
    return tensors | {"cls.predictions.decoder.weight": table + 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("bert.encoder.layer.1.output.dense.bias"), r"layer\.1\.output\.dense\.bias.*missing"),
        (without("bert.embeddings.word_embeddings.weight"), "wanted embeddings.word_embeddings.weight"),
        (lambda tensors: tensors | {"more": np.zeros(3, np.float32)}, "1 tensors more"),
        (
            lambda tensors: tensors | {"cls.predictions.bias": np.zeros(3, np.float32)},
            r"expected shape \(99,\)",
        ),
        (lambda tensors: {k: v * np.float16("nan") for k, v in tensors.items()}, "NaN"),
        (untied, "output matrix of its own"),
    ],
)
def test_tensors_that_do_not_fit_are_an_error(folder, change, message):
    changed_tensors(folder, change)
    with pytest.raises(InputError, match=message):
        read_masked_lm(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "wanted one of bert, roberta"),
        ({"hidden_act": "relu"}, "hidden_act = 'relu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"num_attention_heads": 5}, "heads that divide the width"),
        ({"hidden_size": None}, "config.json lacks"),
    ],
)
def test_a_config_of_another_model_is_an_error(folder, change, message):
    settings = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=message):
        read_masked_lm(folder)


def test_missing_and_damaged_files_are_an_error(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_masked_lm(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="wanted a Hugging Face folder with config"):
        read_masked_lm(folder)
    shutil.copy(FOLDERS / "bert" / "config.json", folder)
    tokenizer = (folder / "tokenizer.json").read_text().replace("[MASK]", "[OTHER]")
    (folder / "tokenizer.json").write_text(tokenizer)
    with pytest.raises(InputError, match=r"has no \[MASK\] or <mask>"):
        read_masked_lm(folder)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_vocabulary_of_a_masked_model(name):
    model = read_masked_lm(FOLDERS / name)
    words = build(FOLDERS / name, min_zipf=None, view="raw")
    assert {"dog", "castle", "engine"} <= set(words.words)
    assert not {"MASK", "mask"} & set(words.words)
    table = np.asarray(model.table.embedding[...])
    np.testing.assert_array_equal(words.embeddings, table[words.token_ids])
    np.testing.assert_array_equal(words.codebook("appearance"), words.embeddings)
