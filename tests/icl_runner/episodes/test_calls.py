"""Likelihoods of names: which calls ask for them, and what becomes of their answers."""

import dataclasses

import pytest

from icl_runner import prompts
from icl_runner.dice import Dice
from icl_runner.episodes import calls
from icl_runner.episodes.draw import Episode, Shot
from icl_runner.tasks.classify import Classify
from spae.errors import InputError

EPISODE = Episode(
    id="e1",
    names={"n01": "beagle", "n02": "boat"},
    support=(Shot("s1", "n02"), Shot("b1", "n01")),
    query=Shot("b2", "n01"),
    other="t1",
)
WORDS = {"b1": "dog pup", "b2": "hound ear", "s1": "boat sea", "t1": "wall stone"}
WORDS |= {f"x{i}": f"top{i} low{i}" for i in range(4)} | {"b3": "dog tail"}
NEUTRAL = [Shot(f"x{i}", "n03") for i in range(4)] + [Shot("b3", "n01"), Shot("b2", "n01")]


def asked(**changes) -> calls.Asked:
    return calls.Asked(**{"constrains": True, "neutral": NEUTRAL, **changes})


def test_what_is_asked_for_likelihoods():
    (item,) = calls.items([EPISODE], WORDS, asked(content_free=2, orders=4))
    scored = {call.key: call for call in item.calls if call.likelihoods}
    first, free = ["likeliest", "likeliest_other"], ["content-free1", "content-free2"]
    # Two examples have two orders, however many are asked for; the calls of one context follow each other.
    assert list(scored) == [*first, *free, "order2", "order2_other"]
    assert {call.choices for call in scored.values()} == {("beagle", "boat")}
    opened = item.calls[0].prompt
    assert scored["likeliest"].prompt == opened
    assert {scored[key].prompt.context for key in (*first, *free)} == {opened.context}
    turned = [("dog pup", "beagle"), ("boat sea", "boat")]
    assert scored["order2_other"].prompt == prompts.classify(["beagle", "boat"], turned, "wall stone")
    (plain,) = calls.items([EPISODE], WORDS, asked())
    assert plain.calls == item.calls[:4]
    (no_control,) = calls.items([EPISODE], WORDS, asked(content_free=1, control=False, rules=("open",)))
    assert [call.key for call in no_control.calls] == ["open", "likeliest", "content-free1"]


def test_a_content_free_prompt_is_of_no_image_and_of_no_class_of_the_episode():
    (item,) = calls.items([EPISODE], WORDS, asked(content_free=9))
    seen = [call.prompt.query for call in item.calls if call.key.startswith("content-free")]
    shown = [query.removeprefix("Input: ").partition("\n")[0].split() for query in seen]
    assert all(top.startswith("top") and low.startswith("low") for top, low in shown)
    assert all(top[3:] != low[3:] for top, low in shown)
    assert len(set(map(tuple, shown))) > 2
    # Only where all images are of its classes, others of them are taken; never its own.
    (item,) = calls.items([EPISODE], WORDS, asked(content_free=1, neutral=NEUTRAL[4:]))
    assert item.calls[-1].prompt.query == "Input: dog tail\nOutput:"
    with pytest.raises(InputError, match="none is left"):
        calls.items([EPISODE], WORDS, asked(content_free=1, neutral=NEUTRAL[5:]))


def test_orders_are_different_and_the_same_every_time():
    found = calls.orders("abc", 5, Dice("x"))
    assert found[0] == list("abc")
    assert len(set(map(tuple, found))) == 5
    assert found == calls.orders("abc", 5, Dice("x"))
    assert found[:3] == calls.orders("abc", 3, Dice("x"))
    assert len(calls.orders("aa", 9, Dice("x"))) == 2


def test_likelihoods_are_scored_in_columns_of_their_own():
    (item,) = calls.items([dataclasses.replace(EPISODE)], WORDS, asked(content_free=2, orders=2))
    # The model likes boats, whatever it sees; the beagle's words move it, not far enough.
    answers = {
        "open": " boat\n",
        "constrained": " beagle",
        "likeliest": {"beagle": -3.0, "boat": -2.0},
        "likeliest_other": {"beagle": -5.0, "boat": -1.0},
        "content-free1": {"beagle": -5.0, "boat": -2.0},
        "content-free2": {"beagle": -6.0, "boat": -2.0},
        "order2": {"beagle": -1.0, "boat": -2.5},
        "order2_other": {"beagle": -1.0, "boat": -4.5},
    }
    values, metadata = Classify.score(item.shown, answers)
    assert values == {
        "open": 0,
        "constrained": 1,
        "likeliest": 0,
        "likeliest_other": 0,
        "calibrated": 1,
        "calibrated_other": 0,
        "orders": 1,
        "orders_other": 0,
    }
    assert metadata["answers"] == answers


def test_likelihoods_of_a_chat_model_are_refused():
    task = Classify(model="openai/gpt", data="photographs", orders=2)
    with pytest.raises(InputError, match="wanted a model that tells how likely"):
        task._asked(None)
    task = Classify(model="completions/m", data="photographs", content_free=2)
    with pytest.raises(InputError, match=r"dialect=llama\.cpp or vllm"):
        task._asked(None)
