"""Progressive decoding: plans, what a prompt shows, parallel segments, choice, repairs, failures."""

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_runner.pictures.progressive import (
    Answer,
    Pair,
    Segment,
    agreement,
    approximate_tokens,
    check_fits,
    choose,
    complete,
    decode,
    flat_words,
    make_plan,
    prompt_for,
    read_words,
    to_pyramid,
)
from icl_runner.prompts import Prompt
from spae.errors import InputError
from spae.pyramid import Pyramid, PyramidShape
from spae.text import parse
from spae.vocabulary import View, Vocabulary

WORDS = ("black", "coal", "dusk", "grey", "mist", "pale", "snow", "white")
SHAPE = PyramidShape((1, 2, 4))


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    views = {"meaning": View.raw(), "appearance": View.raw()}
    return Vocabulary(WORDS, np.arange(8, dtype=np.int32), np.eye(8, dtype=np.float32), views, {})


def write(pairs, condition, words):
    blocks = [f"In: {one}\nOut: {other}\n" for one, other in pairs]
    return Prompt("".join(blocks), f"In: {condition}\nOut:{' ' + words if words else ''}")


def run(plan, ask, vocabulary, pairs=(), condition="a cat", **options):
    async def main():
        return await decode(plan, pairs, condition, write, ask, vocabulary, **options)

    return anyio.run(main)


@given(
    st.integers(1, 6).flatmap(lambda layers: st.tuples(st.just(layers), st.integers(0, layers))),
    st.integers(1, 100),
)
def test_a_plan_covers_every_word_once_and_never_crosses_a_layer(layers, words):
    shape = PyramidShape((1, 2, 4, 8, 16, 16))
    layers, autoregressive = layers
    plan = make_plan(shape, layers, autoregressive, words)
    covered = [place for segment in plan.segments for place in range(segment.start, segment.stop)]
    assert covered == list(range(shape.tokens(layers)))
    for segment in plan.segments:
        first = shape.tokens(segment.layer) - int(np.prod(shape.layers[segment.layer - 1]))
        assert first <= segment.start < segment.stop <= shape.tokens(segment.layer)
        assert segment.count <= words
        if segment.layer <= autoregressive:
            assert segment.given == segment.start
        else:
            assert segment.given == (shape.tokens(autoregressive) if autoregressive else 0)
    assert [s for wave in plan.waves for s in wave] == list(plan.segments)
    assert all(len(wave) == 1 for wave in plan.waves[:-1])


def test_the_practical_plan_is_one_four_sixteen_then_four_slices_at_once():
    plan = make_plan(PyramidShape((1, 2, 4, 8, 16, 16)), 4, autoregressive=3, words=16)
    assert [[(s.start, s.stop, s.given) for s in wave] for wave in plan.waves] == [
        [(0, 1, 0)],
        [(1, 5, 1)],
        [(5, 21, 5)],
        [(21, 37, 21), (37, 53, 21), (53, 69, 21), (69, 85, 21)],
    ]


def test_words_of_a_segment_may_differ_by_layer():
    plan = make_plan(SHAPE, 3, autoregressive=2, words=(1, 2, 16))
    assert [(s.start, s.stop) for s in plan.segments] == [(0, 1), (1, 3), (3, 5), (5, 21)]


@pytest.mark.parametrize(
    "arguments",
    [
        {"layers": 4},
        {"layers": 2, "autoregressive": 3},
        {"layers": 2, "words": 0},
        {"layers": 2, "words": (1,)},
    ],
)
def test_a_plan_that_cannot_be_is_refused(arguments):
    with pytest.raises(InputError):
        make_plan(SHAPE, **arguments)


def test_a_prompt_shows_what_the_segment_needs_and_nothing_else():
    numbers = tuple(f"w{i}" for i in range(21))
    query = tuple(f"q{i}" for i in range(21))
    segment = Segment(layer=3, start=9, stop=12, given=5)
    text = prompt_for(segment, [Pair("a dog", numbers)], "a cat", query, write).text
    assert text == "In: a dog\nOut: w0 w1 w2 w3 w4 w9 w10 w11\nIn: a cat\nOut: q0 q1 q2 q3 q4"
    inputs = tuple(f"i{i}" for i in range(21))
    text = prompt_for(segment, [Pair(inputs, numbers)], query, numbers, write).text
    assert text.startswith("In: i0 i1 i2 i3 i4 i9 i10 i11\n")
    assert "\nIn: q0 q1 q2 q3 q4 q9 q10 q11\nOut: w0 w1 w2 w3 w4" in text


def test_decode_conditions_ar_on_everything_before_and_asks_nar_at_the_same_time(vocabulary):
    prompts, at_once, most = [], 0, 0

    async def ask(prompt, against, count, seed):
        nonlocal at_once, most
        prompts.append((prompt.text, count, seed))
        at_once += 1
        most = max(most, at_once)
        await anyio.sleep(0.01)
        at_once -= 1
        return Answer(" ".join([WORDS[len(prompts) % 8]] * count))

    decoded = run(make_plan(SHAPE, 3, autoregressive=2, words=4), ask, vocabulary)
    assert most == 4  # the slices of layer 3, and no two AR segments
    assert [count for _, count, _ in prompts] == [1, 4, 4, 4, 4, 4]
    assert prompts[1][0] == "In: a cat\nOut: coal"
    assert {text for text, _, _ in prompts[2:]} == {"In: a cat\nOut: coal dusk dusk dusk dusk"}
    assert len({seed for _, _, seed in prompts}) == 6
    assert decoded.words[:5] == ("coal", "dusk", "dusk", "dusk", "dusk")
    assert len(decoded.words) == 21
    assert (decoded.repairs, decoded.failures) == ({}, ())


def test_wrong_few_and_many_words_are_repaired_filled_and_counted(vocabulary):
    answers = {1: "Coal!", 4: "snow blakc", 16: " ".join(["white"] * 18)}

    async def ask(prompt, against, count, seed):
        return Answer(answers[count])

    decoded = run(make_plan(SHAPE, 3), ask, vocabulary)
    assert decoded.words[:5] == ("coal", "snow", "black", "coal", "coal")  # the last two: the word above
    assert decoded.words[5:] == ("white",) * 16
    assert decoded.repairs == {"case": 1, "punctuation": 1, "unknown": 1, "missing": 2, "surplus": 1}


def test_an_answer_as_models_continue_a_text_needs_no_repair(vocabulary):
    assert read_words(" snow pale\n", 2, vocabulary) == (["snow", "pale"], {})
    assert read_words(" snow\npale", 2, vocabulary) == (["snow", "pale"], {"whitespace": 1})


def test_an_answer_in_no_word_of_the_vocabulary_leaves_the_rest(vocabulary):
    async def ask(prompt, against, count, seed):
        return Answer("Lo siento, pero no puedo" if count == 1 else "snow pale mist grey")

    decoded = run(make_plan(SHAPE, 2), ask, vocabulary)
    assert decoded.words == ("snow", "snow", "pale", "mist", "grey")
    assert decoded.repairs == {"missing": 1}
    assert decoded.failures == ()


def test_nothing_at_all_is_still_a_picture(vocabulary):
    async def ask(prompt, against, count, seed):
        return Answer("")

    decoded = run(make_plan(SHAPE, 3), ask, vocabulary)
    assert decoded.words == ("black",) * 21
    assert decoded.repairs == {"missing": 21}


def test_a_failed_slice_leaves_what_the_others_wrote(vocabulary):
    async def ask(prompt, against, count, seed):
        if seed == 3:
            raise OSError("cut off")
        return Answer(" ".join(["white"] * count))

    plan = make_plan(SHAPE, 3, autoregressive=2, words=4)
    decoded = run(plan, ask, vocabulary)
    assert decoded.words == ("white",) * 21
    assert decoded.repairs == {"missing": 4}
    [(segment, error)] = decoded.failures
    assert segment == plan.segments[3]
    assert str(error) == "cut off"


def test_after_a_failed_ar_segment_nothing_more_is_asked(vocabulary):
    asked = []

    async def ask(prompt, against, count, seed):
        asked.append(count)
        if count == 4:
            raise OSError("cut off")
        return Answer("pale")

    decoded = run(make_plan(SHAPE, 3), ask, vocabulary)
    assert asked == [1, 4]
    assert decoded.words == ("pale",) * 21
    assert decoded.repairs == {"missing": 20}
    assert len(decoded.failures) == 1


def test_the_likeliest_of_several_answers_is_taken(vocabulary):
    async def ask(prompt, against, count, seed):
        text, log_prob = {0: ("pale", -3.0), 1: ("snow", -0.5), 2: ("mist", -1.0)}[seed]
        await anyio.sleep(0.01 * (3 - seed))  # the order in which they come does not matter
        return Answer(text, log_prob)

    assert run(make_plan(SHAPE, 1), ask, vocabulary, samples=3).words == ("snow",)


def test_a_likely_refusal_does_not_win(vocabulary):
    answers = [Answer("I cannot do that", -0.1), Answer("pale", -5.0), Answer("snow", -4.0)]
    assert choose(answers, 1, vocabulary) == (["snow"], {})


@pytest.mark.parametrize("worse", ["1 2 3 4", "", "snow pale xyzzy plugh"])
def test_words_with_commas_are_better_than_none(vocabulary, worse):
    answers = [Answer(worse, -0.1), Answer("Snow, Pale, Mist, Grey", -3.0)]
    assert choose(answers, 4, vocabulary)[0] == ["snow", "pale", "mist", "grey"]


def test_an_answer_without_a_log_probability_is_not_the_likeliest(vocabulary):
    assert choose([Answer("pale"), Answer("snow", -0.2)], 1, vocabulary) == (["snow"], {})


def test_words_by_contrast_are_asked_for_with_the_same_words_under_other_conditions(vocabulary):
    asked = []

    async def ask(prompt, against, count, seed):
        asked.append((prompt, against))
        return Answer(" ".join(["snow"] * count))

    pairs = [Pair("a dog", WORDS[:1] * 21), Pair("a cat", WORDS[1:2] * 21)]
    run(make_plan(SHAPE, 2), ask, vocabulary, pairs, contrasted=["a dog", "a bird"])
    assert len(asked) == 2
    for prompt, against in asked:
        for condition, other in zip(("a dog", "a bird"), against, strict=True):
            assert other.context == prompt.context
            assert other.query == prompt.query.replace("a cat", condition)
    assert "snow" in asked[1][1][0].query  # what is written is there already


def test_the_answer_that_agrees_most_with_its_condition_is_taken(vocabulary):
    """ "black" is what the model likes best, whatever is asked; "snow" is what a cat makes likelier."""
    answers = iter(["black", "snow", "snow", "pale"])
    log_p = {
        "a cat": {"black": -1.0, "snow": -2.0, "pale": -6.0},
        "a dog": {"black": -1.0, "snow": -5.0, "pale": -5.0},
    }
    weighed = []

    async def ask(prompt, against, count, seed):
        return Answer(next(answers), -1.0)

    async def weigh(prompt, texts):
        weighed.append((prompt.text, texts))
        return [log_p[prompt.query.split("\n")[0].removeprefix("In: ")][text] for text in texts]

    pairs = [Pair("a dog", WORDS[:1] * 21), Pair("a cat", WORDS[1:2] * 21), Pair("a dog", WORDS[2:3] * 21)]
    plan = make_plan(SHAPE, 1)
    decoded = run(plan, ask, vocabulary, pairs, samples=4, weigh=weigh, others=["a dog"])
    assert decoded.words == ("snow",)
    # Equal answers once; behind the condition and behind the other.
    assert [texts for _, texts in weighed] == [["black", "snow", "pale"]] * 2
    assert [text.rpartition("In: ")[2] for text, _ in weighed] == ["a cat\nOut:", "a dog\nOut:"]


def test_agreement_is_log_p_less_log_of_the_mean_p():
    rows = [[-1.0, -2.0], [-3.0, -1.0], [-2.0, -2.5]]

    asked = []

    async def weigh(prompt, texts):
        assert texts == ["snow", "pale"]
        asked.append(prompt)
        with anyio.fail_after(10):  # all are asked before any has its answer
            while len(asked) < 3:
                await anyio.sleep(0.001)
        return rows[int(prompt.query)]

    given = [Answer("snow", -9.0), Answer(" pale\n"), Answer("", -0.1), Answer("snow")]
    found = anyio.run(agreement, given, [Prompt("", str(i)) for i in range(3)], weigh)
    wanted = np.array(rows[0]) - np.log(np.exp(rows).mean(0))
    assert [found[0].log_prob, found[1].log_prob, found[3].log_prob] == pytest.approx([*wanted, wanted[0]])
    assert found[2].log_prob is None


def test_a_weighing_that_fails_fails_the_picture(vocabulary):
    answers = iter(["black", "snow"])

    async def ask(prompt, against, count, seed):
        return Answer(next(answers))

    async def weigh(prompt, texts):
        raise OSError("cut off")

    pairs = [Pair("a dog", WORDS[:1] * 21)]
    decoded = run(make_plan(SHAPE, 1), ask, vocabulary, pairs, samples=2, weigh=weigh, others=["a dog"])
    [(segment, error)] = decoded.failures
    assert (segment.count, str(error)) == (1, "cut off")


def test_without_log_probabilities_the_first_with_fewest_repairs_is_taken(vocabulary):
    answers = [
        Answer("pale mist"),
        Answer("1. pale snow dusk coal"),
        Answer("snow pale mist grey"),
        Answer("grey " * 4),
    ]
    words, repairs = choose(answers, 4, vocabulary)
    assert words == ["snow", "pale", "mist", "grey"]
    assert not repairs


@given(st.lists(st.sampled_from([None, *WORDS]), min_size=1, max_size=21))
def test_fill_is_the_parsers_rule(words):
    views = {"meaning": View.raw(), "appearance": View.raw()}
    vocabulary = Vocabulary(WORDS, np.arange(8, dtype=np.int32), np.eye(8, dtype=np.float32), views, {})
    text = " ".join("unfathomable" if word is None else word for word in words)
    if all(word is None for word in words):
        assert complete(words, SHAPE, vocabulary) == ["black"] * len(words)
    else:
        expected = parse(text, vocabulary, SHAPE, layers=3).pyramid.text().split()
        assert complete([*words, *[None] * (21 - len(words))], SHAPE, vocabulary) == expected
        assert complete(words, SHAPE, vocabulary) == expected[: len(words)]


def test_read_words_of_a_numbered_list(vocabulary):
    words, repairs = read_words("1. Snow\n2. pale\n", 3, vocabulary)
    assert words == ["snow", "pale", None]
    assert set(repairs) == {"numbering", "case", "whitespace"}


def test_pyramid_and_flat_words_are_inverse(vocabulary):
    rng = np.random.default_rng(0)
    ids = tuple(rng.integers(0, 8, grid) for grid in SHAPE.layers)
    pyramid = Pyramid(ids, SHAPE, vocabulary)
    assert to_pyramid(flat_words(pyramid, 3), 3, SHAPE, vocabulary) == pyramid
    assert to_pyramid(flat_words(pyramid, 2), 2, SHAPE, vocabulary) == pyramid.prefix(2)
    with pytest.raises(InputError, match="wanted 5 words"):
        to_pyramid(("snow",) * 4, 2, SHAPE, vocabulary)
    with pytest.raises(InputError, match="1 of them unknown"):
        to_pyramid(("snow",) * 4 + ("unfathomable",), 2, SHAPE, vocabulary)


def test_too_many_examples_are_refused_and_the_error_says_how_many_fit():
    plan = make_plan(SHAPE, 3, autoregressive=2, words=16)
    pairs = [Pair("a dog", WORDS[:1] * 21)] * 10

    def count(text):
        return len(text.split())

    # Of the last segment: 25 tokens an example, 9 of the query, 3 * 16 + 8 for the answer.
    assert check_fits(plan, pairs, "a cat", write, count, 315) == 315
    with pytest.raises(InputError, match="10 examples in context take up to 315, 9 examples fit"):
        check_fits(plan, pairs, "a cat", write, count, 314)
    with pytest.raises(InputError, match="not even one example fits"):
        check_fits(plan, pairs, "a cat", write, count, 89)
    assert check_fits(plan, pairs[:1], "a cat", write, count, 90) == 90


def test_tokens_of_words_marks_and_line_breaks():
    assert approximate_tokens("Input: an image of 1+7\nOutput: snow pale\n###\n") == 8 + 1 + 4 + 1 + 3 + 1
