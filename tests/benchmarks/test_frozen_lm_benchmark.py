"""The benchmark of the language model on a tiny one: every figure is there. No timing is judged."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks import frozen_lm as benchmark
from benchmarks.frozen_lm import main, read_and_write
from spae import frozen_lm
from spae.errors import InputError
from spae.frozen_lm.model_file import smollm2_file
from spae.frozen_lm.weights import read_model

TINY = Path(__file__).parents[1] / "golden" / "frozen_lm" / "llama"


class FakePeer:
    facts = {"weights": "none"}  # noqa: RUF012

    def __init__(self):
        self.asked = []

    def ask(self, prompt, count):
        self.asked.append((len(prompt), count))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(benchmark, "READ", 20)
    monkeypatch.setattr(benchmark, "PROMPT", 9)
    monkeypatch.setattr(benchmark, "WRITE", 4)
    monkeypatch.setattr(benchmark, "LEAST_ID", 3)


def test_every_figure_is_there_and_peers_get_the_same_work():
    peer = FakePeer()
    results = read_and_write(frozen_lm.load(TINY), 2, {"fake": peer}, 1.5)
    assert set(results) == {
        "read 20",
        "write 4",
        "write 8 x 4",
        "score 20",
        "read 20, fake",
        "write 4, fake",
    }
    for entry in results.values():
        assert entry["repeats"] == 2
        assert entry["tokens_per_s"]["median"] > 0
    assert results["write 4, fake"]["weights"] == "none"
    assert (results["read 20"]["weights"], results["read 20"]["load_s"]) == ("float32", 1.5)
    assert results["read 20"]["peak_gb"] > 0.05
    assert set(peer.asked) == {(20, 1), (9, 4)}


def test_the_command_writes_json_and_prints_a_table(tmp_path, capsys):
    output = tmp_path / "frozen_lm.json"
    assert main(["--output", str(output), "--model", str(TINY), "--repeats", "1"]) == 0
    document = json.loads(output.read_text())
    assert {"processor", "cores", "load"} <= set(document["machine"])
    assert "score 20" in document["results"]["frozen_lm"]
    assert "tokens/s" in capsys.readouterr().out
    assert main(["--output", str(output), "--model", str(tmp_path / "none")]) == 1
    assert "wanted default" in capsys.readouterr().err


def test_a_peer_that_ends_is_named(tmp_path):
    with pytest.raises(InputError, match="the peer ended"):
        benchmark.Peer(sys.executable, benchmark.SCRIPT, ["nothing", tmp_path])


def test_transformers_gets_the_same_weights(tmp_path):
    try:
        path = smollm2_file()
    except InputError as error:
        pytest.skip(str(error))
    benchmark.write_folder(path, tmp_path)
    ours, theirs = read_model(path).tensors, {}
    for file in tmp_path.glob("*.safetensors"):
        theirs |= load_file(file)
    assert len(theirs) == len(ours)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index) == {"metadata", "weight_map"}  # transformers reads no index without either
    assert set(index["weight_map"]) == set(theirs)
    np.testing.assert_array_equal(theirs["model.embed_tokens.weight"], ours["embed"])
    np.testing.assert_array_equal(theirs["model.layers.3.self_attn.q_proj.weight"], ours["blocks.3.q"])
    np.testing.assert_array_equal(theirs["model.layers.29.mlp.down_proj.weight"], ours["blocks.29.down"])
