"""A chart of a table's shares: each with its interval, its controls and its floor, as HTML that any width suits."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape

from icl_runner.figures import Figure
from icl_runner.report.table import Table

_LEGEND = (
    ("result", "the result, with its 95 % interval"),
    ("ceiling", "the ceiling"),
    ("control", "a control"),
    ("floor", "the floor"),
)


@dataclass
class Line:
    """One result or ceiling (`kind`) of a table, the controls that stand below it, and its floor in percent."""

    kind: str
    label: str
    figure: Figure
    controls: list[Figure] = field(default_factory=list)
    floor: float | None = None


def lines(table: Table) -> list[Line]:
    """The lines of all figures that are shares; [] for a table without."""
    places = [
        place
        for place in range(len(table.columns))
        if any(_is_share(row.values[place]) for row in table.rows if row.kind == "result")
    ]
    several_rows = sum(row.kind in ("result", "ceiling") for row in table.rows) > 1
    made = []
    for place in places:
        latest: Line | None = None
        of_place: list[Line] = []
        for row in table.rows:
            value = row.values[place]
            if row.kind == "result":
                latest = None  # the controls below are not those of the result before
            if row.kind == "floor" and isinstance(value, str):
                for line in of_place:
                    line.floor = _number(value)
            if not isinstance(value, Figure):
                continue
            if row.kind in ("result", "ceiling"):
                names = [table.columns[place]] if len(places) > 1 else []
                names += [row.label] if several_rows or not names else []
                line = Line(row.kind, ", ".join(names), value)
                of_place.append(line)
                latest = line if row.kind == "result" else latest
            elif row.kind == "control" and latest is not None:
                latest.controls.append(value)
        made += of_place
    return made


def chart(table: Table) -> str:
    """The chart as HTML; "" for a table without shares. Widths are in percent: it fits a phone as it fits a desk."""
    drawn = lines(table)
    if not drawn:
        return ""
    shown = {line.kind for line in drawn} | {"control" for line in drawn if line.controls}
    shown |= {"floor" for line in drawn if line.floor is not None}
    legend = "".join(
        f'<li><svg width="28" height="14" aria-hidden="true">{_key(kind)}</svg>{text}</li>'
        for kind, text in _LEGEND
        if kind in shown
    )
    rows = "".join(
        f"<dt>{escape(line.label)}</dt><dd>{_svg(line)}<b>{escape(line.figure.text())}</b></dd>\n"
        for line in drawn
    )
    return f'<div class="chart"><ul>{legend}</ul>\n<dl>{rows}<dt></dt><dd>{_axis()}<b>%</b></dd></dl></div>\n'


def _svg(line: Line) -> str:
    marks = "".join(_grid())
    if line.floor is not None:
        marks += f'<line class="floor" x1="{line.floor:.2f}%" x2="{line.floor:.2f}%" y1="0" y2="34"/>'
    for control in line.controls:
        marks += _mark("control", control, 24)
    marks += _mark(line.kind, line.figure, 11)
    told = f"{line.figure.text()} %, 95 % interval {line.figure.interval()}"
    return f'<svg height="34" role="img" aria-label="{escape(told)}">{marks}</svg>'


def _grid() -> Iterator[str]:
    for share in (0, 25, 50, 75, 100):
        yield f'<line class="grid" x1="{share}%" x2="{share}%" y1="0" y2="34"/>'


def _mark(kind: str, figure: Figure, y: int) -> str:
    scale = figure.measure.scale
    bar = ""
    if figure.low is not None and figure.high is not None:
        low, high = (min(100.0, max(0.0, bound * scale)) for bound in (figure.low, figure.high))
        bar = f'<line class="{kind}" x1="{low:.2f}%" x2="{high:.2f}%" y1="{y}" y2="{y}"/>'
    return f'{bar}<circle class="{kind}" cx="{figure.mean * scale:.2f}%" cy="{y}" r="4.5"/>'


def _key(kind: str) -> str:
    if kind == "floor":
        return '<line class="floor" x1="14" x2="14" y1="0" y2="14"/>'
    return (
        f'<line class="{kind}" x1="2" x2="26" y1="7" y2="7"/><circle class="{kind}" cx="14" cy="7" r="4.5"/>'
    )


def _axis() -> str:
    anchors = {0: "start", 100: "end"}
    texts = "".join(
        f'<text x="{share}%" y="13" text-anchor="{anchors.get(share, "middle")}">{share}</text>'
        for share in (0, 25, 50, 75, 100)
    )
    return f'<svg class="axis" height="18" aria-hidden="true">{texts}</svg>'


def _is_share(value: Figure | str) -> bool:
    return isinstance(value, Figure) and value.measure.scale == 100


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "–": no floor here
        return None
