"""Probabilities of language models against transformers' (tests/golden/make_frozen_lm.py), and against themselves."""

import dataclasses
import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np
import pytest

from spae import frozen_lm
from spae.errors import InputError
from spae.frozen_lm.model_file import smollm2_file
from spae.frozen_lm.prefixes import Prefixes
from spae.frozen_lm.weights import read_model

GOLDEN = Path(__file__).parents[2] / "golden" / "frozen_lm"
TINY = ["llama", "qwen2", "gemma3"]


@lru_cache
def tiny(name: str) -> frozen_lm.FrozenLM:
    """A tiny random model, with more context than it was made for: room for several chunks."""
    files = read_model(GOLDEN / name)
    return frozen_lm.FrozenLM(
        dataclasses.replace(files, config=dataclasses.replace(files.config, context_length=1024))
    )


def golden(name: str) -> dict:
    return json.loads((GOLDEN / name / "golden.json").read_text())


def random_ids(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(3, 96, n).tolist()


def next_log_probs(lm: frozen_lm.FrozenLM, ids: list[int]) -> np.ndarray:
    """Without cache and chunks; behind what counts there is padding, so that one program compiles."""
    targets = np.full(768, -1)
    targets[: len(ids) - 1] = ids[1:]
    padded = np.pad(ids, (0, 768 - len(ids)))
    return np.asarray(lm.soft_log_probs(lm.embed(padded), targets))[: len(ids) - 1]


@pytest.fixture(scope="module")
def smollm2_lm() -> frozen_lm.FrozenLM:
    try:
        smollm2_file()
    except InputError as error:
        pytest.skip(str(error))
    return frozen_lm.load()


@pytest.mark.parametrize("name", TINY)
def test_tiny_models_agree_with_transformers(name):
    expected = golden(name)
    found = tiny(name).log_probs(expected["ids"])
    assert found.dtype == np.float32
    assert (
        np.ptp(expected["log_probs"]) > 4
    )  # a model that knows nothing would agree too, were they all alike
    np.testing.assert_allclose(found, expected["log_probs"], atol=1e-4)


def test_smollm2_agrees_with_transformers_on_the_same_file(smollm2_lm):
    texts = json.loads((GOLDEN / "smollm2.json").read_text())
    assert max(len(text["ids"]) for text in texts.values()) > 300
    for text in texts.values():
        # The golden file's tokenizer makes control tokens of text; here they come from nothing but their names.
        pieces = re.split(r"(<\|im_(?:start|end)\|>)", text["text"])
        names = {one: smollm2_lm.tokenizer.token_id(one) for one in ("<|im_start|>", "<|im_end|>")}
        ids = [[names[piece]] if piece in names else smollm2_lm.encode(piece) for piece in pieces]
        assert [one for few in ids for one in few] == text["ids"]
        np.testing.assert_allclose(smollm2_lm.log_probs(text["ids"]), text["log_probs"], atol=1e-3)


def test_smollm2_knows_its_ends(smollm2_lm):
    assert {smollm2_lm.tokenizer.decode([i]) for i in smollm2_lm.eos_ids} == {"<|im_end|>", "<|endoftext|>"}
    assert smollm2_lm.context_length == 8192
    prompt = smollm2_lm.encode("The capital of France is")
    assert smollm2_lm.generate([prompt], 5, stop=["."])[0].text == " Paris"


@pytest.mark.parametrize("name", TINY)
def test_chunks_and_caches_change_nothing(name):
    lm, ids = tiny(name), random_ids(700)
    np.testing.assert_allclose(lm.log_probs(ids), next_log_probs(lm, ids), atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_continuations_are_scored_as_if_alone(name):
    lm, context = tiny(name), random_ids(41)
    continuations = [random_ids(n, seed=n) for n in (1, 2, 5, 1, 100, 150, 300, 3)]
    scores = lm.score(context, continuations)
    for continuation, score in zip(continuations, scores, strict=True):
        whole = next_log_probs(lm, context + continuation)
        np.testing.assert_allclose(score, whole[len(context) - 1 :], atol=1e-4)
    assert lm.score(context, []) == []


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_shared_beginning_changes_nothing(name):
    lm, context = tiny(name), random_ids(300)
    for tail in ([], random_ids(30, seed=1), [*random_ids(27, seed=1), 9], random_ids(250, seed=2)):
        score = lm.score(context + tail, [[4, 8]])[0]
        np.testing.assert_allclose(score, next_log_probs(lm, [*context, *tail, 4, 8])[-2:], atol=1e-4)
    # Shorter than what is kept, so that the last token must be read again.
    score = lm.score(context[:200], [[7]])[0]
    np.testing.assert_allclose(score, next_log_probs(lm, [*context[:200], 7])[-1:], atol=1e-4)


def test_a_kept_beginning_is_not_read_again(monkeypatch):
    lm = tiny("llama")
    monkeypatch.setattr(lm._reader, "prefixes", Prefixes(1 << 30))
    read, counts = lm._run.read, []

    def counting(params, ids, *rest):
        counts.append(ids.shape[1])
        return read(params, ids, *rest)

    monkeypatch.setattr(lm._run, "read", counting)
    context = random_ids(200)
    lm.generate([[*context, 5]], 1)
    assert counts == [256]
    lm.generate([[*context, 6, 7]], 1)
    assert counts == [256, 8]
    lm.generate([[*context, 6, 7]], 1)
    assert counts == [256, 8]


@pytest.mark.parametrize("name", TINY)
def test_gradients_agree_with_transformers_and_leave_the_model_alone(name):
    lm, expected = tiny(name), golden(name)
    before = digest(lm)
    targets = np.array([*expected["ids"][1:], -1])
    gradient = jax.grad(lambda x: lm.soft_log_probs(x, targets).sum())(lm.embed(expected["ids"]))
    for position, values in expected["gradient"].items():
        np.testing.assert_allclose(gradient[int(position)], values, atol=2e-3, rtol=1e-3)
    assert digest(lm) == before


def test_gradients_agree_with_finite_differences():
    lm, ids = tiny("gemma3"), random_ids(24)
    vectors, targets = lm.embed(ids), np.array([*ids[1:], -1])

    def score(x):
        return lm.soft_log_probs(x, targets).sum()

    gradient = np.asarray(jax.grad(score)(vectors))
    rng, step = np.random.default_rng(0), 1e-2
    for _ in range(5):
        direction = rng.standard_normal(vectors.shape).astype(np.float32)
        direction /= np.linalg.norm(direction)
        slope = (score(vectors + step * direction) - score(vectors - step * direction)) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=2e-2, atol=2e-2)


def digest(lm: frozen_lm.FrozenLM) -> str:
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in lm._params)).hexdigest()


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_embeddings_stand_for_their_tokens(name):
    lm, ids = tiny(name), random_ids(30)
    vectors = lm.embed(ids)
    assert vectors.shape == (30, 32)
    assert vectors.dtype == np.float32
    logits = np.asarray(lm.soft_logits(vectors))
    soft = np.asarray(jax.nn.log_softmax(logits, -1))[np.arange(29), ids[1:]]
    np.testing.assert_allclose(soft, lm.log_probs(ids), atol=1e-5)
    targets = np.full(30, -1)
    targets[10] = ids[11]
    alone = lm.soft_log_probs(vectors, targets)
    assert np.count_nonzero(alone) == 1
    np.testing.assert_allclose(alone[10], soft[10], atol=1e-5)


def test_the_beginning_of_a_text():
    assert tiny("llama").encode("ab") == tiny("llama").tokenizer.encode("ab")
    assert tiny("gemma3").encode("ab") == [1, *tiny("gemma3").tokenizer.encode("ab")]
    assert tiny("gemma3").encode("") == [1]


def test_wrong_input_is_named():
    lm = tiny("llama")
    with pytest.raises(InputError, match="at least two"):
        lm.log_probs([5])
    with pytest.raises(InputError, match="1 to 1024 tokens"):
        lm.log_probs(random_ids(1025))
    with pytest.raises(InputError, match="ids from 0 to 95"):
        lm.log_probs([5, 96])
    with pytest.raises(InputError, match="encode it first"):
        lm.log_probs("text")
    with pytest.raises(InputError, match="context and continuation"):
        lm.score(random_ids(1000), [random_ids(25)])
    with pytest.raises(InputError, match="continuation: wanted 1 to"):
        lm.score([5], [[]])
    with pytest.raises(InputError, match="of width 32"):
        lm.soft_logits(np.zeros((3, 31)))
    with pytest.raises(InputError, match="one id for each"):
        lm.soft_log_probs(np.zeros((3, 32)), np.zeros(2, int))
