"""Several models on the same samples: what each got, and the differences with paired intervals."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from icl_runner import tasks
from icl_runner.figures import Figure, Measure, difference, figure
from icl_runner.report.labels import describe, facts, told_twice, varying, words
from icl_runner.report.table import Row, Table
from icl_runner.results import CellResult
from icl_runner.scoring import mcnemar

ABOUT = (
    "Over the samples that all models of a row have scored, the same images in the same contexts. A difference is the "
    "mean over samples of that of their scores, with its 95 % interval, mean ± 1.96 s / √n of the differences."
)
ABOUT_MEANS = "All are means over samples, also of BLEU-4, which the results have of the whole corpus."


@dataclass(frozen=True)
class Compared:
    """One setting and one measure.

    Args:
        cells: model -> its cell, with nothing but the samples that all of them have. A model that was asked twice is
            told apart behind its name.
        figures: model -> what it got.
        differences: (one model, another before it) -> the first less the second.
    """

    measure: Measure
    cells: Mapping[str, CellResult]
    figures: Mapping[str, Figure]
    differences: Mapping[tuple[str, str], Figure]

    @property
    def cell(self) -> CellResult:
        """The first model's."""
        return next(iter(self.cells.values()))


def compared(cells: Sequence[CellResult]) -> list[Compared]:
    """Every setting that two models or more were asked in, with each of its measures, in the order of `cells`."""
    groups: dict[str, list[CellResult]] = {}
    for cell in cells:
        data = [cell.data_fingerprint, cell.examples_sha256, cell.episodes_sha256]
        asked = [cell.task, cell.setting, cell.bundle_sha256, *data, cell.seed]
        groups.setdefault(json.dumps(asked, sort_keys=True), []).append(cell)
    shared = [_shared(_named(of_group)) for of_group in groups.values() if len(of_group) > 1]
    return [one for of_group in shared for one in _measured(of_group)]


def _named(cells: Sequence[CellResult]) -> dict[str, CellResult]:
    """By their models; where one was asked twice, with what tells it from itself (another endpoint, or version).

    Raises:
        InputError: nothing does.
    """
    named: dict[str, CellResult] = {}
    for cell in cells:
        shown = varying([facts(one) for one in cells if one.model == cell.model])
        told = ", ".join(f"{key} {facts(cell)[key]}" for key in shown if facts(cell)[key])
        name = f"{cell.model} ({told})" if told else cell.model
        if name in named:
            raise told_twice(cell)
        named[name] = cell
    return named


def _shared(cells: Mapping[str, CellResult]) -> dict[str, CellResult]:
    """The cells with the samples that all have: of the same id, and about the same image."""
    by_id = [
        {(sample.id, sample.metadata.get("query_key")): sample for sample in cell.samples}
        for cell in cells.values()
    ]
    common = sorted(set.intersection(*map(set, by_id)), key=str)
    return {
        model: replace(cell, samples=tuple(samples[key] for key in common))
        for (model, cell), samples in zip(cells.items(), by_id, strict=True)
    }


def _measured(cells: Mapping[str, CellResult]) -> Iterator[Compared]:
    task = next(iter(cells.values())).task
    for measure in tasks.find(task).measures:
        figures = {model: one for model, cell in cells.items() if (one := figure(cell, measure))}
        differences = {
            (second, first): found
            for first, second in itertools.combinations(figures, 2)
            if (found := difference(measure, cells[second], cells[first]))
        }
        if differences:
            yield Compared(measure, cells, figures, differences)


def side_by_side(cells: Sequence[CellResult]) -> list[Table]:
    """A table for each task and measure in which models can be compared: a row for each setting."""
    by_table: dict[tuple[str, Measure], list[Compared]] = {}
    for one in compared(cells):
        by_table.setdefault((one.cell.task, one.measure), []).append(one)
    return [_table(task, measure, rows) for (task, measure), rows in by_table.items()]


def _table(task: str, measure: Measure, rows: Sequence[Compared]) -> Table:
    models = list(dict.fromkeys(model for row in rows for model in row.figures))
    pairs = [(second, first) for first, second in itertools.combinations(models, 2)]
    short = _short(models)
    made = [
        Row(
            "entry",
            f"{describe(row.cell)}, {words(row.cell)}",
            (
                *(row.figures.get(model, "–") for model in models),
                *(row.differences.get(pair, "–") for pair in pairs),
                str(len(row.cell.samples)),
            ),
        )
        for row in rows
    ]
    columns = (
        *(short[model] for model in models),
        *(f"{short[one]} less {short[other]}" for one, other in pairs),
        "samples",
    )
    title = f"Models side by side: {tasks.find(task).title}, {measure.title}"
    title = title if measure.scale != 100 or "%" in title else f"{title}, %"
    return Table(title, ABOUT if measure.share else f"{ABOUT} {ABOUT_MEANS}", columns, tuple(made))


def _short(models: Sequence[str]) -> dict[str, str]:
    """The last part of a model's name, where that tells all of them apart."""
    parts = {model: model.partition(" (") for model in models}
    last = {model: name.rpartition("/")[2] + sign + told for model, (name, sign, told) in parts.items()}
    return last if len(set(last.values())) == len(models) else {model: model for model in models}


def as_json(cells: Sequence[CellResult]) -> list[dict[str, Any]]:
    """Every difference, unscaled, with McNemar's test for shares; bounds that are not finite are None."""
    return [
        {
            "task": row.cell.task,
            "setting": dict(row.cell.setting),
            "measure": row.measure.key,
            "models": [one, other],
            "difference": found.mean if math.isfinite(found.mean) else None,
            "low": found.low if found.low is not None and math.isfinite(found.low) else None,
            "high": found.high if found.high is not None and math.isfinite(found.high) else None,
            "count": found.count,
            **(_discordant(row, one, other) if row.measure.share else {}),
        }
        for row in compared(cells)
        for (one, other), found in row.differences.items()
    ]


def _discordant(row: Compared, one: str, other: str) -> dict[str, Any]:
    """How many samples only one of two models has right."""
    pairs = [
        (a.values[row.measure.key], b.values[row.measure.key])
        for a, b in zip(row.cells[one].samples, row.cells[other].samples, strict=True)
        if row.measure.key in a.values and row.measure.key in b.values
    ]
    only = sum(a > b for a, b in pairs), sum(b > a for a, b in pairs)
    return {"only_first": only[0], "only_second": only[1], "p": mcnemar(*only)}
