"""What a task is: its options, what it asks, how answers are scored, and how the report shows them.

A task is one file of `icl_runner/tasks/`, named as the task is, with one class that `task` marks. Its fields are the
options of `spae-icl run NAME`, its methods make the cells, its attributes title the tables. No other file names it.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from icl_runner.cells import Cell
from icl_runner.figures import Control, Figure, Measure, figure
from icl_runner.results import CellResult
from icl_runner.settings import Settings

# inspect-ai takes three seconds to import, and so does JAX.
if TYPE_CHECKING:
    import inspect_ai

    from icl_runner.data.examples import ExampleSet
    from icl_runner.data.images import Images

REGISTERED: dict[str, type["Task"]] = {}


def task(kind: type["Task"]) -> type["Task"]:
    """Decorates the class of a task, whose name is that of its file."""
    kind.name = kind.__module__.rpartition(".")[2]
    REGISTERED[kind.name] = kind
    return kind


class ColumnTable(ABC):
    """How cells stand side by side: a table for each group of them and each measure, in place of a row for each cell.

    Attributes:
        always: the columns that come first, in this order, with their average where all are there.
        about: key of a measure -> what its table says of it.
        about_published: what a table says of `published` rows.
        ceiling: label of the rows of ceilings.
        told: keys of settings that titles and columns tell, or that no label needs.
        unit: what samples are called.
    """

    always: ClassVar[tuple[Any, ...]]
    about: ClassVar[Mapping[str, str]]
    about_published: ClassVar[str] = ""
    ceiling: ClassVar[str]
    told: ClassVar[Collection[str]]
    unit: ClassVar[str]

    @abstractmethod
    def column(self, setting: Mapping[str, Any]) -> Any:
        """The column of a cell, to be sorted and looked up by."""

    @abstractmethod
    def head(self, column: Any) -> str:
        """What stands above a column."""

    @abstractmethod
    def group(self, setting: Mapping[str, Any]) -> Any:
        """What a cell's table is of, besides the data; tables are sorted by it."""

    @abstractmethod
    def title(self, group: Any) -> str:
        """Of the tables of a group, before the data and the measure."""

    @abstractmethod
    def floor(self, group: Any, measure: Measure) -> str:
        """What blind choice gets, as it is shown."""

    def published(
        self, group: Any, measure: Measure
    ) -> list[tuple[str, Sequence[float | None], float | None]]:
        """What others reported: label, the values of the columns that are always there, their average."""
        return []


@dataclass(frozen=True, kw_only=True)
class Task(Settings, ABC):
    """Base of all tasks; `icl_runner.texts.task` and `icl_runner.pictures.task` hold what most of them share.

    Attributes:
        title: of its table.
        measures: the columns of its table, or its tables (of a `ColumnTable`).
        controls: the rows below each result.
        rules: what decides whether an answer was right: the first of these keys that was measured.
        draws: whether answers are pictures in words.
        table: how cells stand side by side; None for a row each.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    measures: ClassVar[tuple[Measure, ...]]
    controls: ClassVar[tuple[Control, ...]]
    rules: ClassVar[tuple[str, ...]] = ()
    draws: ClassVar[bool] = False
    table: ClassVar[ColumnTable | None] = None

    @abstractmethod
    def examples(self) -> "ExampleSet":
        """The data.

        Raises:
            InputError: there is none, or it is not understood.
        """

    @abstractmethod
    def cells(self, images: "Images") -> Sequence[Cell]:
        """What is asked.

        Raises:
            InputError: options that do not fit each other or the data.
        """

    def notes(self) -> list[str]:
        """What whoever starts it should know beforehand, a line each."""
        return []

    @abstractmethod
    def build(self, cell: Any, metadata: Mapping[str, Any]) -> "inspect_ai.Task":
        """The task of inspect-ai that runs one of these cells, with this metadata in its log."""

    @classmethod
    def figures(cls, result: CellResult, control: Control | None = None) -> list[Figure]:
        """Of all that is measured, what the samples have; or what a control of them has."""
        found = [figure(result, measure, control) for measure in cls.measures]
        return [one for one in found if one]

    @classmethod
    def scored_again(cls, metadata: Mapping[str, Any]) -> dict[str, float] | None:
        """The values of a sample from the metadata that its log has of it; None where they do not suffice."""
        return None

    @classmethod
    def describe(cls, setting: Mapping[str, Any]) -> tuple[str, Collection[str]]:
        """A setting in a few words, and the keys that these tell: the report adds the rest."""
        return cls.name, ()

    @classmethod
    def is_ceiling(cls, setting: Mapping[str, Any]) -> bool:
        """Whether the cell is no result but what could be had at best."""
        return False
