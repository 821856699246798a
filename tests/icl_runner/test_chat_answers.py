"""Answers as chat models give them, and their false friends; and what may be a plural."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_runner import chat_answers, scoring
from icl_runner.tasks.classify import Classify

NAMES = ["dog", "hot dog", "school bus", "wolf", "crème brûlée", "news"]


@pytest.mark.parametrize(
    "answer",
    [
        "dog",
        " dog\n",
        "Dog.",
        "a dog",
        "A dog.",
        "the dog",
        "dogs",
        "some dogs",
        "The answer is dog",
        "The answer is: dog.",
        "The answer is **dog**.",
        "The correct answer is a dog.",
        "The most likely class is dog.",
        "The answer would be 'dog'.",
        "Answer: dog",
        "Output: dog",
        "output = dog",
        "My answer is dog",
        "1. dog",
        "1) dog",
        "- dog",
        "• dog",
        "(b) dog",
        "B. dog",
        "**dog**",
        "*dog*",
        "__dog__",
        "`dog`",
        "# dog",
        "> dog",
        '"dog"',
        "“dog”",
        "'dog'",
        "\\boxed{dog}",
        "$\\boxed{\\text{dog}}$",
        "```\ndog\n```",
        "```text\ndog\n```",
        '{"answer": "dog"}',
        "[dog]",
        "Sure! dog",
        "Sure, the answer is dog.",
        "Sure! Here is the answer:\n\ndog",
        "Sure! Here is the answer:\n\n**dog**\n\nThe fur speaks for it.",
        "Here's the answer: dog",
        "Okay. It is a dog.",
        "It's a dog",
        "It’s a dog, not a wolf.",
        "This is a dog.",
        "This image shows a dog.",
        "The image depicts a dog sitting in the snow.",
        "It looks like a dog with a ball",
        "It appears to be a dog (a puppy).",
        "I think it is a dog.",
        "I would say dog",
        "I'd go with dog.",
        "Probably a dog.",
        "Based on the words, the answer is dog.",
        "Based on the examples above: dog",
        "The image shows a dog because of its paws.",
        "dog, because of the paws; a wolf has none.",
        "dog - the words puppy and paws",
        "dog or puppy",
        "dog is the answer",
        "Let me look at the words. Puppy and paws.\n\nSo the answer is dog.\n\nThat was fun.",
        "The words paws and puppy speak for an animal.\n\n**dog**",
        "<think>A wolf? The answer is wolf. No.</think>\n\ndog",
        "a wolf, maybe?</think>dog",
        "Input: fur ear\nOutput: dog",
        "The answer for this input is dog.",
        "Clearly, dog is the correct answer.",
        "Is it a wolf, of which the answer is wolf? No, wait: the answer is dog.",
    ],
)
def test_a_dog(answer):
    assert chat_answers.given(answer, NAMES) == "dog"


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("A hot dog.", "hot dog"),
        ("The answer is hot dog", "hot dog"),
        ("two school buses?", None),
        ("school buses", "school bus"),
        ("It's a School Bus!", "school bus"),
        ("Wolves", "wolf"),
        ("The image shows wolves.", "wolf"),
        ("The answer is " + unicodedata.normalize("NFD", "crème brûlée"), "crème brûlée"),
        ("The news", "news"),
    ],
)
def test_other_names(answer, name):
    assert chat_answers.given(answer, NAMES) == name


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n",
        "...",
        "not a dog",
        "It is not a dog.",
        "It's no dog",
        "The answer is not dog.",
        "This isn't a dog",
        "a dog or a wolf",
        "dog or wolf",
        "Dog, or a wolf.",
        "dog/wolf",
        "dog and wolves",
        "dog is not the answer",
        "Dog isn't right.",
        "Dog cannot be it",
        "It is a dog, or a wolf.",
        "It is either a dog or a wolf.",
        "The answer is dog or wolf.",
        "a dog house",
        "The image shows a dog house.",
        "a dog-like animal",
        "a dogma",
        "A doge",
        "the underdog",
        "some new here",
        "It is new.",
        "The answer is new",
        "I cannot see the image.",
        "I don't know, the words could mean anything.",
        "An animal",
        "The options are dog, wolf and news.",
        "<think>It may be a dog. The answer is dog",
    ],
)
def test_false_friends(answer):
    assert chat_answers.given(answer, NAMES) is None


def test_names_that_look_like_what_is_taken_off():
    assert chat_answers.given("One possible answer is seven.", ["one", "seven"]) == "seven"
    assert chat_answers.given("One.", ["one", "seven"]) == "one"
    assert chat_answers.given("1", ["1", "7"]) == "1"
    assert chat_answers.given("The answer is 7.", ["1", "7"]) == "7"
    assert chat_answers.given("1. 7", ["3", "7"]) == "7"
    assert chat_answers.given("a", ["a", "b"]) == "a"
    assert chat_answers.given("The answer is b", ["a", "b"]) == "b"
    assert chat_answers.given("It is Turkey", ["turkey", "Turkey"]) == "Turkey"
    assert chat_answers.given("It is a TURKEY", ["turkey", "Turkey"]) is None
    assert chat_answers.given("glasses", ["glass", "glasses"]) == "glasses"
    assert chat_answers.given("a glass", ["glass", "glasses"]) == "glass"
    assert chat_answers.given("The answer is +", ["+", "-"]) == "+"
    assert chat_answers.given("anything", ["***", "dog"]) is None


WORD = st.text("abcdeé -'", min_size=1, max_size=9).map(scoring.folded).map(str.strip).filter(bool)


@given(st.lists(WORD, min_size=1, max_size=4, unique=True), st.data())
def test_an_answer_that_is_a_name_gives_it(names, data):
    name = data.draw(st.sampled_from(names))
    assert chat_answers.given(f" {name}\n", names) == name
    assert chat_answers.given(f"<think>{names}</think>{name}", names) == name


@given(st.text(max_size=60), st.lists(st.text(max_size=5), max_size=3))
def test_any_text_is_an_answer(answer, names):
    assert chat_answers.given(answer, names) in [None, *names]


def test_only_instructed_columns_unwrap():
    shown = {"names": ["dog", "wolf"], "truth": "dog", "words": "fur", "query_key": "b"}
    keys = ("open", "constrained", "instructed", "open_other", "constrained_other", "instructed_other")
    values, _ = Classify.score(shown, dict.fromkeys(keys, "The answer is dog"))
    assert values == {key: float(key.startswith("instructed")) for key in keys}


IRREGULAR = {
    "wolf": "wolves",
    "werewolf": "werewolves",
    "leaf": "leaves",
    "maple leaf": "maple leaves",
    "butcher's knife": "butcher's knives",
    "bookshelf": "bookshelves",
    "snowman": "snowmen",
    "woman": "women",
    "goose": "geese",
    "dormouse": "dormice",
    "child": "children",
    "dwarf": "dwarves",
}


@pytest.mark.parametrize(("one", "many"), IRREGULAR.items())
def test_irregular_plurals(one, many):
    for name in (one, many):
        for found in (one, many):
            assert scoring.named(f"I see {found}.", [name])
    assert not scoring.named(f"I see {one}x", [many])


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("some new here", "news"),
        ("a short dog", "shorts"),
        ("it is good", "goods"),
        ("a blue sky", "blues"),
        ("she saves", "safe"),
        ("two caves", "cafe"),
        ("he lives there", "life"),
        ("leave it", "leaves"),
        ("he believes", "belief"),
        ("reeves", "reef"),
        ("gulves", "gulf"),
        ("he means it", "mean"),
    ],
)
def test_false_friends_of_plurals(answer, name):
    assert scoring.named(answer, [name]) is (name == "mean")


def test_answers_in_decomposed_letters():
    name, answer = "café", unicodedata.normalize("NFD", "café")
    assert name != answer
    assert scoring.open_match(f" {answer}\n", name, ("\n",))
    assert scoring.chosen(answer, [name]) == name
    assert scoring.named(f"A {answer.upper()}.", [name])
