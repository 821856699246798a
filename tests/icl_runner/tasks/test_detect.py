"""Detection by text: who knows the answer reaches the ceiling, and what else there is stands beside it."""

import asyncio
import json
import re
from types import SimpleNamespace

import pytest
from inspect_ai.model import Logprob, Logprobs, ModelOutput

from icl_runner import constraints, spelling
from icl_runner.cli import main
from icl_runner.constraints import Pattern
from icl_runner.data.images import Images
from icl_runner.detection import asking, records
from icl_runner.detection.detections import LOG_PROBS, scores
from icl_runner.detection.task import AP, ORACLE, RANDOM, UNSCORED
from icl_runner.estimate import estimate
from icl_runner.figures import OTHER
from icl_runner.pictures.progressive import approximate_tokens
from icl_runner.providers.dialects import fields
from icl_runner.replay import ask_again, score_again
from icl_runner.report.logs import read_all
from icl_runner.results import CellResult, Sample
from icl_runner.tasks.detect import Detect
from icl_runner.tasks.propose import Propose
from spae.errors import InputError

pytestmark = [
    # inspect-ai leaves streams between its own tasks open at the end of a run.
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
    pytest.mark.usefixtures("toys", "streams_collected"),
]


def _cell(kind=Detect, **options):
    options = {"model": "spae-lm/default", "data": "toys", "classes": 4, "count": 5, "shots": (1,), **options}
    task = kind(**options)
    return task, task.cells(Images(task.examples(), "default"))


def _result(task, cell, answers) -> CellResult:
    """As if read from a log: what scoring gave, through JSON. `answers`: item -> answers by key."""
    samples = []
    for item in cell.items:
        shown = json.loads(json.dumps(item.shown))
        values, metadata = task.score(shown, answers(item))
        samples.append(Sample(item.id, values, json.loads(json.dumps(metadata))))
    no = dict.fromkeys(("model", "bundle", "bundle_sha256", "data", "data_fingerprint", "version"), "")
    return CellResult(
        task=task.name,
        setting=cell.setting,
        seed=0,
        samples=tuple(samples),
        failures=(),
        expected=5,
        usage={},
        seconds=0,
        **no,
    )


def _figures(task, result, control=None) -> dict:
    return {one.measure: one.mean for one in task.figures(result, control)}


@pytest.mark.parametrize("mode", ["detect", "ground", "segment"])
def test_who_knows_reaches_the_ceiling(mode):
    points = {"points": 12} if mode == "segment" else {}
    task, (cell,) = _cell(mode=mode, bins=1000, **points)
    result = _result(task, cell, lambda item: {"answer": item.target, "answer_other": "I see nothing."})
    reached, ceiling = _figures(task, result), _figures(task, result, ORACLE)
    assert reached[UNSCORED] == ceiling[UNSCORED] > 0.7
    assert _figures(task, result, RANDOM)[UNSCORED] < 0.2
    by_name = {measure.key: value for measure, value in reached.items()}
    assert by_name["f1"] == by_name["read"] == 1
    other = {measure.key: value for measure, value in _figures(task, result, OTHER).items()}
    assert (other["f1"], other["read"], other["refused_text"]) == (0, 0, 1)
    things = [thing for item in cell.items for thing in item.shown["scene"]["things"]]
    assert len(things) == (5 if mode == "ground" else len(things))
    assert cell.items[0].calls[0].prompt.context.count("###") == 1


def test_scores_rank_what_was_found():
    task, (cell,) = _cell()

    def answers(item, ranked: bool):
        """Every box twice: once right, and once of another class, of which the model is less sure."""
        right = item.target.split("\n")
        wrong = [f"({(int(one[1]) + 1) % 4}{one[2:]}" for one in right]
        tokens = [[f"{line}\n", -float(place >= len(right))] for place, line in enumerate([*right, *wrong])]
        text = "".join(token for token, _ in tokens)
        return {"answer": text} | ({"answer" + LOG_PROBS: json.dumps(tokens)} if ranked else {})

    ranked = _figures(task, _result(task, cell, lambda item: answers(item, True)))
    unranked = _figures(task, _result(task, cell, lambda item: answers(item, False)))
    assert AP in ranked
    assert UNSCORED not in ranked
    assert ranked[AP] > unranked[UNSCORED] + 0.2
    # An endpoint that gives them for some answers only.
    first = cell.items[0].id
    mixed = _figures(task, _result(task, cell, lambda item: answers(item, item.id == first)))
    assert mixed[UNSCORED] == unranked[UNSCORED]


def test_log_probabilities_of_parts():
    text = "(0, 1)\n(1, 22)"
    tokens = [[" ", -9.0], ["(0", -1.0], [", 1)", -2.0], ["\n(1,", -4.0], [" 22)", -8.0], ["\n###", -99.0]]
    spans = [found.span() for found in re.finditer(r"\(.*?\)", text)]
    assert scores(text, json.dumps(tokens), spans) == [-3, -12]
    assert scores("other", json.dumps(tokens), spans) is None
    assert scores(text, None, spans) is None


def test_a_dry_run_counts_every_choice_of_a_skeleton():
    _, (cell,) = _cell(answers="skeleton", bins=9, control=False)
    [found] = estimate([cell], "completions/m")
    things = sum(len(item.shown["scene"]["things"]) for item in cell.items)
    assert found.calls == 5 * things  # a class and four numbers
    # A sign of a class or a number, the one behind it, a space.
    assert found.written == 3 * found.calls
    prompts = [call.prompt.text for call in cell.calls()]
    first = cell.items[0].calls[0].prompt.text
    assert [text.removeprefix(first) for text in prompts[:3]] == ["(", "(0,", "(0, 0,"]
    # Each reads the prompt, and what was chosen before.
    assert found.read > found.calls * approximate_tokens(first)


def test_a_skeleton_is_filled_choice_by_choice(monkeypatch):
    _, (cell,) = _cell(answers="skeleton", bins=9)
    item = cell.items[0]
    asked = []

    async def generate(model, messages, config):
        texts = config.extra_body["spae"]["choices"]
        asked.append((messages[0].text.removeprefix(item.calls[0].prompt.text), texts))
        output = ModelOutput.from_content("m", f" {texts[-1]}")
        output.choices[0].logprobs = Logprobs(content=[Logprob(token=texts[-1], logprob=-1.0)])
        return output

    monkeypatch.setattr(spelling, "generate", generate)
    instruction = records.instruction(item.shown["instruction"])
    text, log_probs = asyncio.run(asking._fill(None, item.calls[0], None, instruction.skeleton(2)))
    assert text == "(3, 9, 9, 9, 9)\n(3, 9, 9, 9, 9)"
    assert asked[0] == ("(", ["0,", "1,", "2,", "3,"])
    assert asked[4] == ("(3, 9, 9, 9,", [f"{number})" for number in range(10)])
    assert asked[5][0] == "(3, 9, 9, 9, 9)\n("
    spans = [(0, 15), (16, 31)]
    assert scores(text, json.dumps(log_probs), spans) == [-5, -5]


def test_a_pattern_in_each_dialect():
    _, (cell,) = _cell(model="completions/m", model_args={"dialect": "vllm"}, answers="grammar", bins=99)
    pattern = records.instruction(cell.items[0].shown["instruction"]).pattern()
    assert constraints.from_extra_body(Pattern(pattern).extra_body()) == Pattern(pattern)
    assert fields(Pattern(pattern), "vllm", "") == {"structured_outputs": {"regex": pattern}}
    one = '"(" ( "0" | "1" | "2" | "3" ) ( "," " " [0-9]{1,2} ){4} ")"'
    assert fields(Pattern(pattern), "llama.cpp", "") == {"grammar": f'root ::= ( {one} ( "\\n" {one} )* )?\n'}
    with pytest.raises(InputError, match="regular expression"):
        Pattern("(")


def test_the_embedded_model_has_no_grammar():
    from icl_runner.providers.embedded import EmbeddedAPI

    with pytest.raises(InputError, match="no grammar"):
        EmbeddedAPI._constraint(SimpleNamespace(provider="spae-lm"), Pattern("a"), "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 600}, "at most the 4 classes of toys, got 600"),
        ({"count": 1}, "2 images at least"),
        ({"answers": "skeleton", "model": "openai/m"}, "cannot be held to choices"),
        ({"answers": "skeleton", "model": "completions/m"}, "an endpoint's -M dialect"),
        ({"answers": "grammar"}, "needs completions/NAME"),
        ({"answers": "grammar", "model": "completions/m"}, "dialect=llama.cpp or vllm"),
        ({"bins": 10_000}, "2 to 8192 bins"),
        ({"mode": "segment", "points": 30}, "8 to 24 points"),
        ({"wording": 7}, "wordings 0 to 2"),
    ],
)
def test_what_cannot_be_asked(options, message):
    with pytest.raises(InputError, match=message):
        _cell(**options)


def test_a_class_set_of_nothing_is_bad_usage(capsys):
    with pytest.raises(SystemExit):
        main(["run", "detect", "--model", "fake/m", "--classes", "0"])
    assert "wanted a whole number from 1; got '0'" in capsys.readouterr().err


def test_boxes_that_are_given_are_named():
    task, cells = _cell(Propose, region_words=(0, 1))
    bare, with_words = cells
    item = with_words.items[0]
    things = item.shown["scene"]["things"]
    assert len(item.calls) == 2 * len(things)
    for call, thing in zip(item.calls, things, strict=False):
        assert f"(that part of it: {thing['name']})" in call.prompt.query
        assert call.choices == ("apple", "leaf", "plum", "sea")
    assert "that part" not in bare.items[0].calls[0].prompt.text

    def reads_the_region(item):
        return {call.key: re.search(r"part of it: (\w+)", call.prompt.query)[1] for call in item.calls}

    result = _result(task, with_words, reads_the_region)
    reached = {measure.key: value for measure, value in _figures(task, result).items()}
    assert reached["named_constrained"] == reached["f1"] == reached["ap50"] == 1
    assert {measure.key for measure in _figures(task, result, ORACLE)} >= {"ap", "named_constrained"}
    assert _figures(task, result, OTHER).keys() >= {UNSCORED}
    unnamed = _result(task, with_words, lambda item: {call.key: " a boat" for call in item.calls})
    reached = {measure.key: value for measure, value in _figures(task, unnamed).items()}
    assert reached["named_constrained"] == reached["read"] == 0
    assert reached["refused_class"] >= 2


def test_from_the_command_to_the_table(fake_model, tmp_path, capsys):
    """A model that knows the boxes of one image: the run, the log and the report agree."""
    _, (cell,) = _cell(model="fake/m")
    truths = {call.prompt.query: item.target for item in cell.items for call in item.calls[:1]}
    fake_model.answer = lambda prompt: truths.get(prompt.rpartition("###\n")[2], "none")
    given = ["run", "detect", "--model", "fake/m", "--data", "toys", "--classes", "4", "--examples", "5"]
    assert main([*given, "--shots", "1", "--log-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "## Detection by text" in printed
    assert "unscored AP" in printed
    assert "the right answers, as they can be written" in printed
    assert "control: words of another image" in printed
    assert fake_model.configs[0].logprobs
    assert fake_model.configs[0].stop_seqs == ["###"]
    # Asked again from the log; a log of another way of answering does not hold its calls.
    asked = fake_model.prompts[:]
    assert main(["replay", str(tmp_path), "--ask", "2"]) == 0
    assert "4 answers asked for again, 4 as logged" in capsys.readouterr().out
    assert set(fake_model.prompts[len(asked) :]) <= set(asked)
    [(path, log)] = read_all([tmp_path])
    del log.samples[0].metadata["calls"]
    with pytest.raises(InputError, match="wanted the calls that were put"):
        ask_again(score_again(path, log), 5)


def test_points_are_of_outlines():
    with pytest.raises(InputError, match="leave it out with --mode detect"):
        _cell(points=5)
