"""Matrices in the blocks of quantised files, against the package gguf's values and plain products of them."""

import json
import shutil

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from test_frozen_lm import GOLDEN
from test_frozen_lm_files import NAMES, write_tokenizer

from spae import frozen_lm
from spae.frozen_lm import blocks as blocks_file
from spae.frozen_lm import config as configs
from spae.frozen_lm.blocks import BlockMatrix, Blocks
from spae.frozen_lm.gguf_blocks import FORMATS, read_blocks
from spae.frozen_lm.weights import HF_BLOCK, HF_NAMES, read_model, tensor_shapes

# Where the two halves (scale and offset) of a block's own scale lie, in bytes.
HALVES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


def random_rows(kind: str, rows: int, blocks: int, seed: int = 0) -> np.ndarray:
    """Rows of a format: any bytes are numbers, but the scales are small and finite."""
    rng = np.random.default_rng(seed)
    stored, size = FORMATS[kind][1:]
    data = rng.integers(0, 256, (rows * blocks, stored), np.uint8)
    for at in HALVES.get(kind, (0,)):
        scales = rng.uniform(0.5, 1, len(data)) / (2000 if size == 256 else 200)
        data[:, at : at + 2] = scales.astype("<f2")[:, None].view(np.uint8)
    return data.reshape(rows, -1)


@pytest.mark.parametrize("kind", FORMATS)
def test_weights_are_those_of_the_package_gguf(kind, monkeypatch):
    monkeypatch.setattr("spae.frozen_lm.gguf_blocks._AT_ONCE", 1000)  # several parts
    data = random_rows(kind, 5, 3)
    expected = gguf.dequantize(data, gguf.GGMLQuantizationType[kind])
    found = read_blocks(kind, data)
    assert found.q.dtype == np.int8
    assert found.shape == expected.shape
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(found.float32(), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(found.rows(np.array([4, 0])).float32(), found.float32()[[4, 0]])


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K"])  # with and without offsets
def test_products_by_tiles_are_those_of_the_whole_matrix(kind, monkeypatch):
    monkeypatch.setattr(blocks_file, "_TILE_WEIGHTS", 1)
    monkeypatch.setattr(blocks_file, "_TILE_ROWS", 4)  # 11 rows: the third tile overlaps
    stored = read_blocks(kind, random_rows(kind, 11, 2))
    weights, matrix = stored.float32(), BlockMatrix(stored)
    x = np.random.default_rng(1).standard_normal((2, 3, 512)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(matrix.matmul)(x), x @ weights.T, atol=2e-4)
    np.testing.assert_array_equal(matrix.rows(jnp.array([[10, 2]])).shape, (1, 2, 512))
    np.testing.assert_allclose(matrix.rows(jnp.array([10, 2])), weights[[10, 2]], rtol=1e-6, atol=1e-7)
    gradient = jax.grad(lambda x: (matrix.matmul(x) ** 2).sum())(x)
    np.testing.assert_allclose(gradient, 2 * (x @ weights.T) @ weights, rtol=1e-3, atol=1e-2)


def test_a_quantised_model_is_the_model_of_its_dequantised_weights(tmp_path, monkeypatch):
    """The kinds of a Q4_K_M file. The other model is dense, and checked against transformers (test_frozen_lm.py)."""
    folder = tmp_path / "dense"
    shutil.copytree(GOLDEN / "qwen2", folder)
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"hidden_size": 256, "intermediate_size": 512}
    (folder / "config.json").write_text(json.dumps(settings))
    tiny = read_model(GOLDEN / "qwen2")
    config = configs.from_hugging_face(settings)
    quantised = quantised_file(config, tiny.tokenizer, tmp_path / "model.gguf")
    top = {ours: theirs for theirs, ours in HF_NAMES.items()}
    block = {ours: theirs for theirs, ours in HF_BLOCK.items()}
    dense = {}
    for name, weights in read_model(quantised).tensors.items():
        part = name.split(".")[-1]
        theirs = top.get(name) or f"model.layers.{name.split('.')[1]}.{block[part]}"
        dense[theirs] = weights if isinstance(weights, np.ndarray) else weights.float32()
    save_file(dense, folder / "model.safetensors")

    ids = np.random.default_rng(0).integers(3, 96, 60).tolist()
    small = frozen_lm.load(quantised)  # float32, being small
    monkeypatch.setattr("spae.frozen_lm.weights._WIDENED_BYTES", 0)
    assert isinstance(read_model(quantised).tensors["blocks.0.up"], Blocks)
    one, other = frozen_lm.load(quantised), frozen_lm.load(folder)
    expected = other.log_probs(ids)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(one.log_probs(ids), expected, atol=1e-3)
    np.testing.assert_allclose(small.log_probs(ids), expected, atol=1e-4)


def quantised_file(config, tokenizer, path):
    """A random Qwen 2 model whose matrices have the formats of a Q4_K_M file."""
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.epsilon)
    writer.add_rope_freq_base(config.rope_base)
    write_tokenizer(writer, tokenizer, config.vocabulary)
    tops = {"embed": "token_embd.weight", "norm": "output_norm.weight"}
    kinds = ["Q4_K", "Q6_K", "Q5_0", "Q8_0"]
    rng = np.random.default_rng(0)
    for i, (name, shape) in enumerate(tensor_shapes(config).items()):
        part = name.split(".")[-1]
        theirs = tops[name] if name in tops else f"blk.{name.split('.')[1]}.{NAMES[part]}"
        if len(shape) == 1:
            writer.add_tensor(theirs, rng.uniform(0.5, 1.5, shape).astype(np.float32))
            continue
        kind = kinds[i % len(kinds)]
        data = random_rows(kind, shape[0], shape[1] // FORMATS[kind][2], seed=i)
        writer.add_tensor(theirs, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
