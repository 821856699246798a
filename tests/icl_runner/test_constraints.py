"""Constraints survive the way through an extra body and JSON, and are checked where they are made."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_runner.constraints import Choices, Words, from_extra_body, spaced, supports
from spae.errors import InputError

texts = st.text(min_size=1).filter(str.strip)


@given(st.lists(texts, min_size=1, max_size=5, unique=True).map(tuple).map(Choices))
def test_choices_survive_json(choices):
    assert from_extra_body(json.loads(json.dumps(choices.extra_body()))) == choices


@given(
    st.integers(1, 1000),
    st.text(min_size=1),
    st.lists(texts, max_size=3, unique=True).map(tuple),
    st.floats(0, 9),
)
def test_words_survive_json(count, bundle, against, contrast):
    words = Words(count, bundle, against, contrast if against else 0.0)
    assert from_extra_body(json.loads(json.dumps(words.extra_body()))) == words


def test_what_else_is_in_the_body_does_not_matter():
    assert from_extra_body({"min_p": 0.1, **Words(3).extra_body()}) == Words(3, "default")
    assert from_extra_body({"min_p": 0.1}) is None
    assert from_extra_body({}) is None
    assert from_extra_body(None) is None


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"choices": "dog"},
        {"choices": []},
        {"choices": ["dog", "dog"]},
        {"choices": ["dog", " "]},
        {"choices": ["dog", 3]},
        {"choices": ["dog"], "words": 3},
        {"words": 0},
        {"words": "3"},
        {"words": True},
        {"words": 3, "bundle": ""},
        {"words": 3, "layers": 2},
        {"words": 3, "bundle": "a", "against": ["a prompt"]},
        {"words": 3, "bundle": "a", "against": "a prompt", "contrast": 1.0},
        {"words": 3, "bundle": "a", "against": ["a prompt", " "], "contrast": 1.0},
        {"words": 3, "bundle": "a", "against": ["a prompt", "a prompt"], "contrast": 1.0},
        {"words": 3, "bundle": "a", "against": ["a prompt"], "contrast": -1.0},
        {"words": 3, "bundle": "a", "against": ["a prompt"], "contrast": "1"},
        {"pattern": "("},
        {"pattern": 3},
        {"pattern": "a", "words": 3},
        ["dog"],
        None,
    ],
)
def test_others_are_refused(content):
    with pytest.raises(InputError, match="wanted"):
        from_extra_body({"spae": content})


def test_a_text_continues_the_prompt_behind_one_space():
    assert spaced("Output:", "dog") == " dog"
    assert spaced("Output:", " dog") == " dog"
    assert spaced("Output:\n", "dog") == "dog"
    assert spaced("Output: ", "dog") == "dog"
    assert spaced("", "dog") == spaced("(", "dog") == "dog"


def test_who_takes_constraints():
    assert supports("spae-lm/default")
    assert supports("completions/org/model")
    assert not supports("openai/gpt-4o")
    assert not supports("google/completions")
