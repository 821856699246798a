"""A language model's files as arrays under one set of names, whichever program wrote them.

Names: "embed" (v, d), "norm" (d), "head" (v, d) unless tied, and of each layer "blocks.<i>." + attn_norm, q, k,
v, o, ffn_norm, gate, up, down (out, in); with Qwen 2 q_bias, k_bias, v_bias; with Gemma 3 q_norm, k_norm,
post_attn_norm, post_ffn_norm. All float32 or, where a large file has them quantised, `Blocks`; with Hugging Face's
order of rotated features.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from spae.errors import InputError
from spae.frozen_lm import config as configs
from spae.frozen_lm.blocks import Blocks
from spae.frozen_lm.config import LMConfig
from spae.frozen_lm.gguf_file import GGUFTensor, read_gguf
from spae.frozen_lm.model_file import read_safetensors_tensor, safetensors_files, safetensors_shape
from spae.frozen_lm.tokenizer import HuggingFaceTokenizer
from spae.weights.hub import hub_hint

# Tokens that end a text or a turn, by the names models give them, besides those that the files name as such.
_ENDS = (
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<end_of_turn>",
)

_GGUF_NAMES = {"token_embd.weight": "embed", "output_norm.weight": "norm", "output.weight": "head"}
_GGUF_BLOCK = {
    "attn_norm.weight": "attn_norm",
    "attn_q.weight": "q",
    "attn_k.weight": "k",
    "attn_v.weight": "v",
    "attn_output.weight": "o",
    "attn_q.bias": "q_bias",
    "attn_k.bias": "k_bias",
    "attn_v.bias": "v_bias",
    "attn_q_norm.weight": "q_norm",
    "attn_k_norm.weight": "k_norm",
    "post_attention_norm.weight": "post_attn_norm",
    "ffn_norm.weight": "ffn_norm",
    "ffn_gate.weight": "gate",
    "ffn_up.weight": "up",
    "ffn_down.weight": "down",
    "post_ffw_norm.weight": "post_ffn_norm",
}
HF_NAMES = {"model.embed_tokens.weight": "embed", "model.norm.weight": "norm", "lm_head.weight": "head"}
HF_BLOCK = {
    "input_layernorm.weight": "attn_norm",
    "self_attn.q_proj.weight": "q",
    "self_attn.k_proj.weight": "k",
    "self_attn.v_proj.weight": "v",
    "self_attn.o_proj.weight": "o",
    "self_attn.q_proj.bias": "q_bias",
    "self_attn.k_proj.bias": "k_bias",
    "self_attn.v_proj.bias": "v_bias",
    "self_attn.q_norm.weight": "q_norm",
    "self_attn.k_norm.weight": "k_norm",
    "post_attention_layernorm.weight": "ffn_norm",
    "mlp.gate_proj.weight": "gate",
    "mlp.up_proj.weight": "up",
    "mlp.down_proj.weight": "down",
}
# Gemma 3 norms the outputs too, and names the norms anew.
_HF_GEMMA_BLOCK = HF_BLOCK | {
    "post_attention_layernorm.weight": "post_attn_norm",
    "pre_feedforward_layernorm.weight": "ffn_norm",
    "post_feedforward_layernorm.weight": "post_ffn_norm",
}
# A model that takes no more as float32 is widened when it is read: it is small beside everything else, and its short
# rows are quicker so (a token of SmolLM2-135M took 0.09 s of processor time instead of 0.15).
_WIDENED_BYTES = 1 << 30
# Tokens that chat templates may write by name.
_SPECIAL = ("bos", "eos", "unk", "pad")


Weights = Float[np.ndarray, "..."] | Blocks


class Tensors(Mapping[str, Weights]):
    """A model's tensors by name, each read from disk when it is asked for, so that no two need be in memory.

    `readers`: of each its shape, and what reads it.

    Raises:
        InputError: where one is asked for: it holds NaN or infinity.
    """

    def __init__(self, path: Path, readers: Mapping[str, tuple[tuple[int, ...], Callable[[], Weights]]]):
        self._path = path
        self._readers = readers

    def __getitem__(self, name: str) -> Weights:
        weights = self._readers[name][1]()
        if not (weights.is_finite() if isinstance(weights, Blocks) else np.isfinite(weights).all()):
            raise InputError(
                f"language model: {self._path}: {name} holds NaN or infinity; is the file damaged?"
            )
        return weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Without reading any."""
        return {name: shape for name, (shape, _) in self._readers.items()}


@dataclass(frozen=True)
class ModelFiles:
    """All that a `FrozenLM` is made of.

    lead: the tokens a text begins with (its BOS), often none; ends: ids that end a text; special_tokens: the texts of
    those that chat templates write by name ("bos_token", "eos_token", ..).
    """

    name: str
    config: LMConfig
    tensors: Tensors
    tokenizer: HuggingFaceTokenizer
    lead: tuple[int, ...]
    ends: frozenset[int]
    chat_template: str | None
    special_tokens: Mapping[str, str]


def read_model(path: Path) -> ModelFiles:
    """A .gguf file, or a Hugging Face folder (config.json, tokenizer.json, safetensors, sharded or not).

    The tensors stay on disk until they are asked for.

    Raises:
        InputError: missing, damaged, of an architecture that is not known, or with tensors missing, left over or of
            another shape than its config says.
    """
    check_there(path)
    files = _read_folder(path) if path.is_dir() else _read_gguf(path)
    _check(files, path)
    return files


def check_there(path: Path) -> None:
    """That there is a file or folder.

    Raises:
        InputError: there is none.
    """
    if not path.exists():
        raise InputError(
            f"language model: wanted default, a .gguf file or a Hugging Face folder; there is no {path}"
            f"{hub_hint(path)}"
        )


def _read_gguf(path: Path) -> ModelFiles:
    file = read_gguf(path)
    metadata, stored = file.metadata, dict(file.tensors)
    if "token_embd.weight" not in stored:
        raise InputError(f"language model: {path} has no token_embd.weight; wanted a language model")
    factors = stored.pop("rope_freqs.weight", None)
    config = configs.from_gguf(
        metadata,
        vocabulary=stored["token_embd.weight"].shape[0],
        tied="output.weight" not in stored,
        rope_factors=() if factors is None else tuple(factors.float32().tolist()),
    )
    size = 4 * sum(math.prod(tensor.shape) for tensor in stored.values())
    read = GGUFTensor.float32 if size <= _WIDENED_BYTES else GGUFTensor.weights
    readers: dict[str, tuple[tuple[int, ...], Callable[[], Weights]]] = {}
    for name, tensor in stored.items():
        ours = _rename(name, "blk.", _GGUF_NAMES, _GGUF_BLOCK, path)
        pairs = metadata["general.architecture"] == "llama" and ours.split(".")[-1] in ("q", "k")
        readers[ours] = (
            tensor.shape,
            partial(_halves_paired, read, tensor, config.head_size) if pairs else partial(read, tensor),
        )
    tokenizer = HuggingFaceTokenizer.from_gguf(metadata)
    starts = metadata.get("tokenizer.ggml.add_bos_token", metadata.get("tokenizer.ggml.model") == "llama")
    if starts and "tokenizer.ggml.bos_token_id" not in metadata:
        raise InputError(f"language model: {path} begins texts with a token, and does not say with which")
    named = [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    special = {f"{key}_token": metadata.get(f"tokenizer.ggml.{key}_token_id") for key in _SPECIAL}
    return ModelFiles(
        name=path.stem,
        config=config,
        tensors=Tensors(path, readers),
        tokenizer=tokenizer,
        lead=(metadata["tokenizer.ggml.bos_token_id"],) if starts else (),
        ends=_ends(tokenizer, [id_ for id_ in named if id_ is not None]),
        chat_template=metadata.get("tokenizer.chat_template"),
        special_tokens={
            name: metadata["tokenizer.ggml.tokens"][id_] for name, id_ in special.items() if id_ is not None
        },
    )


def _read_folder(folder: Path) -> ModelFiles:
    settings = _read_json(folder / "config.json")
    config = configs.from_hugging_face(settings)
    block = _HF_GEMMA_BLOCK if config.gemma else HF_BLOCK
    readers: dict[str, tuple[tuple[int, ...], Callable[[], Weights]]] = {}
    for name, file in safetensors_files(folder).items():
        if name.endswith("rotary_emb.inv_freq") or (config.tied and name == "lm_head.weight"):
            continue
        ours = _rename(name, "model.layers.", HF_NAMES, block, folder)
        # Gemma stores its norms' weights less one; GGUF files hold them whole.
        read = _one_more if config.gemma and ours.endswith("norm") else read_safetensors_tensor
        readers[ours] = safetensors_shape(file, name), partial(read, file, name)
    tokenizer = HuggingFaceTokenizer.from_file(folder / "tokenizer.json")
    more = folder / "generation_config.json"
    named = [settings.get("eos_token_id"), _read_json(more).get("eos_token_id") if more.is_file() else None]
    beside = folder / "tokenizer_config.json"
    written = _read_json(beside) if beside.is_file() else {}
    ids = [
        id_ for entry in named for id_ in (entry if isinstance(entry, list) else [entry]) if id_ is not None
    ]
    return ModelFiles(
        name=folder.resolve().name,
        config=config,
        tensors=Tensors(folder, readers),
        tokenizer=tokenizer,
        lead=tokenizer.lead(),
        ends=_ends(tokenizer, ids),
        chat_template=_chat_template(folder, written),
        special_tokens=_special_tokens(written),
    )


def _chat_template(folder: Path, written: Mapping[str, Any]) -> str | None:
    """Of its own file, or `written` in tokenizer_config.json: one, or several by name."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text("utf-8")
    template = written.get("chat_template")
    if isinstance(template, list):
        template = next((one["template"] for one in template if one.get("name") == "default"), None)
    return template


def _special_tokens(written: Mapping[str, Any]) -> dict[str, str]:
    """`written` in tokenizer_config.json: as texts, or as objects around them."""
    tokens = {name: written.get(name) for name in (f"{key}_token" for key in _SPECIAL)}
    texts = {name: one.get("content") if isinstance(one, dict) else one for name, one in tokens.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"language model: wanted the file {path}; there is none")
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"language model: {path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"language model: wanted a JSON object in {path}; got {type(value).__name__}")
    return value


def _rename(name: str, prefix: str, names: Mapping[str, str], block: Mapping[str, str], path: Path) -> str:
    if name in names:
        return names[name]
    layer, _, part = name.removeprefix(prefix).partition(".")
    if name.startswith(prefix) and layer.isdigit() and part in block:
        return f"blocks.{int(layer)}.{block[part]}"
    raise InputError(f"language model: {path} has a tensor {name} that this architecture does not know")


def _halves_paired(read: Callable[[GGUFTensor], Weights], tensor: GGUFTensor, head_size: int) -> Weights:
    """Undoes llama.cpp's order of rotated features, 0 h 1 h+1 .. for h = head_size / 2: pairs lie side by side."""
    weights = read(tensor)
    rows = np.arange(tensor.shape[0]).reshape(-1, head_size // 2, 2).swapaxes(1, 2).reshape(-1)
    return weights.rows(rows) if isinstance(weights, Blocks) else weights[rows]


def _one_more(file: Path, name: str) -> Float[np.ndarray, "..."]:
    return read_safetensors_tensor(file, name) + 1


def _ends(tokenizer: HuggingFaceTokenizer, named: Sequence[Any]) -> frozenset[int]:
    if other := [id_ for id_ in named if not isinstance(id_, int)]:
        raise InputError(
            f"language model: wanted the ids of tokens that end a text as numbers; got {other[0]!r}"
        )
    known = (tokenizer.token_id(text) for text in _ENDS)
    return frozenset(named) | {id_ for id_ in known if id_ is not None}


def tensor_shapes(config: LMConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a model."""
    table, width, hidden = (config.vocabulary, config.width), config.width, config.hidden
    queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
    block: dict[str, tuple[int, ...]] = {
        "attn_norm": (width,),
        "q": (queries, width),
        "k": (keys, width),
        "v": (keys, width),
        "o": (width, queries),
        "ffn_norm": (width,),
        "gate": (hidden, width),
        "up": (hidden, width),
        "down": (width, hidden),
    }
    if config.biases:
        block |= {"q_bias": (queries,), "k_bias": (keys,), "v_bias": (keys,)}
    if config.gemma:
        block |= {name: (config.head_size,) for name in ("q_norm", "k_norm")}
        block |= {name: (width,) for name in ("post_attn_norm", "post_ffn_norm")}
    shapes = {"embed": table, "norm": (width,)} | ({} if config.tied else {"head": table})
    return shapes | {
        f"blocks.{i}.{name}": shape for i in range(config.layers) for name, shape in block.items()
    }


def _check(files: ModelFiles, path: Path) -> None:
    wanted, found = tensor_shapes(files.config), files.tensors.shapes()
    for name in sorted(wanted.keys() | found.keys()):
        if found.get(name) != wanted.get(name):
            raise InputError(
                f"language model: {path}: wanted {name} of shape {wanted.get(name, 'none')}; found "
                f"{found.get(name, 'nothing')}: are all of the model's files there, and of the same model?"
            )
    bad = [id_ for id_ in (*files.lead, *files.ends) if not 0 <= id_ < files.config.vocabulary]
    if bad or files.tokenizer.size > files.config.vocabulary:
        raise InputError(
            f"language model: {path}: its tokenizer has ids beyond the {files.config.vocabulary} rows of its "
            "table; copy the tokenizer that belongs to the weights"
        )
