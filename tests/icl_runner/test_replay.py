"""A run again from its log: scores without a model, answers asked for again, and what has changed."""

import json

import pytest
from inspect_ai.log import read_eval_log, write_eval_log

from icl_runner.cli import main
from icl_runner.replay import ask_again, score_again
from icl_runner.report.logs import read_all
from spae.errors import InputError

# inspect-ai leaves streams between its own tasks open at the end of a run.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
    pytest.mark.usefixtures("streams_collected"),
]


def true_name(prompt: str) -> str:
    """With class names as words the query's words are the answer."""
    return prompt.rpartition("Input:")[2].partition("\n")[0]


@pytest.fixture
def logs(class_folders, tmp_path, fake_model):
    fake_model.answer = true_name
    given = ["run", "classify", "--model", "fake/m", "--data", str(class_folders), "--words", "class-name"]
    assert main([*given, "--examples", "3", "--log-dir", str(tmp_path / "logs")]) == 0
    return tmp_path / "logs"


def test_a_log_is_scored_and_asked_again(logs, fake_model, monkeypatch, capsys):
    asked = list(fake_model.prompts)
    fake_model.prompts.clear()
    capsys.readouterr()
    assert main(["replay", str(logs)]) == 0
    assert not fake_model.prompts
    assert "12 scores of 3 samples computed again, all as logged" in capsys.readouterr().out
    # The same calls, of the first two samples; now another model answers.
    fake_model.answer = lambda prompt: " beagle"
    assert main(["replay", str(logs), "--ask", "2", "--json"]) == 0
    assert len(fake_model.prompts) == 8
    assert set(fake_model.prompts) < set(asked)
    [found] = json.loads(capsys.readouterr().out)
    assert (found["asked"], found["samples"], found["changed"]) == (8, 3, [])
    assert 0 < len(found["other_answers"]) <= 8
    assert {one["now"] for one in found["other_answers"]} == {" beagle"}
    # An endpoint that fails says so in one line.
    monkeypatch.setattr(fake_model, "answer", lambda prompt: 1 / 0)
    assert main(["replay", str(logs), "--ask", "1"]) == 1
    assert "gave no answer (division by zero)" in capsys.readouterr().err


def test_a_score_that_is_not_as_logged_is_told(logs, capsys):
    path = read_all([logs])[0][0]
    whole = read_eval_log(path)
    # By these, too, inspect-ai knows a run again: those of earlier versions go on.
    assert [(step.solver, step.params_passed) for step in whole.plan.steps] == [("ask", {})]
    whole.samples[1].scores["score_answers"].value["open"] = 0
    whole.samples[2].scores["score_answers"].value["more"] = 0
    whole.samples[2].metadata["answers"]["open"] = " nothing"
    write_eval_log(whole, path)
    capsys.readouterr()
    assert main(["replay", str(logs)]) == 1
    out = capsys.readouterr().out
    assert "3 not as logged" in out
    assert "open was 0.0, is 1.0" in out
    assert "more was 0.0, is None" in out
    del whole.samples[0].metadata["answers"]
    assert score_again(path, whole).left == 1
    whole.eval.metadata["spae"]["task"] = "generate"
    assert score_again(path, whole).left == 3
    with pytest.raises(InputError, match="answers are texts"):
        ask_again(score_again(path, whole), 1)
    # Its prompts stand in the log with marks where images were.
    whole.eval.metadata["spae"]["task"], whole.eval.model = "classify", "spae-connector/b"
    with pytest.raises(InputError, match="spae-connector/b is shown images, which no log holds"):
        ask_again(score_again(path, whole), 1)


def test_likelihoods_come_back_from_a_log(class_folders, tmp_path, fake_model, capsys):
    """A model that finds the name likely that the query's words are."""
    fake_model.log_prob = lambda prompt, text: -1.0 - 3 * (text != true_name(prompt).strip())
    fake_model.answer = true_name
    given = ["run", "classify", "--model", "fake/m", "--data", str(class_folders), "--words", "class-name"]
    given += ["--examples", "3", "--content-free", "2", "--orders", "2", "--log-dir", str(tmp_path)]
    assert main(given) == 0
    printed = capsys.readouterr().out
    for column in ("the likeliest of the names, %", "names, calibrated, %", "over orders of the examples, %"):
        assert f"{column}\n" in printed
    assert main(["replay", str(tmp_path), "--ask", "1"]) == 0
    out = capsys.readouterr().out
    assert "30 scores of 3 samples computed again, all as logged" in out
    assert "10 answers asked for again, 10 as logged" in out
