"""What a task asks of a model, before any model is asked: plain values, so that a dry run can print them.

A run is made of cells (one setting of one task), a cell of items (one episode or example), an item of calls. The
tasks whose answers are text (classify, caption, vqa, interpret) are `TextCell`s, which `icl_runner.tasks.texts`
turns into tasks of inspect-ai; `generate` and `transform` have cells of their own with the same methods.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from icl_runner.prompts import CHAT, Prompt

# inspect-ai takes three seconds to import.
if TYPE_CHECKING:
    from inspect_ai import Task

T = TypeVar("T")

EMBEDDED = "spae-lm/"  # what the names of embedded models begin with


@dataclass(frozen=True)
class Call:
    """One question to the model.

    Args:
        key: what its answer is called in the scores: "open", "constrained", .. and the same with "_other".
        prompt: what the model reads.
        max_tokens: of the answer.
        choices: the only answers allowed, for models whose decoding can be restricted.
        system: the system message, for chat models.
    """

    key: str
    prompt: Prompt
    max_tokens: int
    choices: tuple[str, ...] = ()
    system: str = CHAT


@dataclass(frozen=True)
class Item:
    """One episode or example: `calls` share their prompt's context; `shown` (plain JSON) is what scoring needs."""

    id: str
    calls: tuple[Call, ...]
    target: str
    shown: Mapping[str, Any]


class Cell(Protocol):
    """One setting of one task, as the run deals with it."""

    @property
    def name(self) -> str:
        """Unique in the run: the name of its log's task."""

    @property
    def task(self) -> str:
        """ "classify", "caption", .."""

    @property
    def setting(self) -> Mapping[str, Any]:
        """What sets the cell apart: `cell` in the log's metadata."""

    @property
    def ids(self) -> Sequence[str]:
        """Of the samples, in order."""

    def calls(self) -> Iterable[Call]:
        """Every call that a run makes; where a prompt depends on earlier answers, with words as long as these."""

    def build(self, metadata: Mapping[str, Any]) -> "Task":
        """The task of inspect-ai, with this metadata."""


@dataclass(frozen=True)
class TextCell:
    """A cell whose answers are short texts.

    `photograph`: key of an image ("query_key" of what an item shows) -> a data URL, for those who read the log.
    """

    name: str
    task: str
    setting: Mapping[str, Any]
    items: tuple[Item, ...]
    photograph: Callable[[str], str] | None = field(default=None, compare=False)

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self.items]

    def calls(self) -> Iterable[Call]:
        return (call for item in self.items for call in item.calls)

    def build(self, metadata: Mapping[str, Any]) -> "Task":
        from icl_runner.tasks.texts import text_task

        return text_task(self, metadata)


def shuffled(items: Sequence[T], seed: int, key: Callable[[T], str]) -> list[T]:
    """The items in an order that depends on nothing but the seed and their keys."""
    return sorted(items, key=lambda item: sha256(f"{seed} {key(item)}".encode()).digest())
