"""`spae-icl` through its front door."""

import base64
import io
import json
import re
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from icl_runner import tasks
from icl_runner.cli import main
from icl_runner.report.logs import collect
from spae.errors import InputError
from spae.frozen_lm import model_file

# inspect-ai leaves streams between its own tasks open at the end of a run.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
    pytest.mark.usefixtures("streams_collected"),
]


def classify(data, *more: str) -> list[str]:
    model = [] if "--model" in more else ["--model", "fake/m"]
    return ["run", "classify", "--data", str(data), "--words", "class-name", *model, *more]


@pytest.mark.parametrize(
    "command",
    [[], ["run"], *(["run", task] for task in tasks.names()), ["report"], ["replay"], ["demo"], ["mark"]],
    ids=" ".join,
)
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert "example: spae-icl" in capsys.readouterr().out


def test_help_imports_neither_jax_nor_inspect():
    program = (
        "import sys; from icl_runner.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print({'jax', 'inspect_ai', 'flax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("set()")


@pytest.mark.parametrize(
    "wrong",
    [
        ["run"],
        ["run", "paint"],
        ["run", "classify", "--model", "fake/m"],  # no data
        ["run", "classify", "--data", "d", "--model", "gpt"],  # no provider
        ["run", "classify", "--data", "d", "--model", "fake/m", "--ways", "1"],
        ["run", "classify", "--data", "d", "--model", "fake/m", "--columns", "all"],
        ["run", "classify", "--data", "d", "--model", "fake/m", "-M", "dialect"],
        ["run", "classify", "--data", "d", "--model", "fake/m", "--episodes", "5"],  # now --examples
        ["report"],
        ["replay"],
    ],
)
def test_bad_usage_is_2(wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        main(wrong)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage: spae-icl")


def test_wrong_input_is_1_and_one_line(tmp_path, capsys):
    assert main(classify(tmp_path / "nothing")) == 1
    assert main(["report", str(tmp_path)]) == 1
    assert main(classify(tmp_path, "-M", "api_key=sk-123")) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(":")[0] for line in err.splitlines()] == ["spae-icl"] * 3
    assert "sk-123" not in err


def test_dry_run_asks_nothing(class_folders, tmp_path, capsys, fake_model):
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"fake/m": {"input": 1000, "output": 2000}}))
    given = classify(
        class_folders, "--ways", "2", "3", "--examples", "5", "--prices", str(prices), "--dry-run"
    )
    assert main(given) == 0
    out = capsys.readouterr().out
    assert fake_model.prompts == []
    assert out.startswith("== calls, tokens of prompts, tokens of answers at most\n")
    assert "\n== classify-2way-1shot-class-name: the first of 20 calls, of 5 samples\nEach input is" in out
    assert out.count("\nOutput:\n") == 2  # the first prompt of each cell, as it ends
    rows = [line.split() for line in out.splitlines() if line.endswith((" all", "class-name"))]
    calls, read, written = (int(column.replace(",", "")) for column in rows[-1][:3])
    assert calls == 40
    assert read == sum(int(row[1].replace(",", "")) for row in rows[:-1])
    money = (read * 1000 + written * 2000) / 1e6
    assert f"cost at most {money:,.2f}, at 1000 and 2000 per million tokens" in out
    assert "estimated: a token for each word" in out


@pytest.mark.parametrize(
    ("model", "planned", "asked"),
    [
        ("spae-lm/defualt", "there is no defualt", "there is no defualt"),
        ("spae-connector/nowhere", "nowhere", "nowhere"),
        ("opnai/gpt-4o", "Model API opnai .* not recognized", "Model API opnai .* not recognized"),
        ("openai/gpt-4o", None, "OPENAI_API_KEY"),
    ],
)
def test_a_model_that_is_not_there_is_told_before_any_image_is_looked_at(
    model, planned, asked, class_folders, capsys, monkeypatch
):
    """A dry run needs no key, but the provider."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("icl_runner.plan.Plan.__init__", Mock(side_effect=InputError("too late")))
    given = classify(class_folders, "--model", model)
    for arguments, wanted in (([*given, "--dry-run"], planned), (given, asked)):
        assert main(arguments) == 1
        assert re.search(wanted or "too late", capsys.readouterr().err)


def test_dry_run_counts_what_likelihoods_cost(class_folders, capsys, fake_model):
    given = classify(class_folders, "--ways", "3", "--examples", "5", "--dry-run")
    assert main([*given, "--content-free", "2", "--orders", "4"]) == 0
    out = capsys.readouterr().out
    # Of each episode: 2 of the query, 2 content-free, 2 for each further order; each asks an endpoint for three names.
    likelihoods = 5 * (2 + 2 + 2 * 3) * 3
    assert f"{likelihoods} of these calls ask how likely texts are" in out
    assert f"the first of {5 * 4 + likelihoods} calls, of 5 samples" in out


def test_which_split_was_taken_is_said(tmp_path, capsys, fake_model):
    images, labels = np.zeros((4, 28, 28), np.uint8), np.array([0, 0, 1, 1])
    np.savez(tmp_path / "mnist.npz", x_test=images, y_test=labels)
    given = classify(tmp_path, "--examples", "1", "--dry-run")
    assert main(given) == 0
    assert capsys.readouterr().err == "spae-icl: no --split was given, took test\n"
    assert main([*given, "--split", "test"]) == 0
    assert capsys.readouterr().err == ""


def test_dry_run_without_a_price(class_folders, tmp_path, capsys, fake_model):
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"other/model": {"input": 1, "output": 1}}))
    assert main(classify(class_folders, "--prices", str(prices), "--dry-run")) == 1
    assert "other/model" in capsys.readouterr().err


def test_run_and_report(class_folders, tmp_path, capsys, fake_model):
    fake_model.answer = lambda prompt: prompt.rpartition("Input:")[2].partition("\n")[0]
    logs = tmp_path / "logs"
    assert main(classify(class_folders, "--examples", "3", "--log-dir", str(logs))) == 0
    printed = capsys.readouterr()
    assert "open-ended exact match" in printed.out
    assert "100.0" in printed.out
    assert main(["report", str(logs), "--html", str(tmp_path / "report.html")]) == 0
    assert capsys.readouterr().out == printed.out
    assert "<html" in (tmp_path / "report.html").read_text()
    assert main(["report", str(logs), "--json"]) == 0
    (cell,) = json.loads(capsys.readouterr().out)["cells"]
    assert cell["scored"] == 3
    assert cell["figures"]["open"]["mean"] == 1
    # Whoever reads the log sees what was asked about; the model does not.
    (cell,) = collect([logs])
    for sample in cell.samples:
        jpeg = base64.b64decode(sample.photograph.removeprefix("data:image/jpeg;base64,"))
        picture = np.asarray(Image.open(io.BytesIO(jpeg)))
        truth = np.array(Image.open(class_folders / sample.metadata["query_key"]))
        assert np.abs(picture.mean() - truth.mean()) < 8
        assert picture.shape == truth.shape
    assert {type(content) for content in fake_model.contents} == {str}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("no such luck"), "RuntimeError('no such luck')"),
        (InputError("m: it's gone"), " m: it's gone"),
    ],
)
def test_failed_samples_are_1_and_named(error, told, class_folders, tmp_path, capsys, fake_model):
    def broken(prompt: str) -> str:
        raise error

    fake_model.answer = broken
    assert main(classify(class_folders, "--examples", "2", "--log-dir", str(tmp_path))) == 1
    out, err = capsys.readouterr()
    assert told in out
    assert "InputError" not in out
    assert "2way-1shot-seed0-00001" in out
    assert err.splitlines()[-1].startswith("spae-icl: not every sample has a score")


def test_arguments_reach_the_provider(class_folders, tmp_path, capsys):
    # The embedded model runs in this process: it takes no base URL, and says so in one line.
    given = classify(class_folders, "--model", "spae-lm/default", "--model-base-url", "http://localhost:1")
    assert main([*given, "--log-dir", str(tmp_path / "a")]) == 1
    given = classify(class_folders, "--model", "completions/m", "-M", "dialect=latin")
    assert main([*given, "--model-base-url", "http://localhost:1", "--log-dir", str(tmp_path / "b")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert "no base URL" in errors[0]
    assert "'latin'" in errors[1]


def test_the_embedded_model_through_the_front_door(tmp_path, capsys):
    """Photographs, the default tokenizer and the default model: what the words of two of them say."""
    try:
        model_file.smollm2_file()
    except InputError as error:
        pytest.skip(str(error))
    given = ["run", "interpret", "--model", "spae-lm/default", "--examples", "2", "--log-dir", str(tmp_path)]
    assert main(given) == 0
    assert main(["report", str(tmp_path), "--json"]) == 0
    (cell,) = json.loads(capsys.readouterr().out.splitlines()[-1])["cells"]
    assert cell["model"] == "spae-lm/default"
    assert cell["scored"] == 2
    assert cell["setting"]["tokens_per_image"] == 5
    assert cell["tokens"]["spae-lm/default"]["input"] > 100
    assert set(cell["figures"]) == {"named", "named_other"}
