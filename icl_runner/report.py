"""`spae-icl report`: what logs of runs say, as Markdown, as JSON, and as one self-contained page.

The same logs give the same bytes. Wall times and tokens are of the logs too.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from icl_runner.cells import Cell, collect
from icl_runner.figures import Figure, figures
from icl_runner.gallery import Exhibit, exhibits
from icl_runner.tables import CONTROLS, SPENT, Prices, Row, Table, cost, describe, tables
from spae.errors import InputError
from spae.files import write_file
from spae.template import fill

__all__ = ["as_json", "collect", "markdown", "read_prices", "tables", "write_html"]

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


def read_prices(path: str | Path) -> Prices:
    """Prices from a JSON file: model -> {"input": money per million tokens, "output": ..}.

    Raises InputError: no such file, or another content.
    """
    try:
        prices = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    wanted = 'wanted {"provider/model": {"input": 0.5, "output": 1.5}, ..}, money per million tokens'
    if not isinstance(prices, dict):
        raise InputError(f"{path}: {wanted}")
    for model, price in prices.items():
        if (
            not isinstance(price, dict)
            or set(price) != {"input", "output"}
            or not all(map(_is_price, price.values()))
        ):
            raise InputError(f"{path}: {wanted}; got {json.dumps(price)} for {model}")
    return prices


def _is_price(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def markdown(cells: Sequence[Cell], prices: Prices | None = None, published: bool = False) -> str:
    """All tables as GitHub Markdown. `prices`, `published`: as for `tables`."""
    made = tables(cells, prices, published)
    parts = [_markdown_table(table) for table in made]
    return "\n\n".join([*parts, *_notes(made)]) + "\n"


def _markdown_table(table: Table) -> str:
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


def _notes(made: Sequence[Table]) -> list[str]:
    shown = [
        value for table in made for row in table.rows for value in row.values if isinstance(value, Figure)
    ]
    notes = [NOTES] if any(value.interval() for value in shown) else []
    return notes + ([MARK_NOTE] if any(value.not_beaten for value in shown) else [])


def as_json(cells: Sequence[Cell], prices: Prices | None = None) -> dict[str, Any]:
    """The cells with their figures, ready for `json.dumps`: means and bounds unscaled, None for what is not finite.

    All that depends on the clock is under "took".
    """
    return {"format": "spae-icl-report", "cells": [_json_cell(cell, prices) for cell in cells]}


def _json_cell(cell: Cell, prices: Prices | None) -> dict[str, Any]:
    found = {suffix: figures(cell, suffix) for suffix in ("", *CONTROLS)}
    return {
        "task": cell.task,
        "model": cell.model,
        "setting": dict(cell.setting),
        "bundle": {"name": cell.bundle, "sha256": cell.bundle_sha256},
        "data": {"name": cell.data, "fingerprint": cell.data_fingerprint},
        "seed": cell.seed,
        "version": cell.version,
        "figures": {
            one.measure.key + suffix: {
                "mean": _finite(one.mean),
                "low": _finite(one.low),
                "high": _finite(one.high),
                "count": one.count,
            }
            | ({"not_beaten": one.not_beaten} if suffix else {})
            for suffix, of_suffix in found.items()
            for one in of_suffix
        },
        "scored": len(cell.samples),
        "failures": [asdict(failure) for failure in cell.failures],
        "missing": cell.missing,
        "tokens": {model: {"input": used[0], "output": used[1]} for model, used in cell.usage.items()},
        "cost": cost(cell, prices),
        "took": {"seconds": cell.seconds},
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def write_html(
    cells: Sequence[Cell], path: str | Path, prices: Prices | None = None, published: bool = False
) -> None:
    """Write the page: all tables, and pictures of generations beside their targets.

    The words of generations are decoded with the bundle named in their log. `prices`, `published`: as for
    `tables`. Raises InputError if the page cannot be written, BundleError without that bundle.
    """
    made = tables(cells, prices, published)
    results = [table.title for table in made].index(SPENT)
    galleries = [(cell, exhibits(cell, PICTURES)) for cell in cells if cell.task in ("generate", "transform")]
    filled = {
        "SUMMARY": escape(_summary(cells)),
        "RESULTS": "\n".join(map(_html_table, made[:results])),
        "BOOKS": "\n".join(map(_html_table, made[results:])),
        "GALLERIES": "\n".join(_html_gallery(cell, shown) for cell, shown in galleries if shown),
        "NOTES": "".join(f"<p>{escape(note)}</p>" for note in _notes(made)),
    }
    write_file(path, fill("icl_runner", "report.html", filled).encode())


def _summary(cells: Sequence[Cell]) -> str:
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
{about}<div class="scroll"><table>
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


def _html_gallery(cell: Cell, shown: Sequence[Exhibit]) -> str:
    title = f"{describe(cell)}, {cell.model}"
    count = f"The first {len(shown)} of {len(cell.samples)}, by their ids; none was picked."
    return f"""<section>
<h2>{escape(title)}</h2>
<p>{count}</p>
<div class="gallery">
{"".join(map(html_exhibit, shown))}</div>
</section>"""


def html_exhibit(exhibit: Exhibit) -> str:
    """One generation as HTML: its pictures side by side, its figures, and its words folded away."""
    pictures = "".join(
        f'<figure><img src="data:image/png;base64,{escape(png)}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, png in exhibit.pictures
    )
    facts = [f"{key} {value:.3g}" for key, value in exhibit.figures.items()]
    facts += [f"{count} {kind}" for kind, count in sorted(exhibit.repairs.items())]
    count = len(exhibit.words.split())
    return (
        f'<article><h3>{escape(exhibit.condition)}</h3><div class="pictures">{pictures}</div>'
        f"<p>{escape(' · '.join(facts))}</p><details><summary>{count} words</summary>"
        f"<p>{escape(exhibit.words)}</p></details></article>\n"
    )
