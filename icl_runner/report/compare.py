"""`spae-icl compare`: one table of systems on the same episodes, each with what it is honest to claim of it.

The rows are those of `icl_runner.report.systems`, what was not measured too; below each its controls, last the true
label where it stood in place of the images. The columns are the settings of `classify`, `caption` and `vqa`, which must
be of the same data, seed and episodes in every row. A second table has the differences to the first row, episode by
episode.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from icl_runner import tasks
from icl_runner.cells import CONNECTOR
from icl_runner.figures import BLIND, OTHER, Control, Figure, Measure, difference, finite
from icl_runner.report.labels import WORD_COUNT, describe_setting, is_ceiling
from icl_runner.report.report import markdown_table, notes
from icl_runner.report.systems import SYSTEMS, Facts, facts
from icl_runner.report.table import Row, Table, without_empty
from icl_runner.results import CellResult
from spae.errors import InputError

TASKS = ("classify", "caption", "vqa")
TRUE_LABEL = "true label"
CONTROLS = (Control(BLIND.suffix, "blind"), Control(OTHER.suffix, "shuffled image"))
NOT_MEASURED = "not measured"
NONE = "–"
# What of a setting is the system's own affair; all else decides which episodes were asked, and how.
_OWN = ("layers", WORD_COUNT, "words", "control")


@dataclass(frozen=True)
class Column:
    """A setting of a task, the same for all systems."""

    task: str
    setting: tuple[tuple[str, Any], ...]

    @property
    def title(self) -> str:
        return describe_setting(self.task, dict(self.setting))


@dataclass(frozen=True)
class Line:
    """A system that was measured, or the true label (`facts` is None): its cell in every column that it has."""

    model: str
    facts: Facts | None
    cells: dict[Column, CellResult]

    @property
    def label(self) -> str:
        if self.facts is None:
            return f"{TRUE_LABEL}, {self.model}"
        return f"{SYSTEMS[self.facts.kind].name}, {self.facts.tokens} tokens, {self.model}"


@dataclass(frozen=True)
class Comparison:
    """Lines in the order of SYSTEMS, the true label last; columns in that of TASKS."""

    lines: tuple[Line, ...]
    columns: tuple[Column, ...]

    @property
    def base(self) -> Line | None:
        """The line that others are compared with: the first system."""
        return next((line for line in self.lines if line.facts), None)


def compare(cells: Sequence[CellResult]) -> Comparison:
    """The cells of logs, set beside each other.

    Raises:
        InputError: another task; two runs in one place; episodes, data or seeds that differ; a system without a row.
        BundleError: the bundle of a log is not there.
    """
    lines: dict[tuple[Any, ...], Line] = {}
    for cell in cells:
        if cell.task not in TASKS:
            raise InputError(
                f"the comparison is of {', '.join(TASKS)}; got logs of {cell.task}: leave them out"
            )
        found = None if is_ceiling(cell) else facts(cell)
        # A connector looks at the image itself, whatever tokenizer the run was given for words.
        seen = "" if found is None or cell.model.startswith(CONNECTOR) else (cell.bundle, found.tokens)
        line = lines.setdefault((found is None, cell.model, seen), Line(cell.model, found, {}))
        setting = {key: value for key, value in cell.setting.items() if key not in _OWN}
        column = Column(cell.task, tuple(sorted(setting.items())))
        if column in line.cells:
            raise InputError(f"two runs of {line.label} have {column.title}: give the logs of one")
        line.cells[column] = cell
    columns = {column for line in lines.values() for column in line.cells}
    order = list(SYSTEMS)
    made = Comparison(
        tuple(
            sorted(
                lines.values(), key=lambda line: order.index(line.facts.kind) if line.facts else len(order)
            )
        ),
        tuple(sorted(columns, key=lambda column: (TASKS.index(column.task), str(column.setting)))),
    )
    for column in made.columns:
        _check_same(column, [line for line in made.lines if column in line.cells])
    return made


def _check_same(column: Column, lines: Sequence[Line]) -> None:
    """Whether all were asked about the same."""
    first, *others = lines
    for other in others:
        one, two = first.cells[column], other.cells[column]
        differing = [
            name
            for name, value in (
                ("data", lambda cell: (cell.data_fingerprint, cell.examples_sha256)),
                ("seed", lambda cell: cell.seed),
                ("episodes", lambda cell: (_ids(cell), cell.episodes_sha256)),
            )
            if value(one) != value(two)
        ]
        if differing:
            raise InputError(
                f"{first.label} and {other.label} were not asked the same ({column.title}): other "
                f"{' and '.join(differing)}. Run both with the same settings, to the end"
            )


def _ids(cell: CellResult) -> set[str]:
    """Of all samples that were asked, those that failed too."""
    return {one.id for one in cell.samples} | {one.id for one in cell.failures}


def table(made: Comparison) -> Table:
    """Every system with its figures, its controls, and what it took."""
    places = _places(made)
    heads = ("label", *(_head(made, *place) for place in places))
    heads += ("trained parameters", "tokens per image", "training", "no score")
    rows = []
    for kind, system in SYSTEMS.items():
        of_kind = [line for line in made.lines if line.facts and line.facts.kind == kind]
        for line in of_kind:
            rows += _rows(line, places, system.label)
        if not of_kind:
            rows.append(_empty("result", system.name, system.label, len(places)))
    ceilings = [line for line in made.lines if line.facts is None]
    for line in ceilings:
        rows.append(_row("ceiling", line.label, line, places, None, "–"))
    if not ceilings:
        rows.append(_empty("ceiling", TRUE_LABEL, "–", len(places)))
    about = (
        "Native: the published method, with a frozen language model. Stage-1 only: the connector is the published one, "
        "the language model that was tuned behind it is not. All figures of a column are of the same episodes."
    )
    return Table("Systems on the same episodes", about, heads, tuple(rows))


def differences(made: Comparison) -> Table | None:
    """What every system gets more or less than the first one, over the episodes that both have; None if there is none.

    Only of what is a mean over episodes: BLEU-4 and CIDEr are of a corpus.
    """
    base = made.base
    if base is None:
        return None
    places = _places(made)
    rows = []
    for line in made.lines:
        if line is not base and line.facts is not None:
            values = tuple(_difference(line, base, column, measure) or NONE for column, measure in places)
            if any(isinstance(value, Figure) for value in values):
                rows.append(Row("entry", line.label, values))
    if not rows:
        return None
    heads = tuple(_head(made, *place) for place in places)
    about = "Differences episode by episode, with their 95 % intervals."
    return without_empty(Table(f"Compared with {base.label}", about, heads, tuple(rows)))


def markdown(made: Comparison) -> str:
    """Both tables, as GitHub Markdown."""
    tables = [one for one in (table(made), differences(made)) if one]
    return "\n\n".join([*map(markdown_table, tables), *notes(tables)])


def as_json(made: Comparison) -> dict[str, Any]:
    """The same, ready for `json.dumps`: means and bounds unscaled."""
    places = _places(made)
    rows = []
    for line in made.lines:
        system = SYSTEMS[line.facts.kind] if line.facts else None
        rows.append(
            {
                "system": system.name if system else TRUE_LABEL,
                "label": system.label if system else None,
                "model": line.model,
                **({} if line.facts is None else asdict(line.facts)),
                "figures": [_json(line, made.base, column, measure) for column, measure in places],
            }
        )
    measured = {line.facts.kind for line in made.lines if line.facts}
    missing = [system.name for kind, system in SYSTEMS.items() if kind not in measured]
    columns = [
        {"task": column.task, "setting": dict(column.setting), "measure": measure.key}
        for column, measure in places
    ]
    return {"format": "spae-icl-compare", "columns": columns, "rows": rows, "not_measured": missing}


def _places(made: Comparison) -> list[tuple[Column, Measure]]:
    """What was measured of any system: a column of the table each."""
    return [
        (column, measure)
        for column in made.columns
        for measure in tasks.find(column.task).measures
        if any(_figure(line, column, measure, None) for line in made.lines)
    ]


def _head(made: Comparison, column: Column, measure: Measure) -> str:
    cell = next(line.cells[column] for line in made.lines if column in line.cells)
    percent = ", %" if measure.scale == 100 and "%" not in measure.title else ""
    return f"{column.title}: {measure.title}{percent} ({len(_ids(cell))} samples)"


def _rows(line: Line, places: Sequence[tuple[Column, Measure]], label: str) -> list[Row]:
    """A system, and below it its controls, those that were not measured too."""
    rows = [_row("result", line.label, line, places, None, label)]
    for control in CONTROLS:
        row = _row("control", control.label, line, places, control, "–")
        found = any(isinstance(value, Figure) for value in row.values)
        rows.append(row if found else _empty("control", control.label, "–", len(places)))
    return rows


def _row(
    kind: str,
    name: str,
    line: Line,
    places: Sequence[tuple[Column, Measure]],
    control: Control | None,
    label: str,
) -> Row:
    figures = tuple(_figure(line, column, measure, control) or NOT_MEASURED for column, measure in places)
    known = line.facts if control is None else None
    told = (known.parameters, known.tokens, known.training) if known else (NONE,) * 3
    failed = str(sum(len(cell.failures) for cell in line.cells.values())) if control is None else NONE
    return Row(kind, name, (label, *figures, *told, failed))


def _empty(kind: str, name: str, label: str, figures: int) -> Row:
    return Row(kind, name, (label, *(NOT_MEASURED,) * figures, *(NONE,) * 4))


def _figure(line: Line, column: Column, measure: Measure, control: Control | None) -> Figure | None:
    cell = line.cells.get(column)
    found = tasks.find(column.task).figures(cell, control) if cell else []
    return next((one for one in found if one.measure == measure), None)


def _difference(line: Line, base: Line, column: Column, measure: Measure) -> Figure | None:
    whole = _figure(line, column, measure, None)
    if whole is None or whole.low is None or column not in base.cells:
        return None
    return difference(measure, line.cells[column], base.cells[column])


def _json(line: Line, base: Line | None, column: Column, measure: Measure) -> dict[str, Any] | None:
    figure = _figure(line, column, measure, None)
    if figure is None:
        return None
    controls = {c.label: f.mean for c in CONTROLS if (f := _figure(line, column, measure, c))}
    more = _difference(line, base, column, measure) if base and line is not base else None
    shown: dict[str, Any] = _numbers(figure) | {"count": figure.count}
    if more:
        shown["difference"] = _numbers(more)
    return shown | {"controls": controls}


def _numbers(figure: Figure) -> dict[str, float | None]:
    return {"mean": finite(figure.mean), "low": finite(figure.low), "high": finite(figure.high)}
