"""Scores against published formulas, slow re-computations, and cases worked out by hand."""

import unicodedata
from itertools import combinations
from math import exp, log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_runner import scoring
from icl_runner.prompts import STOP
from spae.errors import InputError


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (" beagle", True),
        (" beagle\n###\nInput: boat", True),
        (" beagle ###", True),
        ("beagle", True),
        (" beagle dog", False),  # the end counts
        (" Beagle", False),
        (" beagle.", False),
        ("\n beagle", False),  # the line ended before a name came
        (" beagl", False),
        ("", False),
    ],
)
def test_open_match(answer, right):
    assert scoring.open_match(answer, "beagle", STOP) is right


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (" hot dog", "hot dog"),
        (" hot", "hot"),
        (" hot water", "hot"),
        (' "Hot dog".', "hot dog"),
        (" hotel", None),
        (" the dog", None),
        ("", None),
    ],
)
def test_chosen(answer, name):
    assert scoring.chosen(answer, ["hot", "hot dog", "cat"]) == name


@pytest.mark.parametrize("answer", ["", "*", "=", " minus", "cat"])
def test_a_name_of_signs_is_chosen_by_itself_alone(answer):
    assert scoring.chosen(answer, ["+", "-", "🐶"]) is None
    assert scoring.chosen(" -", ["+", "-", "🐶"]) == "-"


@given(
    st.lists(st.text("abA+- ", min_size=1).map(str.strip).filter(bool), min_size=1, unique=True), st.data()
)
def test_an_answer_that_is_a_name_chooses_it(names, data):
    name = data.draw(st.sampled_from(names))
    assert scoring.chosen(f" {name}", names) == name


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (" two Beagles in the snow", True),
        ("a beagle.", True),
        ("a beagler", False),
        ("a dog", False),
        ("", False),
    ],
)
def test_named(answer, found):
    assert scoring.named(answer, ["beagle", "English foxhound"]) is found


REGULAR = {
    "dog": "dogs",
    "bus": "buses",
    "school bus": "school buses",
    "iris": "irises",
    "gas": "gases",
    "glass": "glasses",
    "fox": "foxes",
    "torch": "torches",
    "brush": "brushes",
    "potato": "potatoes",
    "shoe": "shoes",
    "photo": "photos",
    "house": "houses",
    "butterfly": "butterflies",
    "cookie": "cookies",
    "monkey": "monkeys",
    "tie": "ties",
    "panda": "pandas",
}


@pytest.mark.parametrize(("one", "many"), REGULAR.items())
def test_named_knows_a_singular_and_a_plural(one, many):
    for name in (one, many):
        assert scoring.named(f"I see {one}.", [name])
        assert scoring.named(f"{many} in the snow", [name.upper()])
        assert not scoring.named(f"I see {one}x", [name])


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("a bu", "bus"),
        ("an iri", "iris"),
        ("a glas", "glass"),
        ("to do", "toes"),
        ("he stares", "star"),
        ("two planes", "plan"),
        ("a dog", "!"),
        ("a", "s"),
    ],
)
def test_what_is_no_singular_or_plural(answer, name):
    assert not scoring.named(answer, [name])


def test_floor():
    assert scoring.floor(5) == 0.2


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The two dogs.", "2 dogs"),
        ("None", "0"),
        ("dont know", "don't know"),
        ("t-shirt", "t shirt"),
        ("yes , it is", "yes it is"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("2.", "2"),
        ("1990. ", "1990"),
        ("an\tapple\n", "apple"),
        ("red/blue", "red blue"),
    ],
)
def test_vqa_normal(answer, normal):
    assert scoring.vqa_normal(answer) == normal


@given(st.integers(4, 12), st.data())
def test_vqa_accuracy_is_the_mean_over_all_subsets_without_one_person(people, data):
    agreeing = data.draw(st.integers(0, people))
    humans = ["yes"] * agreeing + ["no"] * (people - agreeing)
    subsets = list(combinations(humans, people - 1))
    expected = sum(min(subset.count("yes") / 3, 1) for subset in subsets) / len(subsets)
    assert scoring.vqa_accuracy("Yes.", humans) == pytest.approx(expected)


def test_vqa_accuracy_of_ten_people():
    # The published table: 0, 1, 2, 3, 4 of ten people give 0, .3, .6, .9, 1.
    got = [scoring.vqa_accuracy("red", ["red"] * n + ["blue"] * (10 - n)) for n in range(5)]
    assert got == pytest.approx([0, 0.3, 0.6, 0.9, 1])


def test_vqa_of_a_single_answer():
    assert scoring.vqa_accuracy("a circle", ["circle"]) == 1
    assert scoring.vqa_accuracy("square", ["circle"]) == 0
    assert not scoring.vqa_exact("a circle", ["circle"])
    assert scoring.vqa_exact(" Circle\n", ["circle"])
    assert scoring.vqa_exact("red", ["red", "blue", "red"])
    with pytest.raises(InputError, match="at least one"):
        scoring.vqa_accuracy("red", [])


def test_caption_tokens():
    assert (
        scoring.caption_tokens("The dog’s T-shirt isn't 3.5 (metres)!")
        == "the dog 's t shirt is n't 3.5 metres"
    )
    assert scoring.caption_tokens(" ...") == scoring.caption_tokens("❤\ufe0f") == ""
    # Letters keep their marks, however these are written.
    assert scoring.caption_tokens("राम का घर, राम की घर") == "राम का घर राम की घर"
    assert scoring.caption_tokens(unicodedata.normalize("NFD", "ein schöner Hund")) == "ein schöner hund"


def slow_bleu4(candidate: list[str], references: list[list[str]]) -> float:
    """BLEU-4 of one sentence as Papineni et al. (2002) define it, closest reference length."""
    product = 1.0
    for n in range(1, 5):
        grams = [tuple(candidate[i : i + n]) for i in range(len(candidate) - n + 1)]
        clipped = 0
        for gram in set(grams):
            most = max([[tuple(r[i : i + n]) for i in range(len(r) - n + 1)].count(gram) for r in references])
            clipped += min(grams.count(gram), most)
        product *= clipped / len(grams)
    length = min((abs(len(r) - len(candidate)), len(r)) for r in references)[1]
    brevity = 1 if len(candidate) >= length else exp(1 - length / len(candidate))
    return brevity * product**0.25


def slow_rouge(candidate: list[str], references: list[list[str]]) -> float:
    def common(a: list[str], b: list[str]) -> int:
        if not a or not b:
            return 0
        if a[0] == b[0]:
            return 1 + common(a[1:], b[1:])
        return max(common(a[1:], b), common(a, b[1:]))

    precision = max(common(candidate, r) / len(candidate) for r in references)
    recall = max(common(candidate, r) / len(r) for r in references)
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)


CANDIDATE = "a small dog runs across the green park today"
REFERENCES = ["A small dog runs across the park.", "a small dog runs across the green field"]


def test_bleu_and_rouge():
    words = [one.lower().strip(".").split() for one in (CANDIDATE, *REFERENCES)]
    totals, each = scoring.caption_scores([CANDIDATE], [REFERENCES])
    assert totals["bleu4"] == pytest.approx(slow_bleu4(words[0], words[1:]), rel=1e-6)
    assert totals["rouge_l"] == pytest.approx(slow_rouge(words[0], words[1:]))
    assert each["rouge_l"] == [totals["rouge_l"]]


def test_cider_of_the_reference_itself_is_ten():
    references = [["a dog in the park"], ["a boat on the blue sea"], ["two cats on a red sofa"]]
    totals, each = scoring.caption_scores([r[0] for r in references], references)
    assert each["cider"] == pytest.approx([10, 10, 10])
    swapped, _ = scoring.caption_scores([r[0] for r in references[::-1]], references)
    assert swapped["cider"] < totals["cider"] / 2


def test_cider_weighs_words_by_rarity():
    # One-word captions: only 1-grams, so that CIDEr = 10 / 4 x cosine of two vectors of tf x idf.
    references = [["dog"], ["boat"], ["dog"]]
    _, each = scoring.caption_scores(["dog", "boat sea", "cat"], references)
    rare, unseen = log(3 / 1), log(3 / 1)
    cosine = rare**2 / (rare * sqrt(rare**2 + unseen**2))
    penalty = exp(-1 / (2 * 6**2))  # one word longer, sigma 6
    assert each["cider"] == pytest.approx([2.5, 2.5 * cosine * penalty, 0])


def test_captions_are_checked():
    with pytest.raises(InputError, match="got 0 lists"):
        scoring.caption_scores(["a dog"], [])
    with pytest.raises(InputError, match="references"):
        scoring.caption_scores(["a dog"], [[]])


@given(st.integers(1, 300), st.data())
def test_wilson_solves_its_equation(n, data):
    k = data.draw(st.integers(0, n))
    low, high = scoring.wilson(k, n)
    assert 0 <= low <= k / n + 1e-12
    assert k / n - 1e-12 <= high <= 1
    for p in (low, high):
        # At both ends the rate is just 1.96 standard deviations of a binomial away.
        assert (k / n - p) ** 2 == pytest.approx(scoring.Z**2 * p * (1 - p) / n, abs=1e-12)


def test_normal_interval():
    low, high = scoring.normal_interval([1.0, 2.0, 3.0])
    assert (low + high) / 2 == pytest.approx(2)
    assert high - low == pytest.approx(2 * 1.959964 * sqrt(1 / 3))
    assert scoring.normal_interval([0.5]) == (float("-inf"), float("inf"))
    with pytest.raises(InputError):
        scoring.normal_interval([])
    with pytest.raises(InputError):
        scoring.wilson(2, 1)
