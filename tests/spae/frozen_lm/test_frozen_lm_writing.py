"""Generated text: greedy, sampled, stopped, constrained; alone, side by side and in threads."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_frozen_lm import TINY, random_ids, tiny

from spae.errors import InputError
from spae.frozen_lm.constraint import TokenSet, Trie, encode_behind
from spae.frozen_lm.prefixes import Prefix, Prefixes
from spae.frozen_lm.writing import Rules, Writing, contrasted

END, BREAK = 2, 0


class Letters:
    """Token i is the letter chr(i); long strings are long."""

    size = 128

    def encode(self, text):
        return [ord(letter) for letter in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


def rules(temperature=0.0, top_p=1.0, stop=(), eos=(END,), ends=(BREAK, END)):
    return Rules(temperature, top_p, tuple(stop), frozenset(eos), np.array(ends), contrast=1.0)


def written(logits, constraint=None, most=50, seed=0, **how):
    """A text whose every token is chosen from the next row of `logits`, again and again."""
    writing = Writing([[97]], rules(**how), seed, constraint, Letters())
    for i in range(most):
        writing.take(logits[None, i % len(logits)])
        if writing.stopped:
            break
    return writing.finish()


def rows(*likely, least=-9.0):
    """Logits over letters: each of `likely` is a dict of letter (or id) -> logit, for one step."""
    table = np.full((len(likely), 128), least, np.float32)
    for row, values in zip(table, likely, strict=True):
        for key, value in values.items():
            row[ord(key) if isinstance(key, str) else key] = value
    return table


def uncached(lm, prompt, count):
    """Greedy text, everything read anew for each token."""
    ids = list(prompt)
    for _ in range(count):
        padded = np.pad(ids, (0, 600 - len(ids)))
        ids.append(int(np.asarray(lm.soft_logits(lm.embed(padded)))[len(ids) - 1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", TINY)
def test_greedy_text_is_what_is_likeliest_without_a_cache(name):
    lm = tiny(name)
    # The longer prompts fill the first capacity of the cache, 512, on the way.
    prompts = [random_ids(5), random_ids(40, seed=1), random_ids(508, seed=2)]
    together = lm.generate(prompts, 6)
    for prompt, text in zip(prompts, together, strict=True):
        expected = uncached(lm, prompt, 6)
        if END in expected:
            expected = expected[: expected.index(END)]
        assert text.ids == expected
        np.testing.assert_allclose(
            text.log_probs, lm.log_probs(prompt + text.ids)[len(prompt) - 1 :], atol=1e-4
        )
        assert lm.generate([prompt], 6)[0].ids == text.ids


def test_sampled_text_depends_on_its_seed_and_not_on_its_neighbours():
    lm = tiny("llama")
    prompts = [random_ids(n, seed=n) for n in (5, 8, 12)]
    how = {"temperature": 0.8, "top_p": 0.95, "seed": 7}
    together = lm.generate(prompts, 12, **how)
    assert [lm.generate([prompt], 12, **how)[0].ids for prompt in prompts] == [text.ids for text in together]
    other = lm.generate(prompts[:1], 12, **{**how, "seed": 8})
    assert other[0].ids != together[0].ids
    # Of their own each.
    mixed = lm.generate([prompts[0], *prompts], 12, **{**how, "seed": [8, 7, 7, 7]})
    assert [text.ids for text in mixed] == [text.ids for text in other + together]
    assert lm.generate([], 12) == []


@pytest.mark.parametrize("name", TINY)
def test_prompts_that_differ_at_their_end_are_read_side_by_side(name, monkeypatch):
    lm = tiny(name)
    monkeypatch.setattr(lm._reader, "prefixes", Prefixes(1 << 30))
    reads = []
    read = lm._run.read
    monkeypatch.setattr(
        lm._run, "read", lambda params, ids, *rest: reads.append(ids.shape) or read(params, ids, *rest)
    )
    # The last fills its first cache of 512 but for two tokens: its rest does not fit behind what is kept.
    common, long = random_ids(40), random_ids(505, seed=1)
    prompts = [common + random_ids(n, seed=n) for n in (3, 1, 7, 3)] + [common, common + random_ids(200)]
    prompts += [long, *(long + random_ids(n, seed=n) for n in (2, 5))]
    together = lm.generate(prompts, 1)
    assert sum(shape[0] > 1 for shape in reads) == 1
    for prompt, text in zip(prompts, together, strict=True):
        monkeypatch.setattr(lm._reader, "prefixes", Prefixes(1 << 30))
        [alone] = lm.generate([prompt], 1)
        assert alone.ids == text.ids
        np.testing.assert_allclose(alone.log_probs, text.log_probs, atol=1e-4)


def test_samples_have_the_probabilities_of_the_model():
    logits = rows({"a": 2.0, "b": 1.0, "c": 0.0}, least=-50.0)
    draws = [written(logits, most=1, temperature=0.5, seed=seed).text for seed in range(4000)]
    weights = np.exp([4.0, 2.0, 0.0])
    found = [draws.count(letter) / len(draws) for letter in "abc"]
    np.testing.assert_allclose(found, weights / weights.sum(), atol=0.025)
    # The two likeliest hold .98; .9 is reached with them, .8 with the first alone.
    assert {written(logits, most=1, temperature=0.5, top_p=0.9, seed=s).text for s in range(300)} == {
        "a",
        "b",
    }
    assert {written(logits, most=1, temperature=0.5, top_p=0.8, seed=s).text for s in range(300)} == {"a"}


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_contrast_is_guidance_with_the_mean_of_all_prompts(weight):
    p = np.random.default_rng(0).dirichlet(np.ones(12), 4)
    p[:, 7] = 0  # what no prompt allows
    p[0, 3] = 0  # what others do
    with np.errstate(divide="ignore", invalid="ignore"):
        found = contrasted(np.log(p), weight)
        unconditional = p.mean(0)
        # As the paper writes it: the scale is 1 more.
        expected = np.log(unconditional) + (1 + weight) * (np.log(p[0]) - np.log(unconditional))
    assert np.isneginf(found[[3, 7]]).all()
    left = np.isfinite(found)
    assert left.sum() == 10
    np.testing.assert_allclose(found[left], expected[left], rtol=1e-9)


def uncached_contrast(lm, prompt, others, count, weight):
    """As `uncached`, by contrast."""
    prompts = [list(one) for one in (prompt, *others)]
    for _ in range(count):
        rows = []
        for ids in prompts:
            padded = np.pad(ids, (0, 100 - len(ids)))
            logits = np.asarray(lm.soft_logits(lm.embed(padded)), np.float64)[len(ids) - 1]
            rows.append(logits - np.log(np.exp(logits).sum()))
        chosen = int(contrasted(np.array(rows), weight).argmax())
        prompts = [[*ids, chosen] for ids in prompts]
    return prompts[0][len(prompt) :]


@pytest.mark.parametrize("name", TINY)
def test_a_text_against_other_prompts_is_what_is_likeliest_by_contrast_without_a_cache(name):
    lm = tiny(name)
    prompts = [random_ids(n, seed=n) for n in (5, 30, 17)]
    against = [[random_ids(8, seed=50), random_ids(31, seed=51)], [], [random_ids(16, seed=52)]]
    together = lm.generate(prompts, 6, against=against, contrast=9.0)
    for prompt, others, text in zip(prompts, against, together, strict=True):
        expected = uncached_contrast(lm, prompt, others, 6, 9.0) if others else uncached(lm, prompt, 6)
        assert text.ids == (expected[: expected.index(END)] if END in expected else expected)
        assert lm.generate([prompt], 6, against=[others], contrast=9.0)[0].ids == text.ids
        # The probabilities told are those behind its own prompt.
        own = lm.log_probs(prompt + text.ids)[len(prompt) - 1 :]
        np.testing.assert_allclose(text.log_probs, own, atol=1e-4)
    assert [text.ids for text in together] != [text.ids for text in lm.generate(prompts, 6)]


def test_many_texts_against_many_prompts_are_written_in_turns():
    lm = tiny("llama")
    prompts = [random_ids(6, seed=n) for n in range(5)]
    against = [[random_ids(7, seed=10 * n + m) for m in range(n * 3)] for n in range(5)]  # 35 prompts in all
    constraints = [TokenSet(range(10, 60), 3)] * 5
    together = lm.generate(prompts, 9, against=against, constraints=constraints)
    assert all(len(text.ids) == 3 and set(text.ids) <= set(range(10, 60)) for text in together)
    for n in range(5):
        [alone] = lm.generate(prompts[n : n + 1], 9, against=against[n : n + 1], constraints=constraints[:1])
        assert alone.ids == together[n].ids


def test_log_probs_are_the_models_own():
    logits = rows({"a": 1.0, "b": 3.0})
    text = written(logits, TokenSet([ord("a")], 1), temperature=0.1)
    assert text.text == "a"
    assert text.log_probs.dtype == np.float32
    np.testing.assert_allclose(text.log_probs, 1.0 - np.log(np.exp(logits[0]).sum()), rtol=1e-5)


def test_a_text_ends_at_its_end():
    spelled = rows({"o": 1.0}, {"n": 1.0}, {"e": 1.0}, {"\n": 1.0}, {"x": 1.0}, {END: 1.0})
    assert written(spelled).text == "one\nx"
    assert written(spelled).stop == "eos"
    cut = written(spelled, stop=["zzz", "e\nx", "\n"])
    assert (cut.text, cut.ids, cut.stop, len(cut.log_probs)) == ("one", [111, 110, 101], "stop", 3)
    cut = written(spelled, stop=["zzz", "ne\n"])
    assert (cut.text, cut.ids, cut.stop, len(cut.log_probs)) == ("o", [111], "stop", 1)
    assert written(spelled, stop=["o"]).ids == []
    short = written(spelled, most=2)
    assert (short.text, short.stop) == ("on", "length")


def test_a_full_context_ends_a_text():
    lm = tiny("llama")
    prompt = random_ids(1020)
    text = lm.generate([prompt], 50, constraints=[TokenSet(range(3, 96), 50)])[0]
    assert text.stop == "length"
    assert len(prompt) + len(text.ids) == 1024 + 1  # the last token is written, and never read


def test_a_trie_gives_the_likelier_string():
    trie = Trie(["cat", "dog", "dot"], Letters())
    text = written(rows({"z": 9.0, "c": 1.0, "d": 2.0}, {"o": 1.0}, {"t": 3.0, "g": 1.0}), trie)
    assert (text.text, text.stop) == ("dot", "constraint")


@pytest.mark.parametrize(
    ("ending", "going_on", "expected"), [(1.0, 0.5, "do"), (0.5, 1.0, "dot"), (1.0, 1.0, "do")]
)
def test_a_string_that_begins_another_ends_if_ending_is_likelier(ending, going_on, expected):
    trie = Trie(["do", "dot"], Letters())
    # Two end tokens share the probability of ending.
    logits = rows({"d": 1.0}, {"o": 1.0}, {END: ending - np.log(2), BREAK: ending - np.log(2), "t": going_on})
    text = written(logits, trie)
    assert (text.text, text.stop) == (expected, "constraint")
    ways = [written(logits, trie, temperature=1.0, seed=seed).text for seed in range(600)]
    share = np.exp(ending) / (np.exp(ending) + np.exp(going_on))
    assert abs(ways.count("do") / 600 - share) < 0.07
    assert set(ways) == {"do", "dot"}


@settings(max_examples=150)
@given(
    st.lists(st.text("ab ", min_size=1, max_size=6), min_size=1, max_size=8),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 1.0]),
)
def test_a_trie_gives_exactly_one_of_its_strings(strings, seed, temperature):
    logits = np.random.default_rng(seed).normal(0, 3, (7, 128)).astype(np.float32)
    text = written(logits, Trie(strings, Letters()), temperature=temperature, seed=seed)
    assert text.text in strings
    assert text.stop == "constraint"
    assert text.ids == Letters().encode(text.text)


@settings(max_examples=50)
@given(st.sets(st.integers(3, 127), min_size=1), st.integers(1, 9), st.integers(0, 2**31))
def test_a_token_set_gives_so_many_of_its_tokens(ids, count, seed):
    logits = np.random.default_rng(seed).normal(0, 3, (9, 128)).astype(np.float32)
    text = written(logits, TokenSet(sorted(ids), count))
    assert len(text.ids) == count
    best = [max(ids, key=lambda id_: row[id_]) for row in logits[:count]]
    assert text.ids == best


def test_constraints_hold_in_a_batch():
    lm = tiny("qwen2")
    strings = ["dog", "dogs", "cat", "a much longer name"]
    prompts = [random_ids(n, seed=n) for n in (4, 9, 6)]
    texts = lm.generate(
        prompts, 30, constraints=[Trie(strings, lm.tokenizer), None, TokenSet(range(10, 20), 4)]
    )
    assert texts[0].text in strings
    assert texts[1].ids == lm.generate(prompts[1:2], 30)[0].ids
    assert len(texts[2].ids) == 4
    assert set(texts[2].ids) <= set(range(10, 20))
    assert lm.generate(prompts[:1], 2, constraints=[TokenSet([5], 4)])[0].stop == "length"


class Prefixing(Letters):
    """As SentencePiece: a text begins with a space; and two spaces melt into token 1."""

    def encode(self, text):
        return super().encode((" " + text).replace("  ", "\x01"))


def test_strings_are_tokenised_as_they_are_behind_other_text():
    assert encode_behind("dog", Prefixing()) == Letters().encode("dog")
    assert encode_behind(" dog", Prefixing()) == Letters().encode(" dog")


def test_threads_get_what_they_would_get_alone():
    lm = tiny("llama")
    prompts = [random_ids(n, seed=n) for n in (5, 8, 12, 30)]
    alone = [lm.generate([prompt], 8)[0].ids for prompt in prompts]
    lm._reader.prefixes = Prefixes(1 << 30)
    found: dict[int, list[int]] = {}

    def work(i):
        found[i] = lm.generate([prompts[i]], 8)[0].ids
        lm.score(prompts[i], [[4, 5], [6]])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(4)] == alone


def test_recent_prompts_are_kept_within_their_bytes():
    def prefix(ids):
        return Prefix(np.array(ids), [(np.zeros(100, np.float32),) * 2], np.zeros(0, np.float32))

    kept = Prefixes(limit=2000)  # two of 800 bytes
    first, second, third = (list(range(start, start + 30)) for start in (0, 100, 200))
    kept.add(prefix(first))
    kept.add(prefix(second))
    assert kept.longest([*first[:20], 99])[1] == 20  # and now `second` is the oldest
    kept.add(prefix(third))
    assert kept.longest(second) == (None, 0)
    assert kept.longest(first)[1] == 30
    kept.add(prefix([*third, 5]))  # in the place of `third`
    assert kept.longest(first)[1] == 30
    assert kept.longest([*third, 5, 6])[1] == 31
    assert kept.longest(first[:10]) == (None, 0)  # too short to be worth it


def test_wrong_requests_are_named():
    lm, prompt = tiny("llama"), random_ids(4)
    with pytest.raises(InputError, match="temperature from 0"):
        lm.generate([prompt], 5, temperature=-1)
    with pytest.raises(InputError, match="top_p"):
        lm.generate([prompt], 5, top_p=0)
    with pytest.raises(InputError, match="max_tokens from 1"):
        lm.generate([prompt], 0)
    with pytest.raises(InputError, match="prompt: wanted 1 to 1023"):
        lm.generate([[]], 5)
    with pytest.raises(InputError, match="sequence of strings"):
        lm.generate([prompt], 5, stop="\n")
    with pytest.raises(InputError, match="for each of 1 prompts"):
        lm.generate([prompt], 5, constraints=[])
    with pytest.raises(InputError, match="against: wanted one for each of 1"):
        lm.generate([prompt], 5, against=[])
    with pytest.raises(InputError, match="at most 15 other prompts for each; got 16"):
        lm.generate([prompt], 5, against=[[prompt] * 16])
    with pytest.raises(InputError, match="prompt: wanted 1 to 1023"):
        lm.generate([prompt], 5, against=[[[]]])
    with pytest.raises(InputError, match="contrast: wanted a number from 0; got -1"):
        lm.generate([prompt], 5, against=[[prompt]], contrast=-1)
    with pytest.raises(InputError, match="none of them empty"):
        Trie(["a", ""], lm.tokenizer)
    with pytest.raises(InputError, match="count from 1"):
        TokenSet([4], 0)
