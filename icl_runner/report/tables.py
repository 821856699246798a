"""The report's tables, as values: what stands in every row and column, before any of it becomes text."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import groupby
from math import fsum
from typing import Any

from icl_runner.prices import Prices, cost
from icl_runner.report.figures import DIGIT, MEASURES, OPEN, Figure, Measure, figure, figures
from icl_runner.report.results import Cell

# (task induction, inner shots, repeats): the columns of the paper's table, then the average over them.
COLUMNS = ((False, 1, 0), (True, 1, 0), (True, 3, 0), (True, 5, 0), (True, 1, 1), (True, 1, 3), (True, 1, 5))
# How the controls of a key are called in the logs, and here.
CONTROLS = {
    "_other": "control: words of another image",
    "_oracle": "the target's own words, decoded",
    "_nothing": "control: the input left as it is",
    "_nothing_words": "control: the input's own words, decoded",
    "_copy": "control: an image of the context",
    "_random": "control: random words",
}
# Of classify, where the data has no class outside of an episode; who reads these words is rarely right.
WITHIN = "control: words of an image of another class of the episode"
TITLES = {
    "caption": "Captions",
    "vqa": "Questions about images",
    "interpret": "What the words alone say",
    "generate": "Images from text",
    "transform": "Images from images",
}
ABOUT = {
    "open": "The model writes freely; right is exactly the name, its end included. The floor is 0; a model that "
    "writes one of the names without looking gets 1/ways, which its control shows.",
    "constrained": "Decoding is restricted to the names of the episode. The floor is 1/ways.",
    "instructed": "The model is told to answer with one of the names; nothing holds it to them. "
    "The floor is 1/ways for one that does as it is told.",
}
DRAWN = ("generate", "transform")  # tasks whose answers are words of pictures
SPENT = "What it took"  # the table behind the results
WORD_COUNT = "tokens_per_image"
# What comes first in a description, in this order; the rest follows by name.
FIRST = ("condition", "context", "shots", "ways", "names")


@dataclass(frozen=True)
class Row:
    """`kind`: "result", "control", "ceiling", "floor", "published", or "entry" in tables of other things than results;
    as many values as the table has columns."""

    kind: str
    label: str
    values: tuple[Figure | str, ...]


@dataclass(frozen=True)
class Table:
    title: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def tables(cells: Sequence[Cell], prices: Prices | None = None, published: bool = False) -> list[Table]:
    """All tables of `cells`, as `collect` orders them: results by task, then what was spent, failures, provenance.

    `prices`: as `prices.read_prices` gives them; `published`: set the reported figures of others beside ours.
    """
    made = _classification([cell for cell in cells if cell.task == "classify"], published)
    for task, of_task in groupby(cells, lambda cell: cell.task):
        scored = [cell for cell in of_task if cell.samples]
        if task != "classify" and scored:
            made.append(_plain(task, scored))
    drawn = [cell for cell in cells if cell.task in DRAWN and cell.samples]
    if drawn:
        made.append(_repairs(drawn))
    made.append(_spent(cells, prices))
    if any(cell.failures for cell in cells):
        made.append(_failures(cells))
    made.append(_provenance(cells))
    return made


def _classification(cells: Sequence[Cell], published: bool) -> list[Table]:
    """One table for every number of ways, kind of names, data set and scoring rule."""

    def place(cell: Cell) -> tuple[Any, ...]:
        return cell.setting["ways"], cell.setting.get("names", "real"), cell.data

    made = []
    for (ways, names, data), group in groupby(sorted(cells, key=place), place):
        together = list(group)
        for measure in MEASURES["classify"]:
            if any(figure(cell, measure) for cell in together):
                made.append(_classify(ways, names, data, measure, together, published))
    return made


def _classify(
    ways: int, names: str, data: str, measure: Measure, cells: Sequence[Cell], published: bool
) -> Table:
    others = sorted({_column(cell) for cell in cells} - set(COLUMNS))
    columns = (*COLUMNS, *others)
    rows: list[Row] = []
    varying = _varying(cells)
    labels = {id(cell): _label(cell, varying) for cell in cells}

    def row(kind: str, label: str, suffix: str, of_row: Mapping[tuple, Cell]) -> Row:
        found = [figure(of_row[c], measure, suffix) if c in of_row else None for c in columns]
        of_paper = [one for one in found[: len(COLUMNS)] if one]
        whole = len(of_paper) == len(COLUMNS)
        average = fsum(one.mean for one in of_paper) / len(COLUMNS)
        shown = [one or "–" for one in found]
        counts = [one.count for one in found if one]
        shown.insert(len(COLUMNS), f"{average * measure.scale:.1f}" if whole else "–")
        return Row(kind, label, (*shown, _range(counts)))

    by_label = sorted(
        cells,
        key=lambda cell: (is_ceiling(cell), cell.model, cell.setting.get(WORD_COUNT) or 0, labels[id(cell)]),
    )
    for label, group in groupby(by_label, lambda cell: labels[id(cell)]):
        of_row = {_column(cell): cell for cell in group}
        if is_ceiling(next(iter(of_row.values()))):
            rows.append(row("ceiling", label, "", of_row))
            continue
        rows.append(row("result", label, "", of_row))
        within = any("control" in cell.setting for cell in of_row.values())
        control = row("control", WITHIN if within else CONTROLS["_other"], "_other", of_row)
        if any(isinstance(value, Figure) for value in control.values):
            rows.append(control)
    floor = "0.0" if measure is OPEN else f"{100 / ways:.1f}"
    rows.append(Row("floor", "floor", (floor,) * (len(columns) + 1) + ("",)))
    about = ABOUT[measure.key]
    if published and names == "real":
        rows += _published(ways, measure, len(others))
        about += " Reported rows are of others' work on Real-Name mini-ImageNet, and were not measured here."
    heads = [_head(column) for column in columns]
    heads.insert(len(COLUMNS), "average")
    title = f"{ways}-way classification, {names} names, {data}: {measure.title}, %"
    return _without_empty(Table(title, about, (*heads, "episodes"), tuple(rows)))


def _without_empty(table: Table) -> Table:
    """The table without the columns that hold nothing but a floor."""
    kept = [
        place
        for place in range(len(table.columns))
        if any(row.values[place] not in ("–", "") for row in table.rows if row.kind != "floor")
    ]
    rows = (replace(row, values=tuple(row.values[place] for place in kept)) for row in table.rows)
    return replace(table, columns=tuple(table.columns[place] for place in kept), rows=tuple(rows))


def _column(cell: Cell) -> tuple[bool, int, int]:
    setting = cell.setting
    return bool(setting.get("induction", True)), int(setting["shots"]), int(setting.get("repeats", 0))


def _head(column: tuple[bool, int, int]) -> str:
    induction, shots, repeats = column
    head = f"{shots}-shot"
    if not induction:
        head = f"no induction, {head}"
    return f"{head}, {repeats} repeat{'s' if repeats > 1 else ''}" if repeats else head


def is_ceiling(cell: Cell) -> bool:
    return cell.setting.get("words") == "class-name"


def _facts(cell: Cell) -> dict[str, str]:
    """What tells a cell of a classification table from others, beside its column."""
    facts = {"bundle": cell.bundle[-12:], "sha256": cell.bundle_sha256[:8]}
    facts |= {"data": cell.data_fingerprint[:8], "seed": str(cell.seed), "version": cell.version}
    shown = {"ways", "names", "shots", "induction", "repeats", "words", "layers", "control", WORD_COUNT}
    return facts | {key: str(value) for key, value in sorted(cell.setting.items()) if key not in shown}


def _varying(cells: Sequence[Cell]) -> list[str]:
    """The facts that are not the same in all cells, and so must be in the labels."""
    seen: dict[str, set[str]] = {}
    for cell in cells:
        for key, value in _facts(cell).items():
            seen.setdefault(key, set()).add(value)
    return [key for key, values in seen.items() if len(values) > 1]


def _label(cell: Cell, varying: Sequence[str]) -> str:
    what = "ceiling: the class's name as the words" if is_ceiling(cell) else _words(cell)
    facts = _facts(cell)
    return ", ".join([cell.model, what, *(f"{key} {facts[key]}" for key in varying if facts.get(key))])


def _words(cell: Cell) -> str:
    if is_ceiling(cell):
        return "names as words"
    count = cell.setting.get(WORD_COUNT)
    return f"{count} word{'' if count == 1 else 's'}" if count is not None else "words"


def _published(ways: int, measure: Measure, others: int) -> list[Row]:
    reported = json.loads((files("icl_runner") / "published.json").read_text("utf-8"))["rows"]

    def text(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f}"

    return [
        Row(
            "published",
            f"{one['method']}, {one['tokens']} tokens ({one['status']}: {one['source']})",
            (*map(text, one["values"]), text(one["average"]), *["–"] * others, ""),
        )
        for one in reported
        if one["ways"] == ways and one["rule"] == measure.key
    ]


def _plain(task: str, cells: Sequence[Cell]) -> Table:
    """One row for each cell and for each of its controls; the measures are the columns."""
    rows: list[Row] = []
    found = [_results(cell) for cell in cells]
    measures: list[Measure] = []
    for of_cell in found:
        for of_row in of_cell.values():
            measures += [one.measure for one in of_row if one.measure not in measures]
    # What the settings say is in the description already.
    varying = [key for key in _varying(cells) if not any(key in cell.setting for cell in cells)]
    for cell, of_cell in zip(cells, found, strict=True):
        for suffix, of_row in of_cell.items():
            by_measure = {one.measure: one for one in of_row}
            counts = _range([one.count for one in of_row])
            kind = "ceiling" if suffix == "_oracle" else "control" if suffix else "result"
            label = CONTROLS[suffix] if suffix else f"{describe(cell)}, {_label(cell, varying)}"
            rows.append(Row(kind, label, (*(by_measure.get(m, "–") for m in measures), counts)))
    if DIGIT in measures:
        floors = ["10.0" if measure is DIGIT else "–" for measure in measures]
        rows.append(Row("floor", "floor: one digit in ten", (*floors, "")))
    return Table(TITLES[task], "", (*(measure.title for measure in measures), "examples"), tuple(rows))


def _repairs(cells: Sequence[Cell]) -> Table:
    """How much of what the models wrote had to be mended before it was a picture; see `spae.text.Repair`."""
    counts: list[Counter[str]] = [Counter() for _ in cells]
    for count, cell in zip(counts, cells, strict=True):
        for sample in cell.samples:
            count.update(sample.metadata.get("repairs") or {})
    kinds = sorted({kind for count in counts for kind in count})
    rows = [
        Row(
            "entry",
            f"{describe(cell)}, {_words(cell)}",
            (str(len(cell.samples)), *(str(count[k]) for k in kinds)),
        )
        for count, cell in zip(counts, cells, strict=True)
    ]
    about = (
        "Of all pictures together. A missing or unknown word was filled in by us." if kinds else "None was."
    )
    return Table("Words that were repaired", about, ("pictures", *kinds), tuple(rows))


def _results(cell: Cell) -> dict[str, list[Figure]]:
    """Suffix of the control ("" for the result itself) -> its figures; only what was measured."""
    return {suffix: found for suffix in ("", *CONTROLS) if (found := figures(cell, suffix))}


def describe(cell: Cell) -> str:
    """The setting in a few words, such as "2-way 1-shot, names real"."""
    setting = dict(cell.setting)
    parts = [cell.task]
    if cell.task == "classify":
        parts = [f"{setting.pop('ways')}-way {_head(_column(cell))}"]
        for key in ("shots", "induction", "repeats"):
            setting.pop(key, None)
    for key in ("layers", WORD_COUNT):
        setting.pop(key, None)
    if cell.task in setting:  # which transform
        parts = [f"{cell.task} {setting.pop(cell.task)}"]
    if setting.get("words") == "image":  # as ever
        del setting["words"]
    keys = sorted(setting, key=lambda key: (FIRST.index(key) if key in FIRST else len(FIRST), key))
    told = [f"{key.replace('_', ' ')} {setting[key]}" for key in keys if setting[key] is not None]
    return ", ".join([*parts, *told])


def _spent(cells: Sequence[Cell], prices: Prices | None) -> Table:
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
        label = f"{describe(cell)}, {cell.model}, {_words(cell)}{state}"
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


def tokens(cell: Cell) -> tuple[int, int]:
    """Of all models together: read, written."""
    return sum(used[0] for used in cell.usage.values()), sum(used[1] for used in cell.usage.values())


def _money(value: float | None) -> str:
    return "no price" if value is None else f"{value:.4f}" if value < 1 else f"{value:.2f}"


def _failures(cells: Sequence[Cell]) -> Table:
    rows = []
    for cell in cells:
        by_reason: dict[str, list[str]] = {}
        for failure in cell.failures:
            by_reason.setdefault(failure.reason, []).append(failure.id)
        for reason, ids in sorted(by_reason.items()):
            rows.append(Row("entry", describe(cell), (reason, str(len(ids)), ", ".join(ids))))
    return Table("Samples without a score", "", ("reason", "samples", "which"), tuple(rows))


def _provenance(cells: Sequence[Cell]) -> Table:
    seen = sorted(
        {(c.bundle, c.bundle_sha256, c.data, c.data_fingerprint, str(c.seed), c.version) for c in cells}
    )
    rows = [
        Row("entry", bundle, (sha256[:12], data, print_[:12], seed, version))
        for bundle, sha256, data, print_, seed, version in seen
    ]
    columns = ("sha256 of the bundle", "data", "its fingerprint", "seed", "version of spae")
    return Table("What it was measured with", "", columns, tuple(rows))


def _range(counts: Sequence[int]) -> str:
    if not counts:
        return "–"
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}–{high}"
