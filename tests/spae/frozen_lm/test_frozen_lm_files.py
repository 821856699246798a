"""Language models from GGUF files and Hugging Face folders; and those that are refused."""

import contextlib
import json
import shutil
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_frozen_lm import GOLDEN, TINY, random_ids

from spae import frozen_lm
from spae.errors import InputError
from spae.frozen_lm import config as configs
from spae.frozen_lm.gguf_file import read_gguf
from spae.frozen_lm.weights import read_model

# Ours -> GGUF's.
NAMES = {
    "attn_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "post_attn_norm": "post_attention_norm.weight",
    "ffn_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "post_ffn_norm": "post_ffw_norm.weight",
}


def llama_cpp_order(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries and keys as llama.cpp keeps them for Llama: rotated pairs side by side."""
    rows = []
    for head in np.split(weights, heads):
        half = len(head) // 2
        for i in range(half):
            rows += [head[i], head[i + half]]
    return np.stack(rows)


def write_gguf(name: str, path: Path, **changes) -> Path:
    """One of the tiny models as a GGUF file, its matrices in Q8_0."""
    files = read_model(GOLDEN / name)
    config = files.config
    writer = gguf.GGUFWriter(path, name)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.epsilon)
    writer.add_rope_freq_base(config.rope_base)
    if config.gemma:
        writer.add_key_length(config.head_size)
        writer.add_sliding_window(config.window)
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scaling.factor)
    write_tokenizer(writer, files.tokenizer, config.vocabulary)
    writer.add_add_bos_token(name == "gemma3")
    tops = {"embed": "token_embd.weight", "norm": "output_norm.weight", "head": "output.weight"}
    for ours, array in {**files.tensors, **changes}.items():
        part = ours.split(".")[-1]
        theirs = tops[ours] if ours in tops else f"blk.{ours.split('.')[1]}.{NAMES[part]}"
        if name == "llama" and part in "qk":
            array = llama_cpp_order(array, config.heads if part == "q" else config.kv_heads)
        if array.ndim == 1:
            writer.add_tensor(theirs, array)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(theirs, gguf.quantize(array, kind), raw_dtype=kind)
    if name == "llama":
        # How llama.cpp keeps the slowed rotations of Llama 3.1: what each frequency is divided by.
        slowed = frequencies(config)
        plain = config.rope_base ** (-np.arange(len(slowed)) / len(slowed))
        writer.add_tensor("rope_freqs.weight", (plain / slowed).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tokenizer(writer: gguf.GGUFWriter, tokenizer, vocabulary: int) -> None:
    """That of the tiny models."""
    words = [tokenizer.decode([i]) for i in range(vocabulary)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*words[:-2], "ab", "Ġ"])
    writer.add_token_types([3, 3, 3] + [1] * (vocabulary - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def frequencies(config) -> np.ndarray:
    from spae.frozen_lm.model import _frequencies

    return _frequencies(config, local=False)


def rounded_folder(name: str, folder: Path) -> Path:
    """The same model as a folder, its matrices rounded to what Q8_0 holds."""
    shutil.copytree(GOLDEN / name, folder)
    kind = gguf.GGMLQuantizationType.Q8_0
    for file in folder.glob("*.safetensors"):
        tensors = {}
        for key, array in load_file(file).items():
            array = array.astype(np.float32)
            tensors[key] = gguf.dequantize(gguf.quantize(array, kind), kind) if array.ndim == 2 else array
        save_file(tensors, file)
    return folder


@pytest.mark.parametrize("name", TINY)
def test_gguf_files_and_folders_are_the_same_model(name, tmp_path):
    folder = rounded_folder(name, tmp_path / "folder")
    if name == "gemma3":
        # GGUF files say nothing of these two, the same for all small Gemmas.
        settings = json.loads((folder / "config.json").read_text())
        settings["layer_types"] = ["sliding_attention"] * 3
        settings["query_pre_attn_scalar"] = 16
        (folder / "config.json").write_text(json.dumps(settings))
    one = frozen_lm.load(write_gguf(name, tmp_path / "model.gguf"))
    other = frozen_lm.load(folder)
    ids = random_ids(50)
    # Quantising rows moves nothing between them, so the order of rows does not matter to it.
    np.testing.assert_allclose(one.log_probs(ids), other.log_probs(ids), atol=1e-4)
    assert one.encode("xy")[:-2] == other.encode("xy")[:-2] == ([1] if name == "gemma3" else [])
    assert one.eos_ids == other.eos_ids == {2}
    assert one.name == "model"
    assert other.name == "folder"


def test_gguf_files_are_read_as_by_the_package_gguf(tmp_path):
    path = tmp_path / "values.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("a", 200)
    writer.add_int16("b", -5)
    writer.add_float32("c", 0.1)
    writer.add_bool("d", True)
    writer.add_string("e", "Über")
    writer.add_array("f", [1, -2, 3])
    writer.add_array("g", ["x", "", "ж"])
    writer.add_array("h", [0.5, 1.5])
    writer.add_uint64("i", 2**60)
    rng = np.random.default_rng(0)
    kinds = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "BF16", "F16", "F32"]
    for name in kinds:
        kind = gguf.GGMLQuantizationType[name]
        array = rng.standard_normal((3, 64), np.float32)
        writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    values = {key: field.contents() for key, field in theirs.fields.items()}
    assert ours.metadata == {key: value for key, value in values.items() if not key.startswith("GGUF.")}
    assert list(ours.tensors) == kinds
    for tensor in theirs.tensors:
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(ours.tensors[tensor.name].float32(), expected)

    whole = path.read_bytes()
    for at in rng.integers(0, len(whole) // 2, 200):
        spoilt = bytearray(whole)
        spoilt[at] ^= int(rng.integers(1, 256))
        path.write_bytes(spoilt)
        with contextlib.suppress(InputError):  # and nothing else
            read_gguf(path)


def test_gemmas_sixth_layers_see_everything():
    metadata = {
        "general.architecture": "gemma3",
        "gemma3.embedding_length": 640,
        "gemma3.block_count": 18,
        "gemma3.attention.head_count": 4,
        "gemma3.attention.head_count_kv": 1,
        "gemma3.attention.key_length": 256,
        "gemma3.attention.sliding_window": 512,
        "gemma3.feed_forward_length": 2048,
        "gemma3.context_length": 32768,
        "gemma3.attention.layer_norm_rms_epsilon": 1e-6,
        "gemma3.rope.freq_base": 1e6,
    }
    config = configs.from_gguf(metadata, vocabulary=262144, tied=True, rope_factors=())
    assert [i for i in range(18) if not config.slides(i)] == [5, 11, 17]
    assert config.attention_scale == 1 / 16
    assert (config.rope_base, config.rope_base_local, config.head_size) == (1e6, 1e4, 256)
    for heads in (0, [4, 4]):
        wrong = metadata | {"gemma3.attention.head_count": heads}
        with pytest.raises(InputError, match="one number from 1 each"):
            configs.from_gguf(wrong, vocabulary=262144, tied=True, rope_factors=())
    del metadata["gemma3.block_count"]
    with pytest.raises(InputError, match=r"no gemma3\.block_count"):
        configs.from_gguf(metadata, vocabulary=262144, tied=True, rope_factors=())


LLAMA = {
    "general.architecture": "llama",
    "llama.embedding_length": 64,
    "llama.block_count": 2,
    "llama.attention.head_count": 4,
    "llama.feed_forward_length": 128,
    "llama.context_length": 512,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


@pytest.mark.parametrize(
    ("more", "factor"),
    [
        ({}, None),
        ({"llama.rope.scaling.factor": 4.0}, 4.0),  # linear, where no type is given
        ({"llama.rope.scale_linear": 2.0}, 2.0),
        ({"llama.rope.scaling.factor": 4.0, "llama.rope.scale_linear": 2.0}, 4.0),
        ({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}, None),
    ],
)
def test_rotations_are_scaled_as_llama_cpp_reads_the_file(more, factor):
    scaling = configs.from_gguf(LLAMA | more, vocabulary=99, tied=True, rope_factors=()).rope_scaling
    assert (scaling.factor if scaling else None) == factor


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"llama.attention.head_count_kv": [4, 2]}, "one whole number from 1"),
        ({"llama.feed_forward_length": [1, 2]}, "one whole number from 1"),
        ({"llama.rope.dimension_count": 8}, "heads of 16 of which 8 are turned"),
        ({"llama.rope.scaling.factor": 0.0}, "above 0 to scale rotations by"),
    ],
)
def test_gguf_settings_that_are_not_known_are_refused(more, message):
    with pytest.raises(InputError, match=message):
        configs.from_gguf(LLAMA | more, vocabulary=99, tied=True, rope_factors=())


@pytest.mark.parametrize(
    "more",
    [
        {"rope_parameters": {"rope_type": "linear", "factor": None}},
        {"rope_parameters": "linear"},
        {"rope_parameters": {"factor": 2.0}},  # of which kind?
        {"rms_norm_eps": "1e-5"},
        {"num_attention_heads": 0, "head_dim": None},
        {"partial_rotary_factor": 0.5},
    ],
)
def test_settings_of_another_kind_are_one_line(more):
    settings = json.loads((GOLDEN / "llama" / "config.json").read_text())
    with pytest.raises(InputError):
        configs.from_hugging_face(settings | more)


def test_configs_of_older_transformers_are_read():
    """Version 4 wrote the rotations' settings in other places."""
    settings = json.loads((GOLDEN / "llama" / "config.json").read_text())
    new = configs.from_hugging_face(settings)
    rope = settings.pop("rope_parameters")
    settings |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    assert configs.from_hugging_face(settings) == new

    settings = json.loads((GOLDEN / "gemma3" / "config.json").read_text())
    new = configs.from_hugging_face(settings)
    settings |= {
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 3,
    }
    del settings["rope_parameters"], settings["layer_types"]
    assert configs.from_hugging_face(settings) == new


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"model_type": "mamba"}, "'mamba'"),
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"sliding_window": 4096}, "sliding window"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "'yarn'"),
        ("llama", {"rms_norm_eps": None, "num_hidden_layers": None}, "config.json"),
        ("llama", {"hidden_act": "relu"}, "hidden_act"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("llama", {"num_key_value_heads": 3}, "kv_heads to divide heads"),
        ("llama", {"num_hidden_layers": 1}, r"wanted blocks\.1\."),
        ("llama", {"num_hidden_layers": 3}, r"blocks\.2\..*found nothing"),
        ("llama", {"vocab_size": 97}, r"\(97, 32\).*\(96, 32\)"),
    ],
)
def test_models_that_are_not_known_are_refused(name, changes, message, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / name, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | changes))
    with pytest.raises(InputError, match=message):
        frozen_lm.load(folder)


def test_damaged_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no"):
        frozen_lm.load(tmp_path / "nothing")
    (tmp_path / "text.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(InputError, match="not a whole GGUF"):
        frozen_lm.load(tmp_path / "text.gguf")
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    alignment = head + struct.pack("<Q", 17) + b"general.alignment"
    nested = head + struct.pack("<Q", 1) + b"a" + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000
    for spoilt in (
        alignment + struct.pack("<II", 4, 0),
        alignment + struct.pack("<IQ", 8, 1) + b"x",
        nested,
    ):
        (tmp_path / "spoilt.gguf").write_bytes(spoilt + bytes(64))
        with pytest.raises(InputError, match="not a whole GGUF"):
            read_gguf(tmp_path / "spoilt.gguf")
    whole = write_gguf("qwen2", tmp_path / "whole.gguf").read_bytes()
    for part in (len(whole) // 20, len(whole) // 2, len(whole) - 64):
        (tmp_path / "cut.gguf").write_bytes(whole[:part])
        with pytest.raises(InputError, match="not a whole GGUF"):
            frozen_lm.load(tmp_path / "cut.gguf")
    nan = read_model(GOLDEN / "qwen2").tensors["norm"] * np.nan
    with pytest.raises(InputError, match="NaN"):
        frozen_lm.load(write_gguf("qwen2", tmp_path / "nan.gguf", norm=nan))

    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "llama", folder)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match="model-00002-of-00003"):
        frozen_lm.load(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(InputError, match="not an index"):
        frozen_lm.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        frozen_lm.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"wanted the file .*config\.json"):
        frozen_lm.load(folder)


def test_end_tokens_are_read_from_every_file_that_names_them(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "llama", folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    lm = frozen_lm.load(folder)
    assert lm.eos_ids == {2, 7}
    assert lm.chat_template == "{{ messages }}"
