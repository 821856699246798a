"""What generated text may be: exactly one of some strings, or so many tokens of a set."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from spae.errors import InputError
from spae.frozen_lm.tokenizer import TextTokenizer

# Strings are tokenised behind one of these, since a tokenizer may treat the beginning of a text in its own way.
_LEADS = (":", "\n", "a")


class Constraint(Protocol):
    """A machine that reads the tokens generated so far; its states are any values that do not change."""

    def start(self) -> Any:
        """The state before the first token."""

    def allowed(self, state: Any) -> Int[np.ndarray, " n"]:
        """Ids that may come next, without an end; none when nothing may follow."""

    def step(self, state: Any, token_id: int) -> Any:
        """The state behind one of the allowed ids."""

    def finished(self, state: Any) -> bool:
        """Whether the text may end here. It must, if nothing is allowed."""


@dataclass
class _Node:
    children: dict[int, "_Node"] = field(default_factory=dict)
    ends: bool = False


class Trie:
    """Exactly one of `strings`, each tokenised as it is behind other text.

    Where one string begins another ("dog", "dog house"), the text may end or go on. The probability of ending
    is that of the model's own end tokens and of the tokens that begin a stop string (of a line break, when
    `generate` was given no stop strings). Greedily, the text ends if that is at least the probability of the
    likeliest token that goes on; in sampling it is one more outcome beside those tokens.

    Raises:
        InputError: no strings, or an empty one.
    """

    def __init__(self, strings: Iterable[str], tokenizer: TextTokenizer):
        self._root = _Node()
        strings = list(strings)
        if not strings or not all(strings):
            raise InputError(f"constraint: wanted one or more strings, none of them empty; got {strings!r}")
        for string in strings:
            node = self._root
            for token_id in encode_behind(string, tokenizer):
                node = node.children.setdefault(token_id, _Node())
            node.ends = True

    def start(self) -> _Node:
        return self._root

    def allowed(self, state: _Node) -> Int[np.ndarray, " n"]:
        return np.fromiter(state.children, np.int64)

    def step(self, state: _Node, token_id: int) -> _Node:
        return state.children[token_id]

    def finished(self, state: _Node) -> bool:
        return state.ends


class TokenSet:
    """Exactly `count` tokens of the set `ids`, in any order, repeated or not.

    Raises:
        InputError: no ids, or a count below 1.
    """

    def __init__(self, ids: Sequence[int] | Int[np.ndarray, " n"], count: int):
        self._ids = np.unique(np.asarray(ids, np.int64))
        if not self._ids.size or count < 1:
            raise InputError(f"constraint: wanted token ids and a count from 1; got {len(ids)} ids, {count}")
        self._count = count
        self._none = np.empty(0, np.int64)

    def start(self) -> int:
        return 0

    def allowed(self, state: int) -> Int[np.ndarray, " n"]:
        return self._ids if state < self._count else self._none

    def step(self, state: int, token_id: int) -> int:
        return state + 1

    def finished(self, state: int) -> bool:
        return state == self._count


def encode_behind(string: str, tokenizer: TextTokenizer) -> list[int]:
    """The tokens of a string that goes on another text.

    Where it would melt into any text before it (" " and then a space), those it has alone.
    """
    for lead in _LEADS:
        before, both = tokenizer.encode(lead), tokenizer.encode(lead + string)
        if both[: len(before)] == before:
            return both[len(before) :]
    return tokenizer.encode(string)
