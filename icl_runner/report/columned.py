"""Tables of a task whose cells stand side by side (`icl_runner.task.ColumnTable`)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import fsum
from typing import Any

from icl_runner.figures import OTHER, Control, Figure, Measure, figure
from icl_runner.report.labels import WORD_COUNT, facts, is_ceiling, label, told_twice, varying, words
from icl_runner.report.table import Row, Table, counted, without_empty
from icl_runner.results import CellResult
from icl_runner.task import ColumnTable, Task

NONE = "–"


def columned(
    task: type[Task], table: ColumnTable, cells: Sequence[CellResult], published: bool
) -> list[Table]:
    """One table for every group of cells, data set and measure. `published`: with what others reported."""

    def place(cell: CellResult) -> tuple[Any, str]:
        return table.group(cell.setting), cell.data

    made = []
    for (group, data), of_group in groupby(sorted(cells, key=place), place):
        together = list(of_group)
        for measure in task.measures:
            if any(figure(cell, measure) for cell in together):
                rows = _Rows(task, table, measure, together)
                made.append(_table(rows, group, data, published))
    return made


def _table(rows: "_Rows", group: Any, data: str, published: bool) -> Table:
    table, measure = rows.table, rows.measure
    made = rows.of_cells()
    made.append(Row("floor", "floor", (table.floor(group, measure),) * (len(rows.columns) + 1) + ("",)))
    about = table.about[measure.key]
    reported = table.published(group, measure) if published else []
    if reported:
        others = [NONE] * (len(rows.columns) - len(table.always))
        for name, values, average in reported:
            made.append(Row("published", name, (*map(_percent, values), _percent(average), *others, "")))
        about = f"{about} {table.about_published}"
    heads = [table.head(column) for column in rows.columns]
    heads.insert(len(table.always), "average")
    title = f"{table.title(group)}, {data}: {measure.title}, %"
    return without_empty(Table(title, about, (*heads, table.unit), tuple(made)))


class _Rows:
    """The rows of one table: of each label its result and its controls, or a ceiling."""

    def __init__(
        self, task: type[Task], table: ColumnTable, measure: Measure, cells: Sequence[CellResult]
    ) -> None:
        self.task, self.table, self.measure, self.cells = task, table, measure, cells
        others = sorted({self._column(cell) for cell in cells} - set(table.always))
        self.columns = (*table.always, *others)

    def of_cells(self) -> list[Row]:
        labels = self._labels()
        order = sorted(
            self.cells,
            key=lambda cell: (
                is_ceiling(cell),
                cell.model,
                cell.setting.get(WORD_COUNT) or 0,
                labels[id(cell)],
            ),
        )
        rows = []
        for name, of_label in groupby(order, lambda cell: labels[id(cell)]):
            by_column: dict[Any, CellResult] = {}
            for cell in of_label:
                if self._column(cell) in by_column:
                    raise told_twice(cell)
                by_column[self._column(cell)] = cell
            if is_ceiling(next(iter(by_column.values()))):
                rows.append(self._row("ceiling", name, None, by_column))
                continue
            rows.append(self._row("result", name, None, by_column))
            for control in self.task.controls:
                below = self._row("control", _named(control, by_column.values()), control, by_column)
                if any(isinstance(value, Figure) for value in below.values):
                    rows.append(below)
        return rows

    def _row(self, kind: str, name: str, control: Control | None, by_column: Mapping[Any, CellResult]) -> Row:
        """A figure for each column, the average of those that are always there, and how many samples they are of."""
        found = [
            figure(by_column[column], self.measure, control) if column in by_column else None
            for column in self.columns
        ]
        always = len(self.table.always)
        of_average = [one for one in found[:always] if one]
        average = _percent(
            fsum(one.mean for one in of_average) / always * self.measure.scale
            if len(of_average) == always
            else None
        )
        shown: list[Figure | str] = [one or NONE for one in found]
        shown.insert(always, average)
        return Row(kind, name, (*shown, counted([one.count for one in found if one])))

    def _column(self, cell: CellResult) -> Any:
        return self.table.column(cell.setting)

    def _labels(self) -> dict[int, str]:
        """id of a cell -> the label of its row."""
        told = {*self.table.told, WORD_COUNT}
        of_cells = {
            id(cell): facts(cell)
            | {key: str(value) for key, value in sorted(cell.setting.items()) if key not in told}
            for cell in self.cells
        }
        shown = varying(list(of_cells.values()))
        labels = {
            id(cell): label(
                cell, self.table.ceiling if is_ceiling(cell) else words(cell), of_cells[id(cell)], shown
            )
            for cell in self.cells
        }
        places = defaultdict(list)
        for cell in self.cells:
            places[labels[id(cell)], self._column(cell)].append(cell)
        for cells in places.values():
            # Of one place, such as with a control and without, or of other episodes: what differs makes rows of them.
            settings = [
                {key: str(value) for key, value in cell.setting.items()}
                | {"episodes": cell.episodes_sha256[:8]}
                for cell in cells
            ]
            for cell, own in zip(cells, settings, strict=True):
                labels[id(cell)] += "".join(f", {key} {own.get(key, NONE)}" for key in varying(settings))
        return labels


def _named(control: Control, cells: Iterable[CellResult]) -> str:
    """The control's label; that of cells whose setting says that their other image is of another class."""
    told = (cell.setting["control"] for cell in cells if control == OTHER and "control" in cell.setting)
    other = next(told, None)
    return control.label if other is None else f"control: words of an image of {other}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"
