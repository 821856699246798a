"""What is written about an image becomes turns, or is rejected for a reason that is counted."""

import pytest

from icl_runner.answer_file import Answer
from icl_runner.instruct import check
from icl_runner.instruct.prompts import DETAIL_QUESTIONS, KINDS, told


def reason(text, question=None, cut=False):
    with pytest.raises(check.Rejected) as rejected:
        check.turns(Answer(text, cut), question)
    assert str(rejected.value) in check.REASONS
    return str(rejected.value)


def test_questions_and_answers_become_turns():
    written = "Q: What is there?\nA: A cat,\nand a 0.5 litre cup.\n\nquestion: Which colour?\nAnswer: Black."
    turns = check.turns(Answer(written), None)
    assert [(turn.speaker, turn.text) for turn in turns] == [
        ("human", "<image>\nWhat is there?"),
        ("gpt", "A cat,\nand a 0.5 litre cup."),
        ("human", "Which colour?"),
        ("gpt", "Black."),
    ]
    described = check.turns(Answer(" A cat sleeps. "), "Describe it.")
    assert [turn.text for turn in described] == ["<image>\nDescribe it.", "A cat sleeps."]
    assert check.same(described) == check.same(check.turns(Answer("a cat SLEEPS"), "Describe it!"))


@pytest.mark.parametrize(
    "form",
    [
        "A cat.",
        "A: A cat.",
        "Q: What?",
        "Q: What?\nA:",
        "Sure!\nQ: What?\nA: A cat.",
        "Q: a?\nQ: b?\nA: c\nA: d",
    ],
)
def test_what_does_not_alternate(form):
    assert reason(form) == "form"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("A cat \ud800", "characters"),
        ("The caption says that a cat sleeps.", "captions"),
        ("As described, a cat sleeps.", "captions"),
        ("Its colour is not mentioned.", "captions"),
        ("The image does not specify who it is.", "captions"),
        ("From the information provided, a cat sleeps.", "captions"),
        ("A cat sleeps at [0.3, 0.2, 0.4, 0.9].", "coordinates"),
        ("A cat sleeps at (0.3, 0.2).", "coordinates"),
        ("Its left edge is at 0.312.", "coordinates"),
        ("Its bounding box is small.", "coordinates"),
        ("I cannot see the image.", "refused"),
        ("As an AI language model, I like cats.", "refused"),
        ("In <image> a cat sleeps.", "placeholder"),
    ],
)
def test_what_is_rejected(text, why):
    assert reason(text, "Describe it.") == why


@pytest.mark.parametrize(
    "text",
    [
        "The cat's coat is black, and its 2.500 hairs shine (about 3, 4 of them grey).",
        "A sign describes the way; a man states his name.",
        "It is 12.30 on the clock, and 1,000 people wait in the lobby. The text on the sign says 'stop'.",
    ],
)
def test_what_is_not_rejected(text):
    assert check.turns(Answer(text), "Describe it.")


def test_what_was_cut_and_what_repeats():
    assert reason("A cat", "Describe it.", cut=True) == "cut"
    assert reason("Q: What?\nA: A cat.\nQ: what ?\nA: A dog.") == "repeated"
    assert reason("A gift and a mouse. " * 3, "Describe it.") == "repeated"
    assert check.turns(Answer("Q: a?\nA: Yes, it is.\nQ: b?\nA: Yes, it is.\nQ: c?\nA: Yes, it is."), None)


def test_our_own_examples_pass_and_tell_no_places_where_none_are_known():
    for name, kind in KINDS.items():
        assert len(kind.examples) == {"conversation": 2, "detail": 3, "reasoning": 3}[name]
        for image, written in kind.examples:
            assert check.turns(Answer(written), None if kind.asks else DETAIL_QUESTIONS[0])
            assert ("[0." in told(image, kind.places)) is kind.places
