"""What a cell is called in tables and on the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from icl_runner import tasks
from icl_runner.cells import CONNECTOR
from icl_runner.results import CellResult
from spae.errors import InputError

WORD_COUNT = "tokens_per_image"
# What comes first in a description, in this order; the rest follows by name.
FIRST = ("condition", "context", "shots", "ways", "names")


def is_ceiling(cell: CellResult) -> bool:
    """Whether the cell is no result but what could be had at best."""
    return tasks.find(cell.task).is_ceiling(cell.setting)


def words(cell: CellResult) -> str:
    """How many words of an image the model saw, or wrote; or how many soft tokens."""
    if is_ceiling(cell):
        return "names as words"
    count = cell.setting.get(WORD_COUNT)
    if cell.model.startswith(CONNECTOR):
        return f"{count} soft tokens"
    return f"{count} word{'' if count == 1 else 's'}" if count is not None else "words"


def describe(cell: CellResult) -> str:
    """The setting in a few words, such as "2-way 1-shot, names real"."""
    return describe_setting(cell.task, cell.setting)


def describe_setting(task: str, setting: Mapping[str, Any]) -> str:
    """Of a task, in a few words."""
    lead, told = tasks.find(task).describe(setting)
    left = {key: value for key, value in setting.items() if key not in (*told, "layers", WORD_COUNT)}
    keys = sorted(left, key=lambda key: (FIRST.index(key) if key in FIRST else len(FIRST), key))
    return ", ".join(
        [lead, *(f"{key.replace('_', ' ')} {left[key]}" for key in keys if left[key] is not None)]
    )


def facts(cell: CellResult) -> dict[str, str]:
    """Where a cell came from: what may tell it from others of the same setting."""
    return {
        "bundle": cell.bundle[-12:],
        "sha256": cell.bundle_sha256[:8],
        "data": cell.data_fingerprint[:8],
        "examples": cell.examples_sha256[:8],
        "seed": str(cell.seed),
        "version": cell.version,
        "asked at": cell.provider,
    }


def told_twice(cell: CellResult) -> InputError:
    """That another cell of the logs is called as this one, and would have its place in a table."""
    return InputError(
        f"the logs hold {cell.task} ({describe(cell)}) by {cell.model} twice, on {cell.data} and on data that is "
        "called otherwise: leave one of the two out"
    )


def varying(every: Sequence[Mapping[str, str]]) -> list[str]:
    """The facts that are not the same in all cells, and so must be in the labels."""
    keys = dict.fromkeys(key for one in every for key in one)
    # What only some have tells them from the others, too.
    return [key for key in keys if len({one.get(key, "") for one in every}) > 1]


def label(cell: CellResult, what: str, of_cell: Mapping[str, str], shown: Sequence[str]) -> str:
    """The model, what it saw, and of the cell's facts those to be shown."""
    return ", ".join([cell.model, what, *(f"{key} {of_cell[key]}" for key in shown if of_cell.get(key))])
