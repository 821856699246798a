"""Whatever an upstream answers, the door passes it on or leaves it alone; nothing in it makes the door fail."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from spae.service.chat.answers import complete, relay

_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
_JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)
_CONTENT = st.sampled_from(["<image> a </image>", "x <ima", "ge> b", "</image>", "fine"]) | _JSON
_SAID = st.fixed_dictionaries({}, optional={"content": _CONTENT, "role": _JSON, "tool_calls": _JSON}) | _JSON
_CHOICE = st.fixed_dictionaries(
    {},
    optional={"index": st.integers(0, 1) | _JSON, "message": _SAID, "delta": _SAID, "finish_reason": _JSON},
)
_REPLY = st.fixed_dictionaries(
    {"id": _JSON},
    optional={"choices": st.lists(_CHOICE | _JSON, max_size=3) | _JSON, "usage": _JSON, "error": _JSON},
)


async def draw(picture):
    part = {"index": picture.number}
    return (part if picture.words else None), {"words": picture.words}


async def _relayed(chunks):
    async def source():
        for chunk in chunks:
            yield chunk

    return [chunk async for chunk in relay(source(), draw)]


def _texts(chunks):
    """The text of every choice, joined."""
    texts = {}
    for chunk in chunks:
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
            continue
        for choice in choices:
            index, delta = choice.get("index"), choice.get("delta")
            content = delta.get("content") if isinstance(delta, dict) else None
            index = index if isinstance(index, int) else 0
            texts[index] = texts.get(index, "") + (content if isinstance(content, str) else "")
    return {index: text for index, text in texts.items() if text}


@given(_REPLY)
def test_any_reply_keeps_what_it_has(reply):
    answer = asyncio.run(complete(reply, draw))
    assert answer.keys() == reply.keys()
    rest = reply.keys() - {"choices"}
    assert {key: answer[key] for key in rest} == {key: reply[key] for key in rest}


@given(st.lists(_REPLY, max_size=4))
def test_any_stream_keeps_its_text(chunks):
    relayed = asyncio.run(_relayed(chunks))
    assert _texts(relayed) == _texts(chunks)
    others = [chunk for chunk in chunks if not chunk.get("choices")]
    assert [chunk for chunk in relayed if not chunk.get("choices")] == others


def test_two_choices_in_one_chunk():
    def chunk(first, second, reason=None, **more):
        choices = [
            {"index": i, "delta": {"content": text}, "finish_reason": reason, "logprobs": {"of": i}}
            for i, text in enumerate((first, second))
        ]
        return {"id": "1", "choices": choices, **more}

    chunks = [chunk("a <image> x", "b"), chunk(" </image> c", "d <ima", "stop", usage={"n": 1})]
    relayed = asyncio.run(_relayed(chunks))
    assert [(one["choices"][0]["index"], one["choices"][0]["delta"]) for one in relayed] == [
        (0, {"content": "a <image> x"}),
        (1, {"content": "b"}),
        (0, {"content": " </image>"}),
        (0, {"content": "", "images": [{"index": 0}], "spae": {"images": [{"words": "x"}]}}),
        (0, {"content": " c"}),
        (1, {"content": "d <ima"}),
    ]
    ends = [one["choices"][0]["finish_reason"] for one in relayed]
    assert ends == [None, None, None, None, "stop", "stop"]
    log_probs = [one["choices"][0].get("logprobs") for one in relayed]
    assert log_probs == [{"of": 0}, {"of": 1}, {"of": 0}, None, None, {"of": 1}]
    assert [one.get("usage") for one in relayed] == [None] * 5 + [{"n": 1}]
