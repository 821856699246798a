"""Masked language models of the BERT family in JAX: vectors in, states and logits out, gradients through them.

BERT (Devlin et al., arXiv 1810.04805) and RoBERTa (Liu et al., arXiv 1907.11692), from a Hugging Face folder.
`BertEncoder` is what LQAE (Liu et al., arXiv 2302.00902) puts between words and decoder; the word table and the
head serve its masked-LM loss.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from spae.errors import InputError
from spae.frozen_lm.model_file import read_safetensors_tensor, safetensors_files
from spae.frozen_lm.tokenizer import HuggingFaceTokenizer
from spae.layers.transformer import Block
from spae.weights.state_dict import StateDict, hollow

# RoBERTa's padding and its successors take the first positions of the table.
_OFFSET = {"bert": False, "roberta": True, "xlm-roberta": True, "camembert": True}
_TABLE = "embeddings.word_embeddings.weight"
_MASKS = ("[MASK]", "<mask>")
_HEADS = {  # head tensors by family of names: transform, its norm, bias, tied table
    "bert": (
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
        "cls.predictions.decoder",
    ),
    "roberta": ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder"),
}


@dataclass(frozen=True, kw_only=True)
class BertSizes:
    """A BERT encoder; all but `epsilon` are numbers of scalars, layers or positions."""

    width: int
    inner: int  # of the perceptrons
    layers: int
    heads: int
    positions: int  # rows of the position table
    segments: int  # rows of the token-type table; only the first is used
    first: int  # row of the position table that the first vector gets: 0, or 2 for RoBERTa
    epsilon: float  # of the layer norms

    def __post_init__(self) -> None:
        sizes = (self.width, self.inner, self.layers, self.heads, self.positions, self.segments)
        if min(sizes) < 1 or self.width % self.heads or not 0 <= self.first < self.positions:
            raise InputError(
                f"masked language model: wanted sizes from 1 and heads that divide the width, got {self}"
            )

    @property
    def longest(self) -> int:
        """Vectors that a sequence may have."""
        return self.positions - self.first


class BertEncoder(nnx.Module):
    """Word vectors to states: position and segment vectors, then blocks with layer norms after the sums."""

    def __init__(self, sizes: BertSizes, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.sizes = sizes
        self.positions = nnx.Embed(sizes.positions, sizes.width, dtype=dtype, rngs=rngs)
        self.segments = nnx.Embed(sizes.segments, sizes.width, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(sizes.width, epsilon=sizes.epsilon, dtype=dtype, rngs=rngs)
        self.layers = nnx.List(
            [
                Block(
                    sizes.width,
                    sizes.inner,
                    sizes.heads,
                    norm_first=False,
                    epsilon=sizes.epsilon,
                    dtype=dtype,
                    rngs=rngs,
                )
                for _ in range(sizes.layers)
            ]
        )

    def __call__(
        self, vectors_btc: Float[Array, "b t c"], mask_bt: Bool[Array, "b t"] | None = None
    ) -> Float[Array, "b t c"]:
        """Rows of the word table, or anything between them, to the last hidden states, float32.

        Args:
            vectors_btc: (B, T, c) float, T at most `sizes.longest`; no token is added in front or behind.
            mask_bt: False where padded, at least one True per row; None: nothing is.
        """
        length = vectors_btc.shape[1]
        if length > self.sizes.longest:
            raise InputError(
                f"the masked language model reads at most {self.sizes.longest} words, got {length}: "
                "take a smaller grid"
            )
        position = self.sizes.first + jnp.arange(length)
        x = vectors_btc + self.positions(position)[None] + self.segments(jnp.zeros((1, length), jnp.int32))
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, mask_bt)
        return x.astype(jnp.float32)

    def grid(self, vectors_bhwc: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The states of a grid of word vectors, read row by row."""
        b, h, w, c = vectors_bhwc.shape
        return self(vectors_bhwc.reshape(b, h * w, c)).reshape(b, h, w, c)


class Head(nnx.Module):
    """States to logits over the word table, which is the output matrix too."""

    def __init__(self, vocabulary: int, sizes: BertSizes, *, rngs: nnx.Rngs):
        self.transform = nnx.Linear(sizes.width, sizes.width, rngs=rngs)
        self.norm = nnx.LayerNorm(sizes.width, epsilon=sizes.epsilon, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(vocabulary))

    def __call__(self, states: Float[Array, "*n c"], table_vc: Float[Array, "v c"]) -> Float[Array, "*n v"]:
        x = self.norm(jax.nn.gelu(self.transform(states), approximate=False))
        return x @ table_vc.T + self.bias[...]


class MaskedLM(nnx.Module):
    """The whole model.

    Attributes:
        table: the word embeddings (V, c).
        encoder: word vectors to states.
        head: states to logits; None in models that ship none (sentence encoders).
        mask_id: token id of the mask; a row of `table`.
    """

    def __init__(
        self,
        vocabulary: int,
        sizes: BertSizes,
        mask_id: int,
        *,
        head: bool = True,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.mask_id = mask_id
        self.table = nnx.Embed(vocabulary, sizes.width, rngs=rngs)
        self.encoder = BertEncoder(sizes, dtype=dtype, rngs=rngs)
        self.head = Head(vocabulary, sizes, rngs=rngs) if head else None

    def logits(self, states: Float[Array, "*n c"]) -> Float[Array, "*n v"]:
        """float32 scores of every token; InputError where the model has no head."""
        if self.head is None:
            raise InputError(
                "this language model has no masked-LM head: set loss.masked_lm to 0, or take another"
            )
        return self.head(states, self.table.embedding[...])


def read_masked_lm(folder: str | Path, dtype=jnp.float32) -> MaskedLM:
    """A model of the BERT or RoBERTa family from config.json, tokenizer.json and safetensors (sharded or not).

    Args:
        folder: as Hugging Face's tools write it; with or without the masked-LM head.
        dtype: of the encoder's computation.

    Raises:
        InputError: a file is missing or damaged, the model is of another family, or does something that this one
            does not.
    """
    folder = Path(folder)
    settings = _settings(folder / "config.json")
    family = settings["model_type"]
    files = safetensors_files(folder)
    # Google's files call a layer norm's two vectors gamma and beta.
    renamed = {
        name: name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        for name in files
        if not name.endswith("position_ids")
    }
    tensors = {new: read_safetensors_tensor(files[name], name) for name, new in renamed.items()}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise InputError(f"masked language model: {folder}: {name} holds NaN or infinity; is it damaged?")
    prefix = next((prefix for prefix in ("", "bert.", "roberta.") if f"{prefix}{_TABLE}" in tensors), None)
    if prefix is None:
        raise InputError(
            f"masked language model: wanted {_TABLE} among the tensors in {folder}; there is none"
        )
    table_vc = tensors[f"{prefix}{_TABLE}"]
    state = StateDict(tensors, f"a {family} masked language model")
    head = next((names for names in _HEADS.values() if f"{names[0]}.weight" in tensors), None)
    sizes = _sizes(settings)
    mask_id = _mask_id(folder, len(table_vc))
    model = hollow(
        lambda rngs: MaskedLM(len(table_vc), sizes, mask_id, head=head is not None, dtype=dtype, rngs=rngs)
    )
    state.embedding(model.table, f"{prefix}embeddings.word_embeddings")
    fill_encoder(state, model.encoder, prefix)
    if head is not None and model.head is not None:
        transform, norm, bias, tied = head
        state.linear(model.head.transform, transform)
        state.norm(model.head.norm, norm)
        state.vector(model.head.bias, bias)
        if f"{tied}.weight" in state and not np.array_equal(state.take(f"{tied}.weight"), table_vc):
            raise InputError(
                f"masked language model: {folder} has an output matrix of its own; wanted one that is its word table"
            )
        state.ignore(f"{tied}.bias")
    # Of other tasks: the first token's summary, and next-sentence prediction.
    state.ignore(f"{prefix}pooler.dense.weight", f"{prefix}pooler.dense.bias")
    state.ignore("cls.seq_relationship.weight", "cls.seq_relationship.bias")
    state.finish()
    return model


def fill_encoder(state: StateDict, encoder: BertEncoder, prefix: str = "") -> None:
    """Takes an encoder's tensors, in Hugging Face's names behind `prefix`."""
    state.embedding(encoder.positions, f"{prefix}embeddings.position_embeddings")
    state.embedding(encoder.segments, f"{prefix}embeddings.token_type_embeddings")
    state.norm(encoder.norm, f"{prefix}embeddings.LayerNorm")
    for number, layer in enumerate(encoder.layers):
        name = f"{prefix}encoder.layer.{number}."
        state.linear(layer.query, f"{name}attention.self.query")
        state.linear(layer.key, f"{name}attention.self.key")
        state.linear(layer.value, f"{name}attention.self.value")
        state.linear(layer.out, f"{name}attention.output.dense")
        state.norm(layer.norm1, f"{name}attention.output.LayerNorm")
        state.linear(layer.up, f"{name}intermediate.dense")
        state.linear(layer.down, f"{name}output.dense")
        state.norm(layer.norm2, f"{name}output.LayerNorm")


def _settings(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(
            f"masked language model: wanted a Hugging Face folder with {file.name}; there is no {file}"
        )
    try:
        settings = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"masked language model: {file} is not JSON: {error}") from error
    family = settings.get("model_type") if isinstance(settings, dict) else None
    if family not in _OFFSET:
        raise InputError(f"masked language model: wanted one of {', '.join(_OFFSET)}; {file} says {family!r}")
    plain = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
    for key, wanted in plain.items():
        if settings.get(key, wanted) not in (wanted, None):
            raise InputError(
                f"masked language model: {key} = {settings[key]!r} in {file} is not known here; wanted {wanted!r}"
            )
    return settings


def _sizes(settings: dict[str, Any]) -> BertSizes:
    try:
        return BertSizes(
            width=settings["hidden_size"],
            inner=settings["intermediate_size"],
            layers=settings["num_hidden_layers"],
            heads=settings["num_attention_heads"],
            positions=settings["max_position_embeddings"],
            segments=settings["type_vocab_size"],
            first=settings["pad_token_id"] + 1 if _OFFSET[settings["model_type"]] else 0,
            epsilon=settings["layer_norm_eps"],
        )
    except (KeyError, TypeError) as error:
        raise InputError(
            f"masked language model: config.json lacks {error} or has another type there"
        ) from error


def _mask_id(folder: Path, vocabulary: int) -> int:
    tokenizer = HuggingFaceTokenizer.from_file(folder / "tokenizer.json")
    for name in _MASKS:
        token_id = tokenizer.token_id(name)
        if token_id is not None and token_id < vocabulary:
            return token_id
    raise InputError(
        f"masked language model: the tokenizer in {folder} has no {' or '.join(_MASKS)}; wanted a masked model's"
    )
