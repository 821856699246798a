"""All tables of the report: results by task, models side by side, what was repaired, what it took, what failed, and
where it came from."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from math import fsum

from icl_runner import tasks
from icl_runner.figures import Figure, Measure
from icl_runner.prices import Prices, cost
from icl_runner.report.columned import columned
from icl_runner.report.labels import describe, facts, is_ceiling, label, varying, words
from icl_runner.report.side_by_side import side_by_side
from icl_runner.report.table import Row, Table, counted
from icl_runner.results import CellResult

SPENT = "What it took"  # the table behind the results


def tables(cells: Sequence[CellResult], prices: Prices | None = None, published: bool = False) -> list[Table]:
    """All tables of `cells`, as `collect` orders them: results by task, then what was spent, failures, provenance.

    Args:
        prices: as `icl_runner.prices.read_prices` gives them.
        published: set the reported figures of others beside ours.
    """
    made = []
    for name, of_task in groupby(cells, lambda cell: cell.task):
        together = list(of_task)
        task = tasks.find(name)
        scored = [cell for cell in together if cell.samples]
        if task.table is not None:
            made += columned(task, task.table, together, published)
        elif scored:
            made.append(_plain(name, scored))
    made += side_by_side(cells)
    drawn = [cell for cell in cells if tasks.find(cell.task).draws and cell.samples]
    if drawn:
        made.append(_repairs(drawn))
    made.append(_spent(cells, prices))
    if any(cell.failures for cell in cells):
        made.append(_failures(cells))
    made.append(_provenance(cells))
    return made


def _plain(name: str, cells: Sequence[CellResult]) -> Table:
    """One row for each cell and for each of its controls; the measures are the columns."""
    task = tasks.find(name)
    controls = (None, *task.controls)  # None: the result itself
    found = [
        {control: of_row for control in controls if (of_row := task.figures(cell, control))} for cell in cells
    ]
    measures: list[Measure] = []
    for of_cell in found:
        for of_row in of_cell.values():
            measures += [one.measure for one in of_row if one.measure not in measures]
    # What the settings say is in the description already.
    shown = varying([facts(cell) for cell in cells])
    rows: list[Row] = []
    for cell, of_cell in zip(cells, found, strict=True):
        for control, of_row in of_cell.items():
            by_measure: dict[Measure, Figure] = {one.measure: one for one in of_row}
            values = (*(by_measure.get(m, "–") for m in measures), counted([one.count for one in of_row]))
            if control is None:
                text = f"{describe(cell)}, {label(cell, words(cell), facts(cell), shown)}"
                rows.append(Row("ceiling" if is_ceiling(cell) else "result", text, values))
            elif not is_ceiling(cell):  # which is there to be fallen short of
                rows.append(Row("ceiling" if control.ceiling else "control", control.label, values))
    floors = [measure.floor for measure in measures]
    if any(floors):
        reasons = ", ".join(dict.fromkeys(reason for _, reason in filter(None, floors)))
        rows.append(Row("floor", f"floor: {reasons}", (*(one[0] if one else "–" for one in floors), "")))
    return Table(task.title, "", (*(measure.title for measure in measures), "examples"), tuple(rows))


def _repairs(cells: Sequence[CellResult]) -> Table:
    """How much of what the models wrote had to be mended before it was a picture; see `spae.text.Repair`."""
    counts: list[Counter[str]] = [Counter() for _ in cells]
    for count, cell in zip(counts, cells, strict=True):
        for sample in cell.samples:
            count.update(sample.metadata.get("repairs") or {})
    kinds = sorted({kind for count in counts for kind in count})
    rows = [
        Row(
            "entry",
            f"{describe(cell)}, {words(cell)}",
            (str(len(cell.samples)), *(str(count[k]) for k in kinds)),
        )
        for count, cell in zip(counts, cells, strict=True)
    ]
    about = (
        "Of all pictures together. A missing or unknown word was filled in by us." if kinds else "None was."
    )
    return Table("Words that were repaired", about, ("pictures", *kinds), tuple(rows))


def _spent(cells: Sequence[CellResult], prices: Prices | None) -> Table:
    columns = ["scored", "failed", "missing", "prompt tokens", "answer tokens", "minutes"]
    rows = []
    costs = [cost(cell, prices) for cell in cells]
    for cell, money in zip(cells, costs, strict=True):
        read, written = tokens(cell)
        values = [str(len(cell.samples)), str(len(cell.failures)), str(cell.missing)]
        values += [f"{read:,}", f"{written:,}", f"{cell.seconds / 60:.1f}"]
        if prices is not None:
            values.append(_money(money))
        state = " (unfinished)" if cell.missing else ""
        label = f"{describe(cell)}, {cell.model}, {words(cell)}{state}"
        rows.append(Row("entry", label, tuple(values)))
    read, written = (sum(tokens(cell)[i] for cell in cells) for i in (0, 1))
    counts = [
        sum(len(c.samples) for c in cells),
        sum(len(c.failures) for c in cells),
        sum(c.missing for c in cells),
    ]
    seconds = fsum(cell.seconds for cell in cells)
    values = [*map(str, counts), f"{read:,}", f"{written:,}", f"{seconds / 60:.1f}"]
    if prices is not None:
        columns.append(f"cost, {prices.currency}" if prices.currency else "cost")
        known = [money for money in costs if money is not None]
        values.append(_money(fsum(known)) + ("" if len(known) == len(costs) else ", and what has no price"))
    rows.append(Row("floor", "together", tuple(values)))
    about = "Samples without a score are in no mean. Tokens are as the models count them, prompts read again included."
    return Table(SPENT, about, tuple(columns), tuple(rows))


def tokens(cell: CellResult) -> tuple[int, int]:
    """Of all models together: read, written."""
    return sum(used[0] for used in cell.usage.values()), sum(used[1] for used in cell.usage.values())


def _money(value: float | None) -> str:
    return "no price" if value is None else f"{value:.4f}" if value < 1 else f"{value:.2f}"


def _failures(cells: Sequence[CellResult]) -> Table:
    rows = []
    for cell in cells:
        by_reason: dict[str, list[str]] = {}
        for failure in cell.failures:
            by_reason.setdefault(failure.reason, []).append(failure.id)
        for reason, ids in sorted(by_reason.items()):
            rows.append(Row("entry", describe(cell), (reason, str(len(ids)), ", ".join(ids))))
    return Table("Samples without a score", "", ("reason", "samples", "which"), tuple(rows))


def _provenance(cells: Sequence[CellResult]) -> Table:
    seen = sorted(
        {(c.bundle, c.bundle_sha256, c.data, c.data_fingerprint, str(c.seed), c.version) for c in cells}
    )
    rows = [
        Row("entry", bundle, (sha256[:12], data, print_[:12], seed, version))
        for bundle, sha256, data, print_, seed, version in seen
    ]
    columns = ("sha256 of the bundle", "data", "its fingerprint", "seed", "version of spae")
    return Table("What it was measured with", "", columns, tuple(rows))
