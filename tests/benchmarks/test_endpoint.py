"""The benchmark of the provider `completions` on few requests: every figure is there. No timing is judged."""

import gc
import json

import pytest

from benchmarks.endpoint import CALLERS, IDEAL, main

# inspect leaves streams between its own tasks open at the end of an eval.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")


def test_the_command_writes_json_and_prints_a_line_each(tmp_path, capsys):
    output = tmp_path / "endpoint.json"
    assert main(["--output", str(output), "--requests", str(CALLERS + 1), "--repeats", "1"]) == 0
    gc.collect()
    document = json.loads(output.read_text())
    assert {"cores", "processor", "load"} <= set(document["machine"])
    results = document["results"]["endpoint"]
    assert set(results) == {"provider", "inspect's own", "model.generate", "eval", "run"}
    for name, entry in results.items():
        asked = 4 * CALLERS if name == "run" else CALLERS
        assert (entry["callers"], entry["requests"], entry["repeats"]) == (CALLERS, asked, 1)
        # Nobody answers sooner than the endpoint.
        assert 0 < entry["share_of_ideal"] <= 1
        assert entry["share_of_ideal"] == entry["answers_per_s"]["median"] / IDEAL
        assert entry["processor_ms"]["median"] > 0
        assert entry["endpoint_processor_ms"] > 0
    assert capsys.readouterr().out.count("% of 1280") == 5


def test_too_few_requests(tmp_path):
    with pytest.raises(SystemExit, match="2"):
        main(["--output", str(tmp_path / "endpoint.json"), "--requests", "3"])
