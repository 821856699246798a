"""What is told of ratios that fell. No timing is judged."""

import json

import pytest

from benchmarks import check


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "TABLE", tmp_path / "check.json")
    check.TABLE.write_text(json.dumps({"search": 4.0, "encoder": 0.5}))
    return check.TABLE


@pytest.mark.parametrize(("search", "status"), [(3.1, 0), (2.9, 1), (40.0, 0)])
def test_a_ratio_that_fell_by_more_than_a_quarter_fails(search, status, table, monkeypatch, capsys):
    monkeypatch.setattr(check, "ratios", lambda repeats: {"search": search, "encoder": 0.5, "new": 1.0})
    assert check.main([]) == status
    assert ("search: wanted about 4, got 2.9" in capsys.readouterr().err) == bool(status)


def test_what_was_not_measured_fails(table, monkeypatch, capsys):
    monkeypatch.setattr(check, "ratios", lambda repeats: {"search": 4.0})
    assert check.main([]) == 1
    assert "encoder: wanted about 0.5, it was not measured" in capsys.readouterr().err


def test_the_table_is_written_anew(table, monkeypatch):
    monkeypatch.setattr(check, "ratios", lambda repeats: {"search": 1.23456})
    assert check.main(["--write", "--repeats", "3"]) == 0
    assert json.loads(table.read_text()) == {"search": 1.235}
