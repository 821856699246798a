"""Models side by side: paired by sample, over what all of them have, against NumPy and SciPy."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from icl_runner.report.side_by_side import as_json, side_by_side
from icl_runner.results import CellResult, Sample
from icl_runner.scoring import mcnemar
from spae.errors import InputError

SETTING = {
    "ways": 2,
    "shots": 1,
    "induction": True,
    "repeats": 0,
    "names": "real",
    "layers": 2,
    "words": "image",
}


def cell(model: str, values, setting=SETTING, **changes) -> CellResult:
    samples = tuple(
        Sample(f"e{i:02}", {"constrained": float(value), "open": 0.0}, {"query_key": f"image {i}"})
        for i, value in enumerate(values)
        if value is not None
    )
    of_log = {"bundle": "default", "bundle_sha256": "ab", "data": "d", "data_fingerprint": "cd", "seed": 0}
    of_log |= {"version": "1", "failures": (), "expected": len(values), "usage": {}, "seconds": 1.0} | changes
    return CellResult(task="classify", model=model, setting=setting, samples=samples, **of_log)


RNG = np.random.default_rng(0)
A, B = RNG.integers(0, 2, 40), RNG.integers(0, 2, 40)


def test_a_model_that_was_asked_twice_is_told_from_itself():
    cells = [cell("x/a", A), cell("x/a", B, version="2"), cell("x/b", A)]
    table = next(one for one in side_by_side(cells) if "constrained" in one.title)
    assert table.columns[:3] == ("a (version 1)", "a (version 2)", "b")
    assert [figure.mean for figure in table.rows[0].values[:3]] == [A.mean(), B.mean(), A.mean()]
    at = [cell("x/a", A, provider="http://a/v1"), cell("x/a", B, provider="http://b/v1")]
    table = next(one for one in side_by_side(at) if "constrained" in one.title)
    assert table.columns[:2] == ("a (asked at http://a/v1)", "a (asked at http://b/v1)")


def test_two_models_on_the_same_episodes():
    [opened, constrained] = sorted(
        side_by_side([cell("spae-lm/a", A), cell("spae-lm/b", B)]),
        key=lambda table: "constrained" in table.title,
    )
    assert constrained.title.startswith("Models side by side: Classification, constrained to the names")
    assert constrained.columns == ("a", "b", "b less a", "samples")
    [row] = constrained.rows
    d = B - A.astype(float)
    half = 1.959964 * d.std(ddof=1) / np.sqrt(40)
    first, second, found, count = row.values
    assert (first.mean, second.mean, found.mean) == pytest.approx((A.mean(), B.mean(), d.mean()))
    assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half))
    assert count == "40"
    assert opened.rows[0].values[2].mean == 0
    [told] = [one for one in as_json([cell("a", A), cell("b", B)]) if one["measure"] == "constrained"]
    assert (told["only_first"], told["only_second"]) == ((B > A).sum(), (A > B).sum())
    assert told["p"] == pytest.approx(
        binomtest(told["only_first"], told["only_first"] + told["only_second"]).pvalue
    )


def test_only_what_all_have_seen_is_compared():
    some = [None if i < 4 else int(a) for i, a in enumerate(A)]
    other_image = cell("c", A)
    moved = replace(other_image.samples[9], metadata={"query_key": "another image"})
    other_image = replace(other_image, samples=(*other_image.samples[:9], moved, *other_image.samples[10:]))
    tables = side_by_side([cell("a", A), cell("b", some), other_image])
    assert [table.rows[0].values[-1] for table in tables] == ["35", "35"]
    assert len(tables[0].columns) == 3 + 3 + 1


def test_other_settings_data_and_tokenizers_are_not_compared():
    first = cell("a", A)
    assert side_by_side([first]) == []
    for changes in (
        {"setting": SETTING | {"shots": 3}},
        {"bundle_sha256": "x"},
        {"data_fingerprint": "x"},
        {"seed": 1},
    ):
        assert side_by_side([first, cell("b", B, **changes)]) == []
    # Nothing in common: no row, and no error.
    assert side_by_side([cell("a", [1, None]), cell("b", [None, 1])]) == []


def test_models_of_the_same_last_name_keep_the_whole():
    table = side_by_side([cell("spae-lm/m", A), cell("completions/m", B)])[0]
    assert table.columns[:3] == ("spae-lm/m", "completions/m", "completions/m less spae-lm/m")


@pytest.mark.parametrize("pair", [(0, 0), (0, 1), (3, 9), (9, 3), (5, 5)])
def test_mcnemar(pair):
    wanted = binomtest(pair[0], sum(pair)).pvalue if sum(pair) else 1
    assert mcnemar(*pair) == pytest.approx(wanted)
    with pytest.raises(InputError, match="from 0"):
        mcnemar(-1, 2)
