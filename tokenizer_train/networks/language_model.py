"""The frozen masked language model between words and decoder, in training (LQAE, arXiv 2302.00902)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from spae.errors import InputError
from spae.frozen_lm.masked_lm import MaskedLM, read_masked_lm
from spae.vocabulary import Vocabulary
from tokenizer_train.config import Config


def load(config: Config, vocabulary: Vocabulary) -> MaskedLM | None:
    """The model of `config.language_model`, computing in the run's precision; None if the tokenizer has none.

    Raises:
        InputError: its files do not fit; the vocabulary's appearance view is not its word table; it has no
            masked-LM head, but loss.masked_lm wants one.
    """
    if config.language_model is None:
        return None
    model = read_masked_lm(
        config.language_model, jnp.bfloat16 if config.run.precision == "bfloat16" else jnp.float32
    )
    table_vc, ids = np.asarray(model.table.embedding[...]), vocabulary.token_ids
    if ids.max() >= len(table_vc) or not np.array_equal(table_vc[ids], vocabulary.codebook("appearance")):
        raise InputError(
            f"the words of {config.vocabulary.path} are not rows of the word table of {config.language_model}: build "
            f"the vocabulary with spae vocab build --from {config.language_model} --view raw"
        )
    if config.loss.masked_lm > 0 and model.head is None:
        raise InputError(
            f"{config.language_model} has no masked-LM head: set loss.masked_lm to 0, or take another model"
        )
    return model


def mask(
    model: MaskedLM, vectors_bhwc: Float[Array, "b h w c"], share: float, key: Array
) -> tuple[Float[Array, "b h w c"], Bool[Array, "b h w"]]:
    """The vectors with a share of them, each drawn by itself, replaced by the mask's; and which ones."""
    masked_bhw = jax.random.bernoulli(key, share, vectors_bhwc.shape[:-1])
    mask_c = model.table.embedding[model.mask_id]
    return jnp.where(masked_bhw[..., None], mask_c, vectors_bhwc), masked_bhw
