"""The load generator against a service on the fake tokenizer: every figure is there. No timing is judged."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "spae"))

import fake_tokenizer
from fake_tokenizer import FakeTokenizer

from benchmarks import service
from benchmarks.timing import table

PROGRAM = f"""
import sys
sys.path.insert(0, {str(Path(fake_tokenizer.__file__).parent)!r})
import spae
from fake_tokenizer import load_fake
from spae.cli import main
spae.load = load_fake
sys.exit(main())
"""


def test_every_figure_is_there(monkeypatch):
    monkeypatch.setattr(service, "PROGRAM", PROGRAM)
    monkeypatch.setattr(service, "CLIENTS", (1, 4, 64))
    # 16 places for 64 clients: most are refused.
    found = service.under_load(FakeTokenizer(), "default", 1, 0.3, ["--queue", "16"])
    loads = ["1 client", "4 clients", "64 clients", "twice saturation"]
    assert list(found) == [*(f"in process, batch {n}" for n in (8, 16, 32)), *loads]
    for name in loads:
        entry = found[name]
        assert entry["images_per_s"]["min"] > 0
        assert 0 < entry["seconds"]["median"] <= entry["p99_s"] <= entry["seconds"]["max"]
        assert entry["part_of_in_process"] > 0
        assert set(entry["statuses"]) <= {"200", "429"}
        assert entry["statuses"]["200"] == entry["repeats"]
    assert found["1 client"]["statuses"] == {"200": found["1 client"]["repeats"]}
    assert found["64 clients"]["statuses"]["429"] > 0
    overload = found["twice saturation"]
    assert overload["requests_per_s"] > 0
    assert overload["p99_of_saturation"] > 0
    assert overload["refused"]["with_retry_after"] == overload["statuses"].get("429", 0)
    json.dumps(found)
    assert "64 clients" in table({"service": found})


def test_a_service_that_does_not_start(monkeypatch):
    monkeypatch.setattr(service, "PROGRAM", PROGRAM)
    with pytest.raises(RuntimeError, match="did not start: exit status 1"):
        service.under_load(FakeTokenizer(), "elsewhere", 1, 0.1)
