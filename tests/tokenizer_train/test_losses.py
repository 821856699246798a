"""Each loss against its equation, written out the slow way in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spae.pyramid import PyramidShape
from spae.quantize import streaming_average
from tokenizer_train import losses
from tokenizer_train.config import OptimizerConfig
from tokenizer_train.state import schedule

RNG = np.random.default_rng(0)
SHAPE = PyramidShape((1, 2, 4, 4))

# As they are used: compiled.
semantic = jax.jit(losses.semantic, static_argnums=3)
commitment = jax.jit(losses.commitment, static_argnums=(2, 3))
show_prefix = jax.jit(losses.show_prefix, static_argnums=(2, 4, 5))


@partial(jax.jit, static_argnums=2)
def averaged(z, codebook, fill="nearest"):
    return streaming_average(z, codebook, SHAPE, fill=fill).averages


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_semantic_is_the_mean_of_minus_log_softmax_over_the_pool():
    queries, codebook = normal(3, 4, 5), normal(20, 5)
    pool = RNG.random((3, 20)) < 0.3
    pool[:, 0] = True
    terms = []
    for b in range(3):
        for n in range(4):
            logits = -((queries[b, n].astype(np.float64) - codebook) ** 2).sum(1) / 0.7
            log_softmax = logits - np.log(np.exp(logits).sum())
            terms.append(-log_softmax[pool[b]].mean())
    np.testing.assert_allclose(semantic(queries, codebook, pool[:, None], 0.7), np.mean(terms), rtol=1e-5)


def test_semantic_pulls_a_query_to_its_only_candidate():
    codebook, query = normal(20, 5), jnp.asarray(normal(1, 1, 5))
    pool = np.zeros((1, 20), bool)
    pool[0, 7] = True
    step = jax.jit(lambda q: q - 0.1 * jax.grad(lambda q: semantic(q, codebook, pool[:, None], 0.5))(q))
    for _ in range(300):
        query = step(query)
    assert int(((np.asarray(query)[0, 0] - codebook) ** 2).sum(1).argmin()) == 7


def test_a_pool_for_each_position():
    queries, codebook = normal(3, 4, 5), normal(20, 5)
    pool = RNG.random((3, 4, 20)) < 0.3
    pool[..., 0] = True
    each = [semantic(queries[:, [n]], codebook, pool[:, [n]], 0.7) for n in range(4)]
    np.testing.assert_allclose(semantic(queries, codebook, pool, 0.7), np.mean(each), rtol=1e-5)


def test_pools_are_dealt_like_cards_from_the_best_word_on():
    score = RNG.permutation(20)[None] / 19.0
    order = np.argsort(-score[0])
    dealt = np.asarray(losses.deal(score, score >= score[0, order[10]], first=1, count=4))[0]
    assert [sorted(np.flatnonzero(row)) for row in dealt] == [
        sorted(order[ranks]) for ranks in ([1, 5, 9], [2, 6, 10], [3, 7], [4, 8])
    ]
    # A pool smaller than the layer: every position still has the word of its own rank.
    dealt = np.asarray(losses.deal(score, score >= 1.0, first=1, count=4))[0]
    assert [np.flatnonzero(row).tolist() for row in dealt] == [[order[rank]] for rank in (1, 2, 3, 4)]


def test_commitment_sums_layers_over_their_own_positions():
    z, codebook = normal(2, 4, 4, 3), normal(9, 3)
    averages = averaged(z, codebook)
    for first in (1, 3):
        total = 0.0
        for layer in range(first, 5):
            rows = [z[:, r, c] - np.asarray(averages[layer - 1])[:, r, c] for r, c in SHAPE.positions(layer)]
            total += np.mean(np.square(rows))
        np.testing.assert_allclose(commitment(z, averages, SHAPE, first), total, rtol=1e-5)
    gradient = jax.grad(lambda a: commitment(z, a, SHAPE))(averages)
    assert not any(np.any(g) for g in gradient)


def test_adversarial_losses_and_dynamic_weight():
    real, fake = normal(6), normal(6)
    np.testing.assert_allclose(
        losses.discriminator_adversarial(real, fake),
        np.mean(np.log1p(np.exp(-real))) + np.mean(np.log1p(np.exp(fake))),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        losses.generator_adversarial(fake), np.mean(np.log1p(np.exp(-fake))), rtol=1e-5
    )
    assert losses.dynamic_weight(jnp.float32(3), jnp.float32(1.5)) == 2
    # sg: the weight passes no gradient on.
    assert jax.grad(lambda a: losses.dynamic_weight(a, jnp.float32(2.0)))(1.0) == 0


def test_lecam_is_on_batch_means_and_moves_its_averages():
    real, fake, ema = normal(6) + 2, normal(6) - 1, np.array([0.5, -0.25], np.float32)
    value, new = losses.lecam(real, fake, ema)
    wanted = 0.999 * ema + 0.001 * np.array([real.mean(), fake.mean()])
    np.testing.assert_allclose(new, wanted, rtol=1e-6)
    np.testing.assert_allclose(
        value, max(real.mean() - wanted[1], 0) ** 2 + max(wanted[0] - fake.mean(), 0) ** 2, rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(4, 4, 3), (2, 4, 4, 3)], ids=["images", "clips"])
def test_r1_of_a_known_gradient(shape):
    weight = normal(*shape)
    images = normal(5, *shape)
    axes = tuple(range(1, images.ndim))
    value = losses.r1(lambda x: jnp.sum(x * weight, axes) ** 2 / 2, images)
    inner = (images * weight).sum(axes)
    np.testing.assert_allclose(value, np.mean(inner**2) * (weight**2).sum(), rtol=1e-4)


def test_prefix_dropout_shows_prefixes_and_lets_gradients_through_where_words_are():
    z, codebook = jnp.asarray(normal(64, 4, 4, 3)), jnp.asarray(normal(9, 3))
    averages = averaged(z, codebook)
    np.testing.assert_allclose(show_prefix(z, averages, SHAPE), averages[-1], atol=1e-6)
    lengths = losses.draw_lengths(64, len(averages), 1.0, jax.random.key(0))
    assert set(np.asarray(lengths).tolist()) == set(range(1, len(averages)))
    seen = show_prefix(z, averages, SHAPE, lengths)
    gradient = jax.grad(lambda z: jnp.sum(show_prefix(z, averages, SHAPE, lengths)))(z)
    for i, length in enumerate(np.asarray(lengths)):
        np.testing.assert_allclose(seen[i], averages[length - 1][i], atol=1e-5)
        np.testing.assert_array_equal(gradient[i, ..., 0] > 0, SHAPE.coverage(int(length)) > 0)


def test_a_share_of_the_images_loses_layers():
    lengths = np.asarray(losses.draw_lengths(10_000, 4, 0.3, jax.random.key(1)))
    assert abs(np.mean(lengths < 4) - 0.3) < 0.02
    assert (np.abs(np.bincount(lengths, minlength=5)[1:4] / 10_000 - 0.1) < 0.02).all()


def slow_gradient(weight_hwc: np.ndarray, length: int, first_layer: int, fill: str) -> np.ndarray:
    """Of sum(weight * seen) by z, place by place: each place hands its weight to the place whose words it shows, if a
    layer that quantizes z has a word there."""
    places = [tuple(place) for place in np.ndindex(SHAPE.grid)]
    layers = [{tuple(place) for place in SHAPE.positions(layer)} for layer in range(1, length + 1)]
    covered = [place for place in places if any(place in layer for layer in layers)]
    own = {place for layer in layers[first_layer - 1 :] for place in layer}
    gradient = np.zeros_like(weight_hwc)
    for row, column in places:
        shown = (row, column)
        if fill == "nearest":
            shown = min(covered, key=lambda place: ((place[0] - row) ** 2 + (place[1] - column) ** 2, place))
        if shown in own:
            gradient[shown] += weight_hwc[row, column]
    return gradient


@pytest.mark.parametrize(
    ("first_layer", "fill"), [(1, "nearest"), (1, "zeros"), (3, "nearest"), (3, "zeros")]
)
def test_the_gradient_of_every_prefix_goes_to_the_words_that_are_shown(first_layer, fill):
    z, codebook, weight = jnp.asarray(normal(64, 4, 4, 3)), jnp.asarray(normal(9, 3)), normal(64, 4, 4, 3)
    averages = averaged(z, codebook, fill)
    lengths = np.arange(64) % 3 + 1

    def total(z, lengths):
        return jnp.sum(weight * show_prefix(z, averages, SHAPE, lengths, first_layer, fill))

    gradient = jax.grad(total)(z, lengths)
    for i, length in enumerate(lengths):
        expected = slow_gradient(weight[i], length, first_layer, fill)
        np.testing.assert_allclose(gradient[i], expected, rtol=1e-5, atol=1e-5)
        # Of prefixes of meaning layers alone: nothing.
        assert np.any(expected) == (length >= first_layer)
    np.testing.assert_allclose(jax.grad(total)(z, None), weight)


@pytest.mark.parametrize("decay", ["rsqrt", "cosine", "constant"])
def test_schedules(decay):
    config = OptimizerConfig(steps=1000, warmup_steps=100, decay=decay, learning_rate=0.5, cooldown_steps=100)
    rate = schedule(config)
    assert float(rate(49)) == pytest.approx(0.25)
    assert float(rate(99)) == pytest.approx(0.5)
    wanted = {"rsqrt": 0.5 * (100 / 400) ** 0.5, "cosine": 0.25 * (1 + np.cos(np.pi / 3)), "constant": 0.5}[
        decay
    ]
    assert float(rate(399)) == pytest.approx(wanted, rel=1e-5)
    if decay != "constant":
        assert float(rate(999)) < 0.01


@pytest.mark.parametrize("first_layer", [1, 2])
def test_the_codebook_loss_pulls_each_code_to_what_chose_it(first_layer):
    rng = np.random.default_rng(3)
    queries = [rng.normal(size=(2, n, 4)).astype(np.float32) for n in (1, 4)]
    ids = [rng.integers(0, 6, (2, 1, 1)), rng.integers(0, 6, (2, 2, 2))]
    codebook = rng.normal(size=(6, 4)).astype(np.float32)
    wanted, wanted_gradient = 0.0, np.zeros((6, 4))
    for query, ids_l in list(zip(queries, ids, strict=True))[first_layer - 1 :]:
        for z, k in zip(query.reshape(-1, 4), ids_l.ravel(), strict=True):
            wanted += ((z - codebook[k]) ** 2).sum() / query.size
            wanted_gradient[k] += 2 * (codebook[k] - z) / query.size
    found, (z_gradient, gradient) = jax.value_and_grad(
        lambda q, e: losses.codebook(q, ids, e, first_layer), argnums=(0, 1)
    )(queries, codebook)
    assert found == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-4, atol=1e-6)
    assert not any(np.any(one) for one in z_gradient)
