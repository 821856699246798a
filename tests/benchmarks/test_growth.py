"""How growth is fitted and plotted. No timing is judged."""

import json

import pytest
from PIL import Image

from benchmarks import growth


def test_the_exponent_is_that_of_the_power_law():
    sizes = [2, 4, 8, 16]
    assert growth.exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)


def test_the_command_writes_times_memory_and_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(growth.spae, "load", lambda: None)
    monkeypatch.setattr(growth, "WORDS", (64, 200))
    monkeypatch.setattr(growth, "POSITIONS", 3)
    monkeypatch.setattr(
        growth,
        "growth",
        lambda tokenizer, repeats: {
            "search": growth._curve("words", {n: growth._search(n, 4) for n in growth.WORDS}, repeats),
            "encode": growth._curve("images", {1: (lambda: None, None), 4: (lambda: None, None)}, repeats),
        },
    )
    output, picture = tmp_path / "growth.json", tmp_path / "growth.png"
    assert growth.main(["--output", str(output), "--plot", str(picture), "--repeats", "2"]) == 0
    curves = json.loads(output.read_text())["curves"]
    assert set(curves["search"]["sizes"]) == {"64", "200"}
    assert curves["search"]["sizes"]["200"]["temporary_bytes"] > 0
    assert curves["encode"]["sizes"]["4"]["temporary_bytes"] is None
    with Image.open(picture) as image:
        assert image.format == "PNG"
    assert "search: seconds grow as words^" in capsys.readouterr().out
