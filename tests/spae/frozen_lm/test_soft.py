"""Vectors in the place of tokens: a token's own vector changes nothing, others are told apart by the caches."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spae import frozen_lm
from spae.errors import InputError
from spae.frozen_lm import SOFT, SoftPrompt
from spae.frozen_lm.constraint import Trie

GOLDEN = Path(__file__).parents[2] / "golden" / "frozen_lm"
WIDTH = 32


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def lm(request) -> frozen_lm.FrozenLM:
    return frozen_lm.load(GOLDEN / request.param)


def ids_of(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(3, 96, n).tolist()


def test_the_vectors_of_tokens_are_those_tokens(lm) -> None:
    ids, places = ids_of(40), [0, 3, 4, 20, 39]
    soft = SoftPrompt([SOFT if i in places else id_ for i, id_ in enumerate(ids)], lm.embed(ids)[places])
    assert len(soft) == 40
    for ours, plain in zip(lm.score(soft, [[5, 6], [7]]), lm.score(ids, [[5, 6], [7]]), strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-5)
    written, wanted = lm.generate([soft, ids], 6)
    assert written.ids == wanted.ids
    np.testing.assert_allclose(written.log_probs, wanted.log_probs, atol=1e-5)


def test_prompts_that_differ_in_a_vector_alone_share_no_cache(lm) -> None:
    rng = np.random.default_rng(1)
    ids = [*ids_of(30), SOFT, *ids_of(30, seed=2)]
    prompts = [SoftPrompt(ids, rng.normal(size=(1, WIDTH))) for _ in range(2)]
    for prompt in (*prompts, prompts[0]):
        rows = lm.embed([max(id_, 0) for id_ in ids])
        rows = np.concatenate([rows, lm.embed([9])])
        rows[30] = prompt.vectors[0]
        targets = np.full(62, -1)
        targets[60] = 9
        wanted = np.asarray(lm.soft_log_probs(rows, targets))[60]
        assert lm.score(prompt, [[9]])[0][0] == pytest.approx(wanted, abs=1e-4)
    # Together, and held to a choice, as alone.
    choice = Trie(["dog", "cat"], lm.tokenizer)
    alone = [lm.generate([one], 4, constraints=[choice])[0] for one in prompts]
    both = lm.generate(prompts, 4, constraints=[choice, choice])
    assert [one.text for one in both] == [one.text for one in alone]
    assert prompts[0].named != prompts[1].named


def test_what_is_no_soft_prompt_is_refused(lm) -> None:
    for ids, vectors, message in (
        ([3, SOFT], np.zeros((2, WIDTH)), r"vectors \(s, d\) for 1 places, got shape \(2, 32\)"),
        ([3, SOFT], np.zeros(WIDTH), "for 1 places"),
        ([3, -5], np.zeros((0, WIDTH)), "got -5"),
        ([SOFT], np.full((1, WIDTH), np.nan), "finite"),
    ):
        with pytest.raises(InputError, match=message):
            SoftPrompt(ids, vectors)
    with pytest.raises(InputError, match="vectors of width 32"):
        lm.generate([SoftPrompt([3, SOFT], np.zeros((1, 8)))], 1)
    with pytest.raises(InputError, match="wanted ids from 0"):
        lm.score(SoftPrompt([99, SOFT], np.zeros((1, WIDTH))), [[3]])


def test_the_model_is_known_by_every_bit_of_it(lm) -> None:
    before = lm.sha256()
    graph, state = lm.split()
    hidden, _ = nnx.merge(graph, state)(
        lm.embed(ids_of(5))[None],
        None,
        jnp.zeros(1, jnp.int32),
        jnp.arange(5)[None],
        jnp.zeros((1, 5), jnp.int32),
    )
    assert hidden.shape == (1, 5, WIDTH)
    lm.generate([ids_of(5)], 3)
    assert lm.sha256() == before
    params = list(lm._params)
    leaf = np.array(params[1])
    leaf.flat[0] = np.nextafter(leaf.flat[0], np.inf)
    lm._params = [params[0], jax.device_put(leaf), *params[2:]]
    assert lm.sha256() != before
    lm._params = params
    assert len(lm.tokenizer.sha256) == 64
