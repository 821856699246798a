"""The text tasks: what they ask, and how their answers are scored. No model, no inspect-ai."""

import dataclasses

import pytest

from icl_runner import prompts
from icl_runner.cells import TextCell, shuffled
from icl_runner.data.examples import Example, ExampleSet
from icl_runner.data.images import NO_IMAGE, Images
from icl_runner.episodes import calls
from icl_runner.episodes.draw import Episode, Shot
from icl_runner.tasks.caption import Caption
from icl_runner.tasks.classify import Classify
from icl_runner.tasks.interpret import Interpret
from icl_runner.tasks.vqa import Vqa
from icl_runner.texts import choosing
from spae.errors import InputError
from spae.frozen_lm.constraint import encode_behind
from spae.frozen_lm.gguf_file import read_gguf
from spae.frozen_lm.model_file import smollm2_file
from spae.frozen_lm.tokenizer import HuggingFaceTokenizer

WORDS = {"b1": "dog pup", "b2": "hound ear", "s1": "boat sea", "t1": "wall stone"}
EPISODE = Episode(
    id="e1",
    names={"n01": "beagle", "n02": "fishing boat"},
    support=(Shot("s1", "n02"), Shot("b1", "n01")),
    query=Shot("b2", "n01"),
    other="t1",
)


def a_cell(items) -> TextCell:
    return TextCell(name="c", task="classify", setting={}, items=items, score=Classify.score)


def test_classify_asks_both_rules_and_the_control():
    (item,) = calls.items([EPISODE], WORDS, calls.Asked(constrains=True))
    assert item.id == "e1"
    assert item.target == "beagle"
    assert [call.key for call in item.calls] == ["open", "constrained", "open_other", "constrained_other"]
    opened, constrained, other, _ = item.calls
    assert opened.prompt == prompts.classify(
        ["beagle", "fishing boat"], [("boat sea", "fishing boat"), ("dog pup", "beagle")], "hound ear"
    )
    assert constrained.prompt == opened.prompt
    assert constrained.choices == ("beagle", "fishing boat")
    assert opened.choices == ()
    assert other.prompt.query == "Input: wall stone\nOutput:"
    # One context for all four: what is before the query is read once.
    assert len({call.prompt.context for call in item.calls}) == 1


def test_classify_tells_chat_models_the_names_under_another_key():
    (item,) = calls.items([EPISODE], WORDS, calls.Asked(constrains=False))
    assert [call.key for call in item.calls] == ["open", "instructed", "open_other", "instructed_other"]
    assert item.calls[0].system == prompts.CHAT
    assert item.calls[1].system.endswith("one of: beagle, fishing boat.")


def test_classify_without_control_and_with_repeats():
    episode = dataclasses.replace(EPISODE, induction=False, repeats=1)
    (item,) = calls.items([episode], WORDS, calls.Asked(constrains=True, control=False))
    assert [call.key for call in item.calls] == ["open", "constrained"]
    assert item.calls[0].prompt.context.count("Input: boat sea") == 2
    assert "one of" not in item.calls[0].prompt.context


@pytest.mark.parametrize("names", [["beagle"], ["a", "chocolate sauce"], ["dax", "blicket"]])
def test_the_answer_has_room_for_the_longest_name(names):
    assert choosing.max_tokens(names) >= max(len(name) for name in names) / 2 + 2


@pytest.fixture(scope="module")
def smollm2() -> HuggingFaceTokenizer:
    try:
        return HuggingFaceTokenizer.from_gguf(read_gguf(smollm2_file()).metadata)
    except InputError as error:
        pytest.skip(f"needs SmolLM2's tokenizer: {error}")


@pytest.mark.parametrize(
    "name", ["beagle", "201500001234", "n02099601", "ブルドッグ犬種", "斗牛犬", "крокодил"]
)
def test_the_answer_has_room_for_the_tokens_of_any_name_and_its_end(smollm2, name):
    assert choosing.max_tokens([name]) > len(encode_behind(f" {name}", smollm2))


def test_all_answers_have_the_same_room():
    # Calls with equal settings can be answered side by side.
    longer = dataclasses.replace(EPISODE, id="e2", names={"n01": "beagle", "n02": "deep-sea fishing boat"})
    cell = a_cell(calls.items([EPISODE, longer], WORDS, calls.Asked(constrains=True)))
    assert len({call.max_tokens for call in cell.calls()}) == 1


def test_classify_scores_each_answer_by_the_rule_of_its_key():
    (item,) = calls.items([EPISODE], WORDS, calls.Asked(constrains=True))
    answers = {
        "open": " beagle dog\n",  # goes on behind the name
        "constrained": " beagle",
        "open_other": " beagle",
        "constrained_other": " fishing boat",
    }
    values, metadata = Classify.score(item.shown, answers)
    assert values == {"open": 0, "constrained": 1, "open_other": 1, "constrained_other": 0}
    shown = {"truth": "beagle", "names": item.shown["names"], "words": "hound ear", "query_key": "b2"}
    assert metadata == {"answers": answers, **shown}


PEOPLE = ("red", "red", "red", "red", "blue")
ASKED = [
    Example("q1", image_key="b1", question="what colour\nis it?", answers=PEOPLE),
    Example("q2", image_key="s1", question="is it a boat?", answers=("yes",)),
]


def test_vqa():
    support = [Example("q0", image_key="t1", question="how many?", answers=("two", "2", "two"))]
    first, second = Vqa(model="fake/m").items(support, ASKED, ["s1", "b1"], WORDS, {})
    assert [call.key for call in first.calls] == ["answer", "answer_other"]
    assert first.calls[0].prompt == prompts.vqa(
        [("wall stone", "how many?", "two")], "dog pup", "what colour is it?"
    )
    assert first.calls[1].prompt.query == "Image: boat sea\nQuestion: what colour is it?\nAnswer:"
    values, metadata = Vqa.score(first.shown, {"answer": " Red.\n###", "answer_other": " blue"})
    assert values == pytest.approx({"vqa": 1, "exact": 0, "vqa_other": 4 / 5 * 1 / 3, "exact_other": 0})
    assert metadata["truth"] == "red"
    assert Vqa.score(second.shown, {"answer": " yes"})[0] == {"vqa": 1, "exact": 1}


def test_caption():
    support = [Example("c0", image_key="t1", captions=("A wall\nof stone.", "a wall"))]
    queries = [Example("b1", captions=("A dog on a sofa.", "A small dog"))]
    (item,) = Caption(model="fake/m").items(support, queries, ["s1"], WORDS, {})
    assert item.calls[0].prompt == prompts.caption([("wall stone", "A wall of stone.")], "dog pup")
    values, metadata = Caption.score(
        item.shown, {"caption": " a dog on a sofa\n", "caption_other": " a boat"}
    )
    assert values["rouge_l"] == pytest.approx(1)
    assert values["bleu4"] == pytest.approx(1, abs=1e-6)
    assert values["rouge_l_other"] < 0.6
    assert set(values) == {"bleu4", "rouge_l", "bleu4_other", "rouge_l_other"}
    assert metadata["answer"] == "a dog on a sofa"
    assert metadata["answer_other"] == "a boat"
    assert metadata["references"] == ["A dog on a sofa.", "A small dog"]


def test_interpret():
    queries = [Example("b1", label="n01"), Example("s1", captions=("A fishing boat with a net.",))]
    first, second = Interpret(model="fake/m").items(
        [], queries, ["s1", "b1"], WORDS, {"n01": "beagle, English foxhound"}
    )
    assert first.calls[0].prompt == prompts.interpret("dog pup")
    answers = {"answer": " two beagles\n", "answer_other": " a boat"}
    values, metadata = Interpret.score(first.shown, answers)
    assert values == {"named": 1, "named_other": 0}
    assert metadata["words"] == "dog pup"
    assert Interpret.score(second.shown, {"answer": " a boat at sea"})[0] == {"named": 1}
    assert Interpret.score(second.shown, {"answer": " with a dog"})[0] == {"named": 0}


def test_no_control_on_request():
    queries = [Example("b1", label="n01", captions=("a dog",), question="what?", answers=("dog",))]
    made = [
        item
        for kind in (Interpret, Caption, Vqa)
        for item in kind(model="fake/m", control=False).items([], queries, ["s1"], WORDS, {"n01": "beagle"})
    ]
    assert [len(item.calls) for item in made] == [1, 1, 1]


def test_without_an_image_on_request():
    queries = [Example("b1", label="n01", captions=("a dog",), question="what?", answers=("dog",))]
    words = {**WORDS, NO_IMAGE: ""}
    for kind in (Interpret, Caption, Vqa):
        (item,) = kind(model="fake/m", blind=True).items([], queries, ["s1"], words, {"n01": "beagle"})
        assert [call.key for call in item.calls] == [f"{kind.key}{end}" for end in ("", "_other", "_blind")]
        assert item.calls[2].prompt.query.startswith("Image:\n")
        values, _ = kind.score(item.shown, {call.key: " dog" for call in item.calls})
        assert {key for key in values if key.endswith("_blind")}
    (item,) = calls.items([EPISODE], words, calls.Asked(constrains=True, blind=True, control=False, orders=2))
    assert item.calls[2].prompt.query == "Input:\nOutput:"
    answers = {
        call.key: dict.fromkeys(call.choices, -1.0) if call.likelihoods else " a" for call in item.calls
    }
    assert {f"{key}_blind" for key in ("open", "constrained", "likeliest", "orders")} <= set(
        Classify.score(item.shown, answers)[0]
    )


def test_a_cell_lists_its_calls():
    cell = a_cell(calls.items([EPISODE], WORDS, calls.Asked(constrains=True)))
    assert cell.ids == ["e1"]
    assert [call.key for call in cell.calls()] == ["open", "constrained", "open_other", "constrained_other"]


def test_shuffled_depends_on_seed_and_keys_only():
    items = [str(number) for number in range(50)]
    assert shuffled(items, 1, str) == shuffled(items[::-1], 1, str)
    assert shuffled(items, 1, str) != shuffled(items, 2, str)
    assert sorted(shuffled(items, 1, str)) == sorted(items)


def test_every_number_of_shots_asks_the_same(monkeypatch):
    keys = [f"i{number:02}" for number in range(12)]
    examples = [Example(key, captions=(f"thing {key}",)) for key in keys] + [
        Example("signs", captions=("!!!",))
    ]
    images = Images(ExampleSet("set", examples, {}, lambda key: None, lambda: ""), "default")
    monkeypatch.setattr(Images, "words", lambda self, asked, layers: {key: f"words {key}" for key in asked})
    monkeypatch.setattr(Images, "tokens", lambda self, layers: 5)
    cells = Caption(model="fake/m", data="set", shots=(1, 4), count=6).cells(images)
    few, many = ([item.id for item in cell.items] for cell in cells)
    assert few == many
    assert len(few) == 6
    assert "signs" not in few  # whose caption has no word to score
    for cell in cells:
        shown = cell.items[0].calls[0].prompt.context
        seen = {key for key in keys if f"words {key}" in shown}
        assert len(seen) == cell.setting["shots"]
        assert not seen & set(few)
