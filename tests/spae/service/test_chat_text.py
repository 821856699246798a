"""Conversations with images become conversations of text, and say what is wrong with them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spae.errors import InputError
from spae.pyramid import PyramidShape
from spae.service.chat.messages import (
    Options,
    check_messages,
    for_upstream,
    image_places,
    preamble,
    read_options,
    to_text,
    with_preamble,
)

SHAPE = PyramidShape((1, 2, 4))


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text(words):
    return {"type": "text", "text": words}


def converted(messages):
    urls = image_places(check_messages(messages))
    return to_text(messages, {url: f"words of {url}" for url in urls}, {})


def test_an_image_becomes_words_in_its_place():
    messages: list[Any] = [{"role": "user", "content": [text("Look:"), image("data:1"), text("What is it?")]}]
    assert image_places(messages) == {"data:1": "messages[0].content[1]"}
    content = "Look:\n<image> words of data:1 </image>\nWhat is it?"
    assert converted(messages) == [{"role": "user", "content": content}]


def test_a_few_shot_conversation():
    messages = [
        {"role": "system", "content": [text("Name it.")]},
        {"role": "user", "name": "ann", "content": [image("data:1"), image("data:2")]},
        {"role": "assistant", "content": "a dog and a cat"},
        {"role": "user", "content": [image("data:1")]},
    ]
    assert image_places(messages) == {"data:1": "messages[1].content[0]", "data:2": "messages[1].content[1]"}
    assert converted(messages) == [
        {"role": "system", "content": "Name it."},
        {
            "role": "user",
            "name": "ann",
            "content": "<image> words of data:1 </image>\n<image> words of data:2 </image>",
        },
        {"role": "assistant", "content": "a dog and a cat"},
        {"role": "user", "content": "<image> words of data:1 </image>"},
    ]


def test_an_earlier_answer_with_images_beside_its_text():
    answer = {"role": "assistant", "content": "Here:", "images": [image("data:1")], "spae": {}}
    assert converted([answer])[0]["content"] == "Here:\n<image> words of data:1 </image>"
    assert converted([answer | {"content": None}])[0]["content"] == "<image> words of data:1 </image>"


def test_an_answer_of_ours_keeps_the_words_that_the_model_wrote():
    content = "Here: <image> dog park </image>"
    answer = {"role": "assistant", "content": content, "images": [image("data:1")], "spae": {"images": []}}
    assert image_places([answer]) == {}
    assert converted([answer]) == [{"role": "assistant", "content": content}]


def test_what_has_no_images_is_left_as_it_is():
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": " 42\n", "tool_call_id": "1"},
        {"role": "user", "content": ""},
    ]
    assert converted(messages) == messages


def test_other_parts_go_on_to_the_model():
    sound = {"type": "input_audio", "input_audio": {"data": ""}}
    assert converted([{"role": "user", "content": [sound, image("data:1")]}]) == [
        {"role": "user", "content": [sound, text("<image> words of data:1 </image>")]}
    ]


def test_an_address_without_an_object_around_it():
    assert list(
        image_places([{"role": "user", "content": [{"type": "image_url", "image_url": "data:1"}]}])
    ) == ["data:1"]


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hello", "messages"),
        (["hello"], r"messages\[0\]"),
        ([{"content": "x"}], r"messages\[0\]"),
        ([{"role": 3, "content": "x"}], r"messages\[0\]"),
        ([{"role": "user", "content": 3}], r"messages\[0\]\.content"),
        ([{"role": "user", "content": ["x"]}], r"messages\[0\]\.content\[0\]"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"content\[0\]"),
        ([{"role": "user", "content": [{"type": []}]}], r"content\[0\]"),
        ([{"role": "user", "content": [text("a"), {"type": "image_url"}]}], r"content\[1\]"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": None}}]}], r"content\[0\]"),
        ([{"role": "user", "images": "x"}], r"messages\[0\]\.images"),
        ([{"role": "user", "images": [text("x")]}], r"messages\[0\]\.images\[0\]"),
    ],
)
def test_bad_messages_are_named(messages, place):
    with pytest.raises(InputError, match=place):
        check_messages(messages)


def test_options():
    assert read_options({}, SHAPE) == Options(2, None, False)
    assert read_options({"spae": None, "modalities": None}, PyramidShape((1,))) == Options(1, None, False)
    body = {"spae": {"layers": 3, "preamble": ""}, "modalities": ["text", "image"]}
    assert read_options(body, SHAPE) == Options(3, "", True)
    assert read_options({"modalities": ["image"]}, SHAPE) == Options(2, None, True, False)
    assert read_options({}, SHAPE, "ours") == Options(2, "ours")
    assert read_options({"spae": {"preamble": ""}}, SHAPE, "ours") == Options(2, "")
    assert read_options({"modalities": ["text"]}, SHAPE) == Options(2, None, False, True)


@pytest.mark.parametrize(
    "body",
    [
        {"spae": 2},
        {"spae": []},
        {"spae": {"layer": 2}},
        {"spae": {"layers": 0}},
        {"spae": {"layers": 4}},
        {"spae": {"layers": "2"}},
        {"spae": {"layers": True}},
        {"spae": {"preamble": 1}},
        {"modalities": "image"},
        {"modalities": [1]},
        {"stream": "yes"},
    ],
)
def test_bad_options(body):
    with pytest.raises(InputError, match=r"layers|spae|modalities|stream"):
        read_options(body, SHAPE)


def test_upstream_sees_nothing_of_ours():
    body = {"model": "m", "temperature": 0, "spae": {"layers": 2}, "modalities": ["text", "image"]}
    assert for_upstream(body) == {"model": "m", "temperature": 0}
    assert for_upstream({"modalities": ["text", "audio"]}) == {"modalities": ["text", "audio"]}


def test_the_preamble_says_how_pictures_are_written():
    said = preamble(SHAPE, Options(2))
    assert "<image> and </image>: 1 word for the whole, then 2 x 2 words" in said
    assert "its 5 words" in said
    assert "End your answer" not in said
    assert preamble(SHAPE, Options(3, draw=True)).endswith("End your answer with a picture.")
    assert preamble(SHAPE, Options(3, draw=True, text=False)).endswith("Answer with a picture alone.")
    assert preamble(SHAPE, Options(2, preamble="mine", draw=True)) == "mine"


def test_the_preamble_goes_into_the_first_system_message():
    user = {"role": "user", "content": "hi"}
    assert with_preamble([user], "P") == [{"role": "system", "content": "P"}, user]
    system = {"role": "developer", "content": "Be brief."}
    assert with_preamble([system, user], "P") == [{"role": "developer", "content": "P\n\nBe brief."}, user]
    assert with_preamble([system, user], "") == [system, user]


_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
_JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)
_TYPES = st.sampled_from(["text", "image_url", "input_audio"]) | _JSON
_IMAGES = st.fixed_dictionaries({"url": st.text(max_size=5) | _JSON}) | _JSON
_PARTS = (
    st.fixed_dictionaries({"type": _TYPES}, optional={"text": st.text() | _JSON, "image_url": _IMAGES})
    | _JSON
)
_MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]) | _JSON},
    optional={
        "content": st.text() | st.lists(_PARTS, max_size=3) | _JSON,
        "images": st.lists(_PARTS, max_size=2) | _JSON,
    },
)


@given(st.lists(_MESSAGE | _JSON, max_size=3) | _JSON)
def test_any_json_is_a_conversation_or_an_input_error(messages):
    try:
        checked = check_messages(messages)
    except InputError:
        return
    text = to_text(checked, {url: "words" for url in image_places(checked)}, {})
    with_preamble(text, "P")
    assert len(text) == len(messages)
    assert not any("images" in message for message in text)
    assert image_places(text) == {}
