"""`spae-icl report`: what logs of runs say, as Markdown, as JSON, and as one self-contained page.

The same logs give the same bytes. Wall times and tokens are of the logs too.
"""

from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from icl_runner import tasks
from icl_runner.figures import Figure, finite
from icl_runner.pictures.encoding import png_tag
from icl_runner.prices import Prices, cost
from icl_runner.report import side_by_side
from icl_runner.report.chart import chart
from icl_runner.report.gallery import Answered, Exhibit, answered, exhibits, rule_of
from icl_runner.report.labels import describe, is_ceiling
from icl_runner.report.table import Row, Table
from icl_runner.report.tables import SPENT, tables
from icl_runner.results import CellResult
from spae.files import write_file
from spae.pages import fill

MARK = "†"
NOTES = (
    "Beside or below a mean its 95 % interval over samples: Wilson's for shares (right or wrong), else "
    "mean ± 1.96 s / √n. "
    "An average over columns has none: the columns are of the same episodes."
)
MARK_NOTE = (
    f"{MARK} the result above is not better than this control: the 95 % interval of their difference, sample by "
    "sample, reaches zero or lies beyond."
)
PICTURES = 12  # of every cell of generations
ANSWERS = 8  # of every other cell, half of them right
FEW = 21  # words of an image that are shown at once; more are folded away


def markdown(cells: Sequence[CellResult], prices: Prices | None = None, published: bool = False) -> str:
    """All tables as GitHub Markdown.

    Args:
        prices, published: as for `tables`.
    """
    made = tables(cells, prices, published)
    parts = [markdown_table(table) for table in made]
    return "\n\n".join([*parts, *notes(made)]) + "\n"


def markdown_table(table: Table) -> str:
    """One table, below its title."""
    lines = [("", *table.columns), ("---", *["---"] * len(table.columns))]
    for row in table.rows:
        label = f"**{row.label}**" if row.kind == "result" else row.label
        lines.append((label, *map(_markdown_value, row.values)))
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return "\n\n".join(part for part in (f"## {table.title}", table.about, body) if part)


def _markdown_value(value: Figure | str) -> str:
    if isinstance(value, str):
        return value.replace("\n", " ")
    interval = f" [{value.interval()}]" if value.interval() else ""
    return value.text() + (MARK if value.not_beaten else "") + interval


def notes(made: Sequence[Table]) -> list[str]:
    """What stands below tables, as far as they need it."""
    shown = [
        value for table in made for row in table.rows for value in row.values if isinstance(value, Figure)
    ]
    found = [NOTES] if any(value.interval() for value in shown) else []
    return found + ([MARK_NOTE] if any(value.not_beaten for value in shown) else [])


def as_json(cells: Sequence[CellResult], prices: Prices | None = None) -> dict[str, Any]:
    """The cells with their figures, ready for `json.dumps`: means and bounds unscaled, None for what is not finite.

    All that depends on the clock is under "took".
    """
    return {
        "format": "spae-icl-report",
        "currency": prices.currency if prices else "",
        "cells": [_json_cell(cell, prices) for cell in cells],
        "side_by_side": side_by_side.as_json(cells),
    }


def _json_cell(cell: CellResult, prices: Prices | None) -> dict[str, Any]:
    task = tasks.find(cell.task)
    found = {control: task.figures(cell, control) for control in (None, *task.controls)}
    return {
        "task": cell.task,
        "model": cell.model,
        "setting": dict(cell.setting),
        "bundle": {"name": cell.bundle, "sha256": cell.bundle_sha256},
        "data": {"name": cell.data, "fingerprint": cell.data_fingerprint},
        "seed": cell.seed,
        "version": cell.version,
        "figures": {
            one.measure.key + (control.suffix if control else ""): {
                "mean": finite(one.mean),
                "low": finite(one.low),
                "high": finite(one.high),
                "count": one.count,
            }
            | ({"not_beaten": one.not_beaten} if control else {})
            for control, of_row in found.items()
            for one in of_row
        },
        "scored": len(cell.samples),
        "failures": [asdict(failure) for failure in cell.failures],
        "missing": cell.missing,
        "tokens": {model: {"input": used[0], "output": used[1]} for model, used in cell.usage.items()},
        "cost": cost(cell, prices),
        "took": {"seconds": cell.seconds},
    }


def write_html(
    cells: Sequence[CellResult], path: str | Path, prices: Prices | None = None, published: bool = False
) -> None:
    """Write the page: all tables with charts of their shares, answers beside the photographs they are about, and
    pictures of generations beside their targets.

    The words of generations are decoded with the bundle named in their log.

    Args:
        prices, published: as for `tables`.

    Raises:
        InputError: the page cannot be written.
        BundleError: that bundle is not there.
    """
    made = tables(cells, prices, published)
    results = [table.title for table in made].index(SPENT)
    told = [cell for cell in cells if not tasks.find(cell.task).draws and not is_ceiling(cell)]
    galleries = list(map(_html_answers, told))
    drawn = [(cell, exhibits(cell, PICTURES)) for cell in cells if tasks.find(cell.task).draws]
    galleries += [_html_gallery(cell, shown) for cell, shown in drawn if shown]
    filled = {
        "SUMMARY": escape(_summary(cells)),
        "RESULTS": "\n".join(map(_html_table, made[:results])),
        "BOOKS": "\n".join(map(_html_table, made[results:])),
        "GALLERIES": "\n".join(filter(None, galleries)),
        "NOTES": "".join(f"<p>{escape(note)}</p>" for note in notes(made)),
    }
    write_file(path, fill("icl_runner", "report.html", filled).encode())


def _summary(cells: Sequence[CellResult]) -> str:
    models = sorted({cell.model for cell in cells})
    scored = sum(len(cell.samples) for cell in cells)
    open_ends = sum(cell.missing + len(cell.failures) for cell in cells)
    settings = f"{len(cells)} setting{'' if len(cells) == 1 else 's'}"
    text = f"{scored:,} samples in {settings}, answered by {', '.join(models)}."
    return text + (f" {open_ends:,} more have no score." if open_ends else " None is missing.")


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    about = f"<p>{escape(table.about)}</p>" if table.about else ""
    return f"""<section>
<h2>{escape(table.title)}</h2>
{about}{chart(table)}<div class="scroll"><table>
<thead><tr><td></td>{head}</tr></thead>
<tbody>
{"".join(map(_html_row, table.rows))}</tbody>
</table></div>
</section>"""


def _html_row(row: Row) -> str:
    values = "".join(f"<td>{_html_value(value)}</td>" for value in row.values)
    return f'<tr class="{row.kind}"><th scope="row">{escape(row.label)}</th>{values}</tr>\n'


def _html_value(value: Figure | str) -> str:
    if isinstance(value, str):
        return escape(value)
    mark = f"<sup>{MARK}</sup>" if value.not_beaten else ""
    interval = f"<small>{escape(value.interval())}</small>" if value.interval() else ""
    return escape(value.text()) + mark + interval


def _html_gallery(cell: CellResult, shown: Sequence[Exhibit]) -> str:
    title = f"{describe(cell)}, {cell.model}"
    count = f"The first {len(shown)} of {len(cell.samples)}, by their ids; none was picked."
    return f"""<section>
<h2>{escape(title)}</h2>
<p>{count}</p>
<div class="gallery">
{"".join(map(_html_exhibit, shown))}</div>
</section>"""


def _html_answers(cell: CellResult) -> str:
    shown = answered(cell, ANSWERS)
    if not shown:
        return ""
    rule = rule_of(cell)
    titles = {measure.key: measure.title for measure in tasks.find(cell.task).measures}
    which = f"The first {len(shown)}"
    if rule is not None:
        which = f"The first that were right and the first that were wrong ({titles[rule]})"
    return f"""<section>
<h2>{escape(f"Answers: {describe(cell)}, {cell.model}")}</h2>
<p>{which} of {len(cell.samples)}, by their ids; none was picked.</p>
<div class="gallery answers">
{"".join(map(_html_answered, shown))}</div>
</section>"""


def _html_answered(one: Answered) -> str:
    # Whoever wrote the log, nothing but a picture that is in it is shown.
    inside = one.photograph.startswith("data:image/")
    picture = f'<img src="{escape(one.photograph)}" alt="">' if inside else ""
    kind, sign = {True: ("right", "✓ "), False: ("wrong", "✗ "), None: ("", "")}[one.right]
    question = f"<p>{escape(one.question)}</p>" if one.question else ""
    choices = f", one of {escape(', '.join(one.choices))}" if one.choices else ""
    words = f"<p>{escape(one.words)}</p>"
    if len(one.words.split()) > FEW:
        words = f"<details><summary>{_counted(one.words)}</summary>{words}</details>"
    return (
        f'<article>{picture}<div>{question}<p class="answer {kind}">{sign}{escape(one.answer or "(nothing)")}</p>'
        f"<p>It is: {escape(one.truth)}{choices}</p>{words}</div></article>\n"
    )


def _counted(words: str) -> str:
    count = len(words.split())
    return f"{count} word{'' if count == 1 else 's'}"


def _html_exhibit(exhibit: Exhibit) -> str:
    """One generation as HTML: its pictures side by side, its figures, and its words folded away."""
    pictures = "".join(
        f"<figure>{png_tag(png, caption)}<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, png in exhibit.pictures
    )
    facts = [f"{key} {value:.3g}" for key, value in exhibit.figures.items()]
    facts += [f"{count} {kind}" for kind, count in sorted(exhibit.repairs.items())]
    return (
        f'<article><h3>{escape(exhibit.condition)}</h3><div class="pictures">{pictures}</div>'
        f"<p>{escape(' · '.join(facts))}</p><details><summary>{_counted(exhibit.words)}</summary>"
        f"<p>{escape(exhibit.words)}</p></details></article>\n"
    )
