"""A table of the report, as a value: what stands in every row and column, before any of it becomes text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from icl_runner.figures import Figure


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


def without_empty(table: Table) -> Table:
    """The table without the columns that hold nothing but a floor."""
    kept = [
        place
        for place in range(len(table.columns))
        if any(row.values[place] not in ("–", "") for row in table.rows if row.kind != "floor")
    ]
    rows = (replace(row, values=tuple(row.values[place] for place in kept)) for row in table.rows)
    return replace(table, columns=tuple(table.columns[place] for place in kept), rows=tuple(rows))


def counted(counts: Sequence[int]) -> str:
    """How many samples the figures of a row are of: one number, or the least and the most."""
    if not counts:
        return "–"
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}–{high}"
