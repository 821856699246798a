"""The losses of SPAE, section 3.2, each a function with its equation. All return float32 scalars.

    L = L_appearance + alpha w L_semantic,   w = sg(L_appearance / L_semantic)
    L_appearance = ||I - Ihat||^2 + beta sum_l ||z - sg(zhat_{<=l})||^2 + lambda L_GAN + eta L_perceptual

The LeCAM term, phi L_LeCAM, belongs to the discriminator's loss, as in MAGVIT. A codebook that is trained has a
loss of its own beside these, sum_l ||sg(z_l) - e(k_l)||^2; the paper's is frozen. Images (B, H, W, 3) may be clips
(B, T, H, W, 3) everywhere, and their latents (B, t, h, w, c).
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from spae.nearest import log_sum_exp
from spae.pyramid import PyramidShape
from spae.quantize import Fill, first_shown


def reconstruction(
    images_bhwc: Float[Array, "b *pixels 3"], decoded_bhwc: Float[Array, "b *pixels 3"]
) -> Float[Array, ""]:
    """||I - Ihat||^2, as the mean over batch, pixels and channels; images in [0, 1]."""
    return jnp.mean((images_bhwc - decoded_bhwc) ** 2)


def commitment(
    z_bhwc: Float[Array, "b *space c"],
    averages: Sequence[Float[Array, "b *space c"]],
    shape: PyramidShape,
    first_layer: int = 1,
) -> Float[Array, ""]:
    """sum_l ||z - sg(zhat_{<=l})||^2, each term the mean over batch, the positions P(l) and channels.

    Only P(l) counts in the term of layer l: elsewhere the prefix has the words it had before, whose terms are
    in the sum already, or none.

    Args:
        z_bhwc: latents.
        averages: zhat of every prefix 1 .. D.
        shape: the pyramid.
        first_layer: the first layer that quantizes z; layers above choose their words by meaning, and z is
            not asked to follow them.
    """
    total = jnp.zeros((), jnp.float32)
    for layer in range(first_layer, len(shape) + 1):
        at = (slice(None), *shape.positions(layer).T)
        total += jnp.mean((z_bhwc[at] - jax.lax.stop_gradient(averages[layer - 1][at])) ** 2)
    return total


def codebook(
    queries: Sequence[Float[Array, "b n c"]],
    ids: Sequence[Int[Array, " b *grid"]],
    codebook_vc: Float[Array, "v c"],
    first_layer: int = 1,
) -> Float[Array, ""]:
    """sum_l ||sg(z_l) - e(k_l)||^2, each term the mean over batch, positions and channels: trains the codebook alone.

    With one layer this is the codebook loss of VQ-VAE (arXiv 1711.00937, equation 3), whose z is the only z_l. In a
    pyramid z_l is what layer l searched with, so that every code moves towards what chose it, whether words are
    averaged or added up.

    Args:
        queries: z_l of every layer, at its positions.
        ids: k_l of every layer.
        codebook_vc: e, trained.
        first_layer: the first layer that quantizes z, as for `commitment`.
    """
    total = jnp.zeros((), jnp.float32)
    for query_bnc, ids_l in list(zip(queries, ids, strict=True))[first_layer - 1 :]:
        chosen_bnc = codebook_vc[ids_l.reshape(query_bnc.shape[:2])]
        total += jnp.mean((jax.lax.stop_gradient(query_bnc) - chosen_bnc) ** 2)
    return total


def semantic(
    queries_bnc: Float[Array, "b n c"],
    codebook_vc: Float[Array, "v c"],
    pool_bnv: Bool[Array, " b #n v"],
    temperature: float,
) -> Float[Array, ""]:
    """One layer's term: -log softmax_k(-||z_l - e(k)||^2 / T)[c], mean over positions and over c in the pool C_l(I).

    The mean over the pool is taken exactly instead of by drawing c: ||z - e||^2 averages to
    ||z||^2 - 2 z mean(e) + mean(||e||^2), two sums over the pool for all its positions at once.

    Args:
        queries_bnc: z_l at the positions P(l).
        codebook_vc: the view these queries are searched in.
        pool_bnv: C_l(I), one for all positions (B, 1, V) or one for each (B, n, V); at least one word in each.
        temperature: T > 0; 1 in the paper.
    """
    b, n, c = queries_bnc.shape
    weight_bnv = pool_bnv / jnp.sum(pool_bnv, axis=2, keepdims=True)
    # As exact as the normaliser, from which these distances are subtracted.
    centre_bnc = jnp.matmul(weight_bnv, codebook_vc, precision=jax.lax.Precision.HIGHEST)
    square_bn = jnp.matmul(weight_bnv, jnp.sum(codebook_vc**2, axis=1), precision=jax.lax.Precision.HIGHEST)
    distance_bn = jnp.sum(queries_bnc**2, axis=2) - 2 * jnp.sum(queries_bnc * centre_bnc, axis=2) + square_bn
    normaliser_bn = log_sum_exp(queries_bnc.reshape(b * n, c), codebook_vc, temperature).reshape(b, n)
    return jnp.mean(distance_bn / temperature + normaliser_bn)


DEALT = 4096


def deal(
    score_bv: Float[Array, "b v"], pool_bv: Bool[Array, "b v"], first: int, count: int
) -> Bool[Array, "b n v"]:
    """Deal a layer's pool out over its positions like cards, best word first (ours).

    With one pool for a whole layer every position is pulled to the same few words and they choose the same one.
    Position j of the layer gets the words of rank first + j, first + j + count, .. as far as they are in the
    pool, and the first of those always; `first` is the number of positions in the layers above, which have the
    better words. Of a pool larger than `DEALT` words only the best so many are dealt.

    Args:
        score_bv: s(I, k).
        pool_bv: C_l(I).
        first: positions in the layers above.
        count: n, positions in this layer.
    """
    words = score_bv.shape[1]
    # Sorting the whole vocabulary would be a sixth of a step on a CPU; the best few are found in no time.
    best_bk = jax.lax.top_k(score_bv, min(words, DEALT))[1]
    rank_bv = jax.vmap(lambda best_k: jnp.full(words, -1).at[best_k].set(jnp.arange(best_k.size)))(best_bk)
    behind_bnv = rank_bv[:, None] - (first + jnp.arange(count))[:, None]
    return (behind_bnv == 0) | (pool_bv[:, None] & (behind_bnv > 0) & (behind_bnv % count == 0))


def dynamic_weight(appearance: Float[Array, ""], semantic: Float[Array, ""]) -> Float[Array, ""]:
    """w = sg(L_appearance / L_semantic): both losses pull with the same size, whatever their units."""
    return jax.lax.stop_gradient(appearance / jnp.maximum(semantic, 1e-8))


def generator_adversarial(fake_b: Float[Array, " b"]) -> Float[Array, ""]:
    """Non-saturating logistic GAN, the generator's side: mean softplus(-D(Ihat))."""
    return jnp.mean(jax.nn.softplus(-fake_b))


def discriminator_adversarial(real_b: Float[Array, " b"], fake_b: Float[Array, " b"]) -> Float[Array, ""]:
    """Non-saturating logistic GAN, the discriminator's side: mean softplus(-D(I)) + softplus(D(Ihat))."""
    return jnp.mean(jax.nn.softplus(-real_b)) + jnp.mean(jax.nn.softplus(fake_b))


def masked_lm(
    logits_bnv: Float[Array, "b n v"], token_ids_bn: Int[Array, "b n"], masked_bn: Bool[Array, "b n"]
) -> Float[Array, ""]:
    """LQAE's masked-LM loss: -log softmax(logits)[token], mean over an image's masked words, then over images.

    Args:
        logits_bnv: of the frozen model for every token of its table.
        token_ids_bn: the words that the encoder chose, as rows of that table.
        masked_bn: which of them the model did not see; an image without any counts as 0.
    """
    target_bn = jnp.take_along_axis(logits_bnv, token_ids_bn[..., None], axis=2)[..., 0]
    loss_bn = jax.nn.logsumexp(logits_bnv, axis=2) - target_bn
    return jnp.mean(jnp.sum(loss_bn * masked_bn, axis=1) / jnp.maximum(jnp.sum(masked_bn, axis=1), 1))


LECAM_DECAY = 0.999


def lecam(
    real_b: Float[Array, " b"], fake_b: Float[Array, " b"], ema_2: Float[Array, "2"]
) -> tuple[Float[Array, ""], Float[Array, "2"]]:
    """LeCAM on batch means: relu(real - ema_fake)^2 + relu(ema_real - fake)^2, and the new (ema_real, ema_fake)."""
    real, fake = jnp.mean(real_b), jnp.mean(fake_b)
    ema_2 = LECAM_DECAY * ema_2 + (1 - LECAM_DECAY) * jax.lax.stop_gradient(jnp.stack([real, fake]))
    return jax.nn.relu(real - ema_2[1]) ** 2 + jax.nn.relu(ema_2[0] - fake) ** 2, ema_2


def r1(discriminator, images_bhwc: Float[Array, "b *pixels 3"]) -> Float[Array, ""]:
    """R1: the mean over images of ||dD(I) / dI||^2 at real images; its weight (10 in MAGVIT) is the config's."""
    gradient_bhwc = jax.grad(lambda x: jnp.sum(discriminator(x)))(images_bhwc)
    return jnp.mean(jnp.sum(gradient_bhwc**2, axis=tuple(range(1, gradient_bhwc.ndim))))


def draw_lengths(batch: int, depth: int, rate: float, key: jax.Array) -> Int[Array, " b"]:
    """How many layers the decoder sees of each image, 1 .. depth: all, or with probability `rate` fewer (ours: prefix
    dropout)."""
    key_drop, key_length = jax.random.split(key)
    dropped_b = jax.random.bernoulli(key_drop, rate, (batch,))
    length_b = jax.random.randint(key_length, (batch,), 0, max(depth - 1, 1))
    return jnp.where(dropped_b, length_b, depth - 1) + 1


def show_prefix(
    z_bhwc: Float[Array, "b *space c"],
    averages: Sequence[Float[Array, "b *space c"]],
    shape: PyramidShape,
    length_b: Int[Array, " b"] | None = None,
    first_layer: int = 1,
    fill: Fill = "nearest",
    apart: int = 0,
) -> Float[Array, "b *space c"]:
    """What the decoder sees: a prefix of each image, or all layers.

    Straight-through to z where the prefix has a word that z chose; where it has none yet and holds that of the nearest
    covered position, to the z there. Words chosen by meaning alone say nothing of z, so nothing flows back from them.

    Args:
        z_bhwc: latents.
        averages: zhat of every prefix 1 .. D.
        shape: the pyramid.
        length_b: layers of each prefix, see `draw_lengths`; None: all.
        first_layer: the first layer that quantizes z, as for `commitment`.
        fill: what a prefix shows where it has no word, see `spae.quantize.streaming_average`.
        apart: layers whose words are shown in their own prefixes only, likewise.
    """
    depth = len(averages)
    if length_b is None:
        # Without the stack of all prefixes, gigabytes at the paper's size.
        return jax.lax.stop_gradient(averages[-1]) + (z_bhwc - jax.lax.stop_gradient(z_bhwc))
    index_b = length_b - 1
    pick = (index_b, jnp.arange(z_bhwc.shape[0]))
    seen_bhwc = jnp.stack(list(averages))[pick]
    above_p = shape.coverage(first_layer - 1).ravel() if first_layer > 1 else np.zeros(math.prod(shape.grid))
    covered_lp = np.stack([shape.coverage(layer).ravel() > above_p for layer in range(1, depth + 1)])
    if fill == "nearest":
        shown = [(layer, first_shown(layer, apart)) for layer in range(1, depth + 1)]
        source_lp = np.stack([shape.nearest_covered(*layers) for layers in shown])
        covered_lp = np.take_along_axis(covered_lp, source_lp, axis=1)
    else:
        source_lp = np.tile(np.arange(covered_lp.shape[1]), (depth, 1))
    b, c = z_bhwc.shape[0], z_bhwc.shape[-1]
    source_bp1 = jnp.asarray(source_lp)[index_b][..., None]
    z_bpc = jnp.take_along_axis(z_bhwc.reshape(b, -1, c), source_bp1, axis=1)
    z_bpc = (z_bpc - jax.lax.stop_gradient(z_bpc)) * jnp.asarray(covered_lp, jnp.float32)[index_b][..., None]
    return jax.lax.stop_gradient(seen_bhwc) + z_bpc.reshape(z_bhwc.shape)
