"""Systems on the same episodes: what bundles say of them, differences by hand, refusals of what cannot be compared."""

from dataclasses import replace

import numpy as np
import pytest

from icl_runner.cli import main
from icl_runner.figures import BLIND, Figure
from icl_runner.report.compare import as_json, compare, differences, markdown, table
from icl_runner.report.tables import tables
from icl_runner.results import CellResult, Failure, Sample
from spae import bundle
from spae.errors import InputError

SETTING = {"ways": 2, "shots": 1, "induction": True, "repeats": 0, "names": "real", "words": "image"}
WORDS = {"config": {"pyramid": [1, 2], "codebook": "mapped"}}
LQAE = {"config": {"pyramid": [4], "codebook": "frozen", "language_model": "masked"}}


def trained(seconds, images, on, **more):
    return {"seconds": seconds, "images": images, "config": {"data": {"train": on}}, **more}


# Twice on the same hundred images, before that on others.
BEFORE = trained(140, 100, "a", initial=trained(7000, 900, "b"))
TRAINING = trained(60, 100, "a", devices=["cpu"], initial=BEFORE)


@pytest.fixture
def bundles(tmp_path):
    """Two tokenizers and a connector, as far as their files say what they are."""
    ten = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float32)}
    for name, info in (("words", {**WORDS, "training": TRAINING}), ("lqae", LQAE)):
        params = ten | {"trunk.c": np.zeros(5, np.float32)}  # frozen
        bundle.write(tmp_path / name, info, {"params.safetensors": params, "vocabulary.safetensors": ten})
    info = {"kind": "connector", "config": {"kind": "linear"}, "tokens": 16}
    bundle.write(tmp_path / "linear", info, {"connector.safetensors": ten})
    return tmp_path


def cell(
    bundle_path,
    right,
    task="classify",
    model="spae-lm/default",
    setting=SETTING,
    control=None,
    key="constrained",
):
    values = [{key: float(one)} for one in right]
    if control is not None:
        values = [{**one, f"{key}_other": float(other)} for one, other in zip(values, control, strict=True)]
    return CellResult(
        task=task,
        model=model,
        setting={"layers": 2, "tokens_per_image": 5, **setting},
        bundle=str(bundle_path),
        bundle_sha256=bundle.sha256(bundle_path),
        data="tiny",
        data_fingerprint="cd" * 32,
        seed=0,
        version="0.1",
        samples=tuple(Sample(f"e{i}", value, {}) for i, value in enumerate(values)),
        failures=(),
        expected=len(values),
        usage={},
        seconds=1.0,
    )


def by_label(made):
    return {row.label: dict(zip(made.columns, row.values, strict=True)) for row in made.rows}


def test_every_system_has_its_row_and_its_facts(bundles):
    connected = cell(bundles / "words", [1, 1, 1, 0], model=f"spae-connector/{bundles / 'linear'}")
    truth = cell(
        bundles / "words", [1, 1, 1, 1], setting={**SETTING, "words": "class-name", "tokens_per_image": 0}
    )
    words = cell(bundles / "words", [1, 0, 0, 0], control=[0, 0, 1, 0])
    words.samples[1].values["constrained_blind"] = 1.0
    assert BLIND.label in [row.label for row in tables([words])[0].rows]
    made = table(compare([connected, truth, words, cell(bundles / "lqae", [0, 0, 0, 0])]))
    rows = by_label(made)
    [head] = [name for name in made.columns if name.startswith("2-way 1-shot")]
    assert list(rows) == [
        "SPAE words, 5 tokens, spae-lm/default",
        "blind",
        "shuffled image",
        "LQAE, 5 tokens, spae-lm/default",
        "Frozen",
        f"LLaVA, linear, 16 tokens, spae-connector/{bundles / 'linear'}",
        "LLaVA, MLP",
        "ViP-LLaVA, several layers",
        "true label, spae-lm/default",
    ]
    ours, linear = rows["SPAE words, 5 tokens, spae-lm/default"], made.rows[7]
    assert ours[head].mean == 0.25
    assert (ours["label"], ours["trained parameters"], ours["tokens per image"]) == ("native", "10", "5")
    assert ours["training"] == "2.0 h on cpu, 1,000 images"
    assert linear.values[0] == "stage-1 only"
    assert (made.rows[1].values[1].mean, made.rows[1].values[1].count) == (1, 1)
    shuffled = made.rows[2].values[1]
    assert isinstance(shuffled, Figure)
    assert (shuffled.mean, shuffled.not_beaten) == (0.25, True)
    assert (rows["Frozen"][head], rows["Frozen"]["label"]) == ("not measured", "native")
    assert rows["true label, spae-lm/default"][head].mean == 1


def test_differences_are_of_the_same_episodes(bundles):
    words = cell(bundles / "words", [1, 0, 0, 1, 1])
    connected = cell(bundles / "words", [1, 1, 1, 1, 0], model=f"spae-connector/{bundles / 'linear'}")
    # One episode failed: it is in no difference.
    connected = replace(connected, samples=connected.samples[:4], failures=(Failure("e4", "timeout"),))
    made = compare([words, connected])
    [row] = differences(made).rows
    assert row.label.startswith("LLaVA, linear")
    [difference] = row.values
    assert (difference.mean, difference.count) == (0.5, 4)
    half = 1.959964 * np.std([0, 1, 1, 0], ddof=1) / 2
    assert [difference.low, difference.high] == pytest.approx([0.5 - half, 0.5 + half])
    [first, second] = as_json(made)["rows"]
    assert "difference" not in first["figures"][0]
    assert second["figures"][0]["difference"]["mean"] == 0.5
    assert second["parameters"] == "10"
    assert "Compared with SPAE words" in markdown(made)
    assert by_label(table(made))[row.label]["no score"] == "1"
    assert differences(compare([words])) is None


def test_what_cannot_be_compared_is_refused(bundles):
    words, lqae = cell(bundles / "words", [1, 0]), cell(bundles / "lqae", [1, 0])
    for other, what in (
        (replace(lqae, seed=1), "other seed"),
        (replace(lqae, data_fingerprint="ef"), "other data"),
        (replace(lqae, samples=lqae.samples[:1]), "other episodes"),
    ):
        with pytest.raises(InputError, match=f"not asked the same .*{what}"):
            compare([words, other])
    with pytest.raises(InputError, match="two runs of SPAE words"):
        compare([words, replace(words, version="0.2")])
    with pytest.raises(InputError, match=r"the comparison is of .*; got logs of interpret"):
        compare([replace(words, task="interpret")])
    with pytest.raises(InputError, match="is not the one of the logs"):
        compare([replace(words, bundle_sha256="ab")])
    bundle.write(
        bundles / "rq", {"config": {"pyramid": [4], "codebook": "learned"}}, {"params.safetensors": {}}
    )
    with pytest.raises(InputError, match="no row for"):
        compare([cell(bundles / "rq", [1])])


# inspect-ai leaves streams between its own tasks open at the end of a run.
@pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")
@pytest.mark.usefixtures("streams_collected")
def test_through_the_door(class_folders, tmp_path, capsys, fake_model):
    fake_model.answer = lambda prompt: prompt.rpartition("Input:")[2].partition("\n")[0]
    given = ["run", "classify", "--data", str(class_folders), "--words", "class-name", "--model", "fake/m"]
    assert main([*given, "--examples", "2", "--log-dir", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| true label, fake/m | – | 100.0 " in printed
    assert printed.count("not measured") == 6 * 2
    assert main(["compare", str(tmp_path / "nothing")]) == 1
