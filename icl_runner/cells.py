"""What a run asks of a model, before any model is asked: plain values, so that a dry run can print them.

A run is made of cells (one setting of one task, and one log), a cell of samples (one episode, example or picture), a
sample of calls. `TextCell` is of tasks whose answers are texts (`icl_runner.texts`); pictures have
`icl_runner.pictures.drawing.DrawingCell`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeVar

from icl_runner.episodes.draw import Episode
from icl_runner.prompts import CHAT, Prompt

T = TypeVar("T")

EMBEDDED = "spae-lm/"  # what the names of embedded models begin with
CONNECTOR = "spae-connector/"  # of embedded models that see
IN_PROCESS = (EMBEDDED, CONNECTOR)

# What an item shows and the answers by key (texts; of `Call.likelihoods` log-probabilities by choice) -> values by key,
# and metadata to show with them.
Rule = Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[dict[str, float], dict[str, Any]]]


@dataclass(frozen=True)
class Call:
    """One question to the model.

    Args:
        key: what its answer is called in the scores: "open", "constrained", .. and the same with "_other".
        prompt: what the model reads.
        max_tokens: of the answer.
        choices: the only answers allowed, for models whose decoding can be restricted.
        system: the system message, for chat models.
        likelihoods: the answer is no text, but how likely each of `choices` is, with the end of its line.
        against: prompts that are read beside it, for words by contrast (`icl_runner.constraints.Words`).
    """

    key: str
    prompt: Prompt
    max_tokens: int
    choices: tuple[str, ...] = ()
    system: str = CHAT
    likelihoods: bool = False
    against: tuple[Prompt, ...] = ()


@dataclass(frozen=True)
class Item:
    """One episode or example: `calls` share their prompt's context, or most of them do, and those of one context follow
    each other; `shown` (plain JSON) is what scoring needs."""

    id: str
    calls: tuple[Call, ...]
    target: str
    shown: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell(ABC):
    """One setting of one task.

    Args:
        name: unique in the run: the name of its log's task.
        task: the task's name.
        setting: what sets the cell apart: `cell` in the log's metadata.
        episodes: those that the samples are of, which a run keeps beside its logs; () for other samples.
    """

    name: str
    task: str
    setting: Mapping[str, Any]
    episodes: tuple[Episode, ...] = ()

    @property
    @abstractmethod
    def ids(self) -> list[str]:
        """Of the samples, in order."""

    @abstractmethod
    def calls(self) -> Iterable[Call]:
        """Every call that a run makes; where a prompt depends on earlier answers, with words as long as these."""

    @property
    def sharing(self) -> tuple[int, int] | None:
        """How many samples share what they read, so that a model in this process reads it once if they are asked
        together, and how many calls each of them makes at a time; None: they share nothing worth waiting for."""
        return None


@dataclass(frozen=True, kw_only=True)
class TextCell(Cell):
    """A cell whose answers are short texts.

    Args:
        score: how they are scored.
        photograph: key of an image ("query_key" of what an item shows) -> a data URL, for those who read the log.
        picture: key of an image that prompts show (`icl_runner.shown`) -> a data URL, for a model that sees; or None.
    """

    items: tuple[Item, ...]
    score: Rule = field(compare=False)
    photograph: Callable[[str], str] | None = field(default=None, compare=False)
    picture: Callable[[str], str] | None = field(default=None, compare=False)

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self.items]

    def calls(self) -> Iterable[Call]:
        return (call for item in self.items for call in item.calls)


def calls_to_json(calls: Sequence[Call]) -> dict[str, Any]:
    """The calls of a sample as JSON; the context of the first, which is long and most share, is kept once."""
    context = calls[0].prompt.context
    each = [
        {
            "key": call.key,
            "query": call.prompt.query,
            "stop": list(call.prompt.stop),
            "max_tokens": call.max_tokens,
            "choices": list(call.choices),
            "system": call.system,
            "likelihoods": call.likelihoods,
        }
        | ({} if call.prompt.context == context else {"context": call.prompt.context})
        for call in calls
    ]
    return {"context": context, "calls": each}


def calls_from_json(content: Mapping[str, Any]) -> list[Call]:
    """The calls that `calls_to_json` wrote; what was written before there were likelihoods says nothing of them."""
    return [
        Call(
            one["key"],
            Prompt(one.get("context", content["context"]), one["query"], tuple(one["stop"])),
            one["max_tokens"],
            tuple(one["choices"]),
            one["system"],
            one.get("likelihoods", False),
        )
        for one in content["calls"]
    ]


def shuffled(items: Sequence[T], seed: int, key: Callable[[T], str]) -> list[T]:
    """The items in an order that depends on nothing but the seed and their keys."""
    return sorted(items, key=lambda item: sha256(f"{seed} {key(item)}".encode()).digest())


def number(seed: int, text: str) -> int:
    """A number of 32 bits that depends on nothing but the two."""
    return int.from_bytes(sha256(f"{seed} {text}".encode()).digest()[:4])
