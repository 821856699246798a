"""How well each word fits an image, and the candidate words of each layer.

SPAE (arXiv 2306.17842), semantic guidance: s'(I, k) = <f_I(I), mean over templates p of f_T(p(k))>, scaled
per image to [0, 1] over the vocabulary; the pool of layer l is C_l(I) = {k : s(I, k) >= rho_l}.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from spae.errors import InputError
from spae.guidance.protocol import Guidance


def word_features(guidance: Guidance, words: Sequence[str]) -> Float[np.ndarray, "v d"]:
    """The mean of the guidance's text vectors over its templates, one float32 row per word.

    With one template rows have unit length; means over several are shorter and, as in the paper, are left so.
    """
    if not words:
        raise InputError("expected at least one word, got none: load or build a vocabulary first")
    total_vd = np.zeros((len(words), guidance.width), np.float32)
    for template in guidance.templates:
        total_vd += np.asarray(guidance.texts([template.format(word) for word in words]))
    return total_vd / len(guidance.templates)


def word_means(
    image_features_nf: Float[np.ndarray, "n f"], word_features_vf: Float[np.ndarray, "v f"]
) -> Float[np.ndarray, " v"]:
    """Mean similarity of each word over a set of images: what the hub correction subtracts.

    Generic words are near every image; measured against their own mean they no longer win everywhere. The
    mean of inner products is the inner product with the mean, so the (n, v) table is never made.
    """
    # A sum of a million rows loses digits in float32.
    mean_f = np.asarray(image_features_nf).mean(axis=0, dtype=np.float64)
    return np.asarray(word_features_vf) @ mean_f.astype(np.float32)


def scores(
    image_features_bf: Float[Array, "b f"],
    word_features_vf: Float[Array, "v f"],
    word_means_v: Float[Array, " v"] | None = None,
) -> Float[Array, "b v"]:
    """s(I, k) in [0, 1]: each image's worst word is 0, its best is 1.

    Args:
        image_features_bf: rows of `Guidance.images`.
        word_features_vf: of `word_features`.
        word_means_v: of `word_means`, for the hub correction; None for the paper's scores.
    """
    # Pools are cut at thresholds of these scores: rounding would move words in and out.
    similarity_bv = jnp.matmul(
        jnp.asarray(image_features_bf), jnp.asarray(word_features_vf).T, precision=jax.lax.Precision.HIGHEST
    )
    if word_means_v is not None:
        similarity_bv = similarity_bv - word_means_v
    low = similarity_bv.min(axis=-1, keepdims=True)
    high = similarity_bv.max(axis=-1, keepdims=True)
    spread = jnp.where(high > low, high - low, 1.0)
    # Exactly 1 for the best, which a rounded division does not promise; without any spread, for all.
    return jnp.where(similarity_bv == high, 1.0, (similarity_bv - low) / spread)


def pools(score_bv: Float[Array, "b v"], thresholds: Sequence[float]) -> Bool[Array, "l b v"]:
    """C_l(I) as one mask per layer: the words whose score reaches the layer's threshold. No pool is empty."""
    if not thresholds or any(not 0 <= rho <= 1 for rho in thresholds):
        raise InputError(f"expected one threshold in [0, 1] per layer, got {tuple(thresholds)}")
    rho_l = jnp.asarray(thresholds, score_bv.dtype)
    return score_bv[None] >= rho_l[:, None, None]


def percentile(score_bv: Float[Array, "b v"], ids_bn: Int[Array, "b n"]) -> Float[Array, "b n"]:
    """Rank of each chosen word among all words for its image: 1 the best word, 0.5 chance, 0 the worst.

    Ties take the middle of their ranks. Two words at least.
    """
    if score_bv.shape[-1] < 2:
        raise InputError(f"expected scores of at least two words, got shape {score_bv.shape}")

    def rank(score_v: Float[Array, " v"], ids_n: Int[Array, " n"]) -> Float[Array, " n"]:
        ordered, chosen = jnp.sort(score_v), score_v[ids_n]
        below = jnp.searchsorted(ordered, chosen, side="left")
        through = jnp.searchsorted(ordered, chosen, side="right") - 1
        return (below + through) / (2.0 * (score_v.size - 1))

    return jax.vmap(rank)(score_bv, ids_bn)
