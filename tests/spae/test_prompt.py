"""The text for a chat: it tells the numbers, shows the example, and what a model makes of it is read without a loss."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from fake_tokenizer import WORDS, FakeTokenizer

from spae.demo import PHOTOGRAPHS, read_credits
from spae.errors import InputError
from spae.images import open_image
from spae.prompt import EXAMPLE, EXAMPLE_FILE, WISH
from spae.pyramid import Pyramid, PyramidShape
from spae.tokenizer import Tokenizer

TOKENIZER = FakeTokenizer()
RNG = np.random.default_rng(0)
PYRAMID = Pyramid(
    tuple(RNG.integers(0, len(WORDS), grid) for grid in TOKENIZER.shape.layers),
    TOKENIZER.shape,
    TOKENIZER.vocabulary,
)
ONE, FOUR, SIXTEEN = PYRAMID.words()


def rows(words: list[str], across: int) -> str:
    return "\n".join(" ".join(words[i : i + across]) for i in range(0, len(words), across))


PLAIN = "\n\n".join((rows(ONE, 1), rows(FOUR, 2), rows(SIXTEEN, 4)))


def test_what_is_asked_for():
    told = TOKENIZER.prompt(3, {"a thing": PYRAMID})
    assert "exactly 21 words: 3 grids" in told
    assert "grid 1: 1 word\ngrid 2: 2 rows of 2 words\ngrid 3: 4 rows of 4 words\n" in told
    assert "knows 8." in told
    assert f"For example, a thing:\n\n{PLAIN}\n\n" in told
    assert "the words only" in told
    assert told.endswith(f"{WISH}\n")
    # Two layers of the fake one say what is seen; only with a third there is paint.
    assert "first 2 grids say" in told
    assert "Those of the finer grids are used like paint" in told
    assert "\n\nWords that paint:\nblack: black coal\nwhite: white snow\n\nFor example" in told
    assert "like paint" not in TOKENIZER.prompt(2)
    assert TOKENIZER.prompt(None) == TOKENIZER.prompt(2)


@pytest.mark.parametrize(
    ("meaning", "said"), [(0, "The words are used like paint"), (1, "The words of the first grid say what")]
)
def test_paint_below_fewer_layers_that_say_what_is_seen(meaning, said, monkeypatch):
    monkeypatch.setattr(TOKENIZER, "config", SimpleNamespace(meaning_layers=meaning))
    monkeypatch.setattr(TOKENIZER, "palette", {})  # of a tokenizer that has none
    told = TOKENIZER.prompt(2, {"a thing": PYRAMID})
    assert said in told
    assert "learn them from the example.\n\nFor example" in told


def test_layers_and_examples_are_checked():
    with pytest.raises(InputError, match="layers"):
        TOKENIZER.prompt(0)
    other = Pyramid(PYRAMID.ids[:2], PyramidShape((1, 2)), TOKENIZER.vocabulary)
    with pytest.raises(InputError, match="use the tokenizer it is from"):
        TOKENIZER.prompt(2, {"a thing": other})
    for wrong in (3, None):
        with pytest.raises(InputError, match="wanted a pyramid"):
            Tokenizer.check(TOKENIZER, wrong)


def test_the_example_that_comes_with_the_project():
    assert read_credits()[EXAMPLE_FILE].what == EXAMPLE
    words = TOKENIZER.encode(open_image(PHOTOGRAPHS / EXAMPLE_FILE)).words(2)
    told = TOKENIZER.prompt(2, json=True)
    assert f"For example, {EXAMPLE}:\n\n{json.dumps({'layers': words})}\n" in told
    assert "JSON only" in told


@pytest.mark.parametrize(
    "answer",
    [
        PLAIN,
        PLAIN.title(),
        " ".join(PLAIN.split()),
        f"```\n{PLAIN}\n```",
        f"Sure! Here is your picture in words:\n\n{PLAIN}\n\nWould you like me to change anything?",
        f"Sure, here is the picture:\n\n```text\n{PLAIN}\n```\n\nLet me know what you think!",
        f"**Grid 1:**\n{ONE[0]}\n\n**Grid 2:**\n{rows(FOUR, 2)}\n\n**Grid 3:**\n{rows(SIXTEEN, 4)}",
        f"grid 1: {ONE[0]}\ngrid 2: {', '.join(FOUR)}\ngrid 3: {', '.join(SIXTEEN)}",
        "\n".join(f"{number}. {word}" for number, word in enumerate(PLAIN.split(), 1)),
        json.dumps({"layers": PYRAMID.words()}),
        f"```json\n{json.dumps({'layers': PYRAMID.words()}, indent=2)}\n```",
        f"Here you go:\n```json\n{json.dumps(PYRAMID.words())}\n```\nEnjoy!",
        json.dumps({"grid 1": ONE, "grid 2": FOUR, "grid 3": SIXTEEN}),
    ],
)
def test_answers_that_come_back(answer):
    assert TOKENIZER.parse(answer).strict() == PYRAMID
    assert TOKENIZER.parse(answer, 3).strict() == PYRAMID


def test_examples_that_there_are_not():
    with pytest.raises(InputError, match="at least one example"):
        TOKENIZER.prompt(2, {})
    with pytest.raises(InputError, match="holds the first 1 of 3"):
        TOKENIZER.prompt(2, {"a thing": PYRAMID.prefix(1)})
    with pytest.raises(InputError, match="layers"):
        TOKENIZER.prompt(4)
