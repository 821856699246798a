"""Text: what is rendered parses to the same pyramid, and what people and models write is repaired."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spae.errors import InputError
from spae.pyramid import Pyramid, PyramidShape
from spae.text import Parsed, Repair, parse, render
from spae.vocabulary import View, Vocabulary

SHAPE = PyramidShape((1, 2, 4, 8, 16, 16))
WORDS = (
    *("dog", "park", "grass", "animal", "brown", "tree", "house", "water", "bird", "cat", "lion", "lions"),
    *("table", "chair", "yellow", "elephant", "flower", "mountain", "river", "window", "sky", "cloud"),
    *("street", "bridge", "boat", "horse", "apple", "orange", "bread", "garden"),
)
VOCABULARY = Vocabulary(
    WORDS,
    np.arange(len(WORDS)),
    np.random.default_rng(0).normal(size=(len(WORDS), 4)).astype(np.float32),
    {"meaning": View.raw(), "appearance": View.raw()},
    {},
)


def parsed(text: str, layers: int | None = None) -> Parsed:
    return parse(text, VOCABULARY, SHAPE, layers)


def kinds(result: Parsed) -> list[tuple[str, int]]:
    return [(repair.kind, repair.position) for repair in result.repairs]


def test_the_number_of_layers_beside_a_text_is_not_its_words():
    """As the service is asked for a picture."""
    assert parsed('{"text": "dog park grass animal brown", "layers": 2}') == parsed(
        "dog park grass animal brown"
    )


def test_values_within_values_are_looked_through_once():
    deep = '{"words": ' * 200 + '"dog park grass animal brown"' + "}" * 200
    assert parsed(deep).pyramid == parsed("dog park grass animal brown").pyramid


@st.composite
def pyramids(draw, words: int):
    sides = draw(st.lists(st.sampled_from([1, 2, 4, 8]), max_size=4))
    shape = PyramidShape((*sides, 8)) if draw(st.booleans()) else SHAPE
    layers = draw(st.integers(1, len(shape)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return Pyramid(tuple(rng.integers(0, words, grid) for grid in shape.layers[:layers]), shape)


@settings(max_examples=60)
@given(pyramids(len(WORDS)))
def test_parse_undoes_render(pyramid):
    pyramid = Pyramid(pyramid.ids, pyramid.shape, VOCABULARY)
    text = render(pyramid)
    assert parse(text, VOCABULARY, pyramid.shape, pyramid.layers) == Parsed(pyramid, ())
    assert parse(text, VOCABULARY, pyramid.shape) == Parsed(pyramid, ())


@settings(max_examples=20)
@given(st.data())
def test_the_language_model_reads_one_token_per_word(default_vocabulary, smollm2, data):
    drawn = data.draw(pyramids(len(default_vocabulary)))
    pyramid = Pyramid(drawn.ids, drawn.shape, default_vocabulary)
    ids = np.concatenate([layer.ravel() for layer in pyramid.ids])
    assert smollm2.tokenizer.encode(" " + render(pyramid)) == default_vocabulary.token_ids[ids].tolist()
    assert parse(render(pyramid), default_vocabulary, pyramid.shape, pyramid.layers) == Parsed(pyramid, ())


def test_render_a_prefix():
    pyramid = parsed("dog park grass animal brown").pyramid
    assert render(pyramid, layers=1) == "dog"
    assert render(pyramid) == "dog park grass animal brown"


def test_formatting_is_understood_and_reported():
    result = parsed("1. Dog\n2) park, grass; (animal) **BROWN**.")
    assert result.pyramid == parsed("dog park grass animal brown").pyramid
    assert result.repairs == (
        Repair("whitespace", 0, "line breaks, tabs or extra spaces", ""),
        Repair("numbering", 0, "1.", ""),
        Repair("case", 0, "Dog", "dog"),
        Repair("numbering", 1, "2)", ""),
        Repair("punctuation", 1, "park,", ""),
        Repair("punctuation", 2, "grass;", ""),
        Repair("punctuation", 3, "(animal)", ""),
        Repair("punctuation", 4, "**BROWN**.", ""),
        Repair("case", 4, "BROWN", "brown"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "dog,park,grass,animal,brown",
        "dog | park | grass | animal | brown",
        "- dog - park - grass - animal - brown",
        "  dog park\n\ngrass animal\tbrown ",
        '["dog", "park", "grass", "animal", "brown"]',
        "DOG PARK GRASS ANIMAL BROWN",
        "1 dog 2 park 3 grass 4 animal 5 brown",
        "dog park grass animal brown .",
        "dog park gras animal brwon",
        "```text\ndog park grass animal brown\n```",
        "Sure:\n```\ndog park grass animal brown\n```\nThat is it.",
        "~~~\ndog park grass animal brown",
        "dog-park grass-animal brown",
        "DogPark GrassAnimal Brown",
        "Sure! Here are the words: dog park grass animal brown",
        "Sure! Here they are: dog park grass animal brown",  # ten words, and five; as many as a whole layer
        "Sure! dog park grass animal brown",
        "Here is the picture of a dog:\n\ndog park grass animal brown\n\nLet me know if it is wrong!",
        "Here is your picture\ndog park grass animal brown",
        "**Words:** dog, park, grass, animal, brown",
        "Layer 1: dog\nLayer 2: park grass animal brown",
        "Layer 1: dog, Layer 2: park grass animal brown",
        "**Layer 1 (1x1):** dog **Layer 2 (2x2):** park grass animal brown",
        "1: dog 2: park 3: grass 4: animal 5: brown",
        "Whole: dog, top left: park, top right: grass, bottom left: animal, bottom right: brown",
        '{"layer": 1, "words": ["dog"]}\n{"layer": 2, "words": ["park", "grass", "animal", "brown"]}',
        '{"words": ["dog", "park", "grass", "animal", "brown"]}',
        '{"picture": "dog park grass animal brown", "count": 5}',
        '```json\n{"layers": [{"words": ["dog"]}, {"words": ["park", "grass", "animal", "brown"]}]}\n```',
        'Here: {"words": [["dog"], ["park", "grass", "animal", "brown"]]}',
        '{"choices": [{"message": {"content": "A dog: <image> dog park grass animal brown </image>"}}]}',
        '{"data": [{"text": "dog park grass animal brown"}, {"text": "cat"}]}',
        "A dog: <image> dog park grass animal brown </image> Do you like it?",
        "<image> dog park grass animal brown </image> <image> cat </image>",
    ],
)
@pytest.mark.parametrize("layers", [None, 2])
def test_ways_of_writing_the_same_words(text, layers):
    result = parsed(text, layers)
    assert render(result.pyramid) == "dog park grass animal brown"
    assert result.repairs
    assert "surplus" not in dict(kinds(result))


@pytest.mark.parametrize(
    "text",
    [
        "<image> dog park grass animal brown </image>",
        "<IMAGE>dog park grass animal brown",
        "dog park grass animal brown</image>",
        '{"image": "cat.jpg", "layers": [{"words": ["dog"]}, {"words": ["park", "grass", "animal", "brown"]}]}',
    ],
)
def test_what_this_project_writes_itself_needs_no_repair(text):
    assert parsed(text) == Parsed(parsed("dog park grass animal brown").pyramid, ())


def test_what_looks_like_a_sentence_may_be_words():
    for text in (
        "Dog. Park. Grass. Animal. Brown.",
        "Dog\nPark\nGrass\nAnimal\nBrown",
        "Dog: park, grass, animal, brown",
    ):
        assert render(parsed(text).pyramid) == "dog park grass animal brown"
    # Where it cannot be told, the words are repaired, and that is reported.
    assert parsed("The words dog park grass").repairs
    # Words that are not all of the vocabulary stay together.
    assert kinds(parsed("dog T-shirt-park grass animal brown")) == [("unknown", 1)]


def test_wrapping_is_reported_and_json_without_words_refused():
    repairs = parsed("Sure! Here they are: dog park grass animal brown").repairs
    assert repairs[0] == Repair("wrapping", 0, "Sure!", "")
    result = parsed('{"words": ["dog", "park", "grass", "animal", "brown"')
    assert render(result.pyramid) == "dog park grass animal brown"
    for text in ('{"words": 3}', '{"words": []}', "{}"):
        with pytest.raises(InputError, match="JSON"):
            parsed(text)


def test_unknown_words():
    result = parsed("dog elefant xylophones brown T-shirt")
    assert render(result.pyramid) == "dog elephant dog brown dog"
    assert result.repairs == (
        Repair("unknown", 1, "elefant", "elephant"),
        Repair("unknown", 2, "xylophones", "dog"),  # filled from the word above it
        Repair("unknown", 4, "T-shirt", "dog"),
    )
    # "lios" is one edit from both: the lower id wins.
    assert parsed("lios").repairs == (Repair("unknown", 0, "lios", "lion"),)
    assert parsed("zzzzzz park grass animal brown").repairs == (Repair("unknown", 0, "zzzzzz", "park"),)


def test_fillers_come_from_the_word_above_in_the_same_place():
    text = "dog park grass animal brown " + "tree " * 5 + "qqqqqq " + "tree " * 10
    result = parsed(text.strip())
    assert result.repairs == (Repair("unknown", 10, "qqqqqq", "park"),)  # row 1, column 1 is under "park"
    missing = parsed("dog park grass animal brown tree", layers=3)
    assert [repair.used for repair in missing.repairs[:3]] == ["park", "grass", "grass"]
    assert [repair.used for repair in missing.repairs[-2:]] == ["brown", "brown"]
    assert kinds(missing) == [("missing", n) for n in range(6, 21)]


@pytest.mark.parametrize(
    ("words", "layers", "missing", "surplus"),
    [
        (1, 1, 0, 0),
        (2, 2, 3, 0),
        (5, 2, 0, 0),
        (6, 3, 15, 0),
        (20, 3, 1, 0),
        (23, 3, 0, 2),
        (24, 4, 61, 0),
        (85, 4, 0, 0),
        (90, 4, 0, 5),
        (597, 6, 0, 0),
        (2000, 6, 0, 1403),
    ],
)
def test_how_many_layers_a_text_holds(words, layers, missing, surplus):
    result = parsed(" ".join(["bird"] * words))
    assert result.pyramid.layers == layers
    assert sum(kind == "missing" for kind, _ in kinds(result)) == missing
    over = [repair for repair in result.repairs if repair.kind == "surplus"]
    assert bool(over) == bool(surplus)
    if surplus:
        assert over[0].found.startswith(f"{surplus} more words: bird")
        assert over[0].position == SHAPE.tokens(layers)


def test_layers_asked_for():
    assert kinds(parsed("dog park grass", layers=1)) == [("surplus", 1)]
    assert parsed("dog park", layers=1).repairs[-1].found == "1 more words: park .."
    for layers in (0, 7, 2.5):
        with pytest.raises(InputError, match="layers"):
            parsed("dog", layers=layers)


@pytest.mark.parametrize("text", ["", "  \n", "...", "1. 2. 3.", "中文 字", "qqqqqq wwwwwwwww", None, b"dog"])
def test_no_words(text):
    with pytest.raises(InputError, match="text: "):
        parsed(text)


def test_the_only_word_may_look_like_a_heading():
    assert parsed("dog : A").pyramid.words()[0] == ["dog"]
    assert parsed("Here: dgo").pyramid.words()[0] == ["dog"]
    assert parsed("Here: cat").pyramid.words()[0] == ["cat"]


@settings(max_examples=200)
@given(st.text(max_size=60), st.sampled_from([None, 1, 2, 3]))
def test_any_text_parses_or_is_refused(text, layers):
    result = parsed("dog " + text, layers)
    again = parsed(render(result.pyramid), result.pyramid.layers)
    assert again == Parsed(result.pyramid, ())
    assert [r.position for r in result.repairs] == sorted(r.position for r in result.repairs)


_AROUND = ["<image>", "</image>", "```", "\n", "Sure!", "Here:", '{"a": ["', '"]}', "dog", "Park.", " ", "-"]


@given(st.lists(st.sampled_from(_AROUND)).map("".join))
def test_any_wrapping_is_read_or_refused(text):
    try:
        result = parsed(text)
    except InputError:
        return
    assert parsed(render(result.pyramid), result.pyramid.layers) == Parsed(result.pyramid, ())
    assert {word for words in result.pyramid.words() for word in words} <= {"dog", "park", "bird"}


@pytest.mark.parametrize(
    "text",
    [
        "dog " * 250_000,
        "dog " + "- " * 500_000,
        "1. dog " * 140_000,
        "dog " + "x" * 1_000_000,
        "dog," * 250_000,
        "dog " + "a-" * 500_000,
        "dog " + " ".join(f"{i:x}dog" for i in range(140_000)),
        "Dog! " * 200_000,
        "dog:\n" * 200_000,
        "<image>" * 140_000 + "dog",
        "```\n" * 250_000 + "dog",
        "dog " + "[" * 1_000_000,
        'dog {"a":' * 100_000,
        "dogDog" * 160_000 + " dog",
    ],
    ids=[
        *("words", "dashes", "numbers", "one long word", "commas", "hyphens", "unknown"),
        *("sentences", "headings", "marks", "fences", "brackets", "keys", "humps"),
    ],
)
def test_a_megabyte_is_quick(text):
    start = time.process_time()
    result = parsed(text)
    assert time.process_time() - start < 2
    assert len(result.repairs) < 2000
