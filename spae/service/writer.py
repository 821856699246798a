"""Writing an answer with the embedded model: text, and pictures that are held to words."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spae.frozen_lm import FrozenLM
from spae.frozen_lm.constraint import Constraint, TokenSet, Trie, encode_behind
from spae.frozen_lm.tokenizer import TextTokenizer
from spae.service.marks import CLOSE, OPEN

_STRIDE = 8  # tokens that are generated between two looks at the world


@dataclass(frozen=True)
class Request:
    """What is to be written."""

    prompt: str
    prompt_tokens: int
    max_tokens: int
    stop: tuple[str, ...]
    temperature: float
    top_p: float
    seed: int
    words: int  # of a picture
    draw: bool  # the answer must end with one
    text: bool  # it may have text before


@dataclass(frozen=True)
class End:
    """The last thing that is told of an answer."""

    reason: str  # OpenAI's finish_reason
    tokens: int


class PictureWords:
    """The words a picture may be written in, as tokens of the model."""

    def __init__(self, words: Sequence[str], tokenizer: TextTokenizer):
        tokens = [encode_behind(f" {word}", tokenizer) for word in words]
        self._longest = max(map(len, tokens))
        self._ids = np.array([one[0] for one in tokens]) if self._longest == 1 else None
        # A bundle made for another model: some of its words are several tokens of this one.
        self._trie = Trie([f" {word}" for word in words], tokenizer) if self._longest > 1 else None

    def stretch(self, most: int) -> tuple[Constraint, int, int]:
        """The constraint of the next words, at most so many; how many they are, and how many tokens at most."""
        if self._trie is not None:
            return self._trie, 1, self._longest
        assert self._ids is not None
        count = min(_STRIDE, most)
        return TokenSet(self._ids, max(count, 1)), count, count


class Writer:
    """Writes one answer, a few tokens at a time."""

    def __init__(
        self,
        model: FrozenLM,
        words: PictureWords,
        request: Request,
        tell: Callable[[str | End], None],
        unwanted: threading.Event,
    ):
        self._model = model
        self._words = words
        self._request = request
        self._tell = tell
        self._unwanted = unwanted
        self._text = ""  # written so far
        self._told = 0  # characters of it
        self._tokens = 0
        self._pictures = 0

    def write(self) -> None:
        reason = "length"
        while not self._unwanted.is_set() and self._left > 0:
            reason = self._write_text()
            last = reason != "picture" and self._owes_picture
            if last:
                self._text += "\n" * bool(self._text.strip()) + OPEN
            if reason != "picture" and not last:
                break
            if not self._write_picture():
                reason = "length"
                break
            if last:
                reason = "stop"
                break
        self._show(len(self._text))
        self._tell(End(reason if reason != "picture" else "length", self._tokens))

    @property
    def _owes_picture(self) -> bool:
        return self._request.draw and not self._pictures

    @property
    def _left(self) -> int:
        return self._request.max_tokens - self._tokens

    def _write_text(self) -> str:
        """Up to where the text ends, a picture begins ("picture"), or there is no room for more."""
        if self._owes_picture and not self._request.text:
            return "stop"
        ids = self._model.encode(self._request.prompt + self._text)
        before, new = self._text, []
        while not self._unwanted.is_set():
            room = min(self._left, self._model.context_length - len(ids))
            # The picture that must come has its place.
            count = min(_STRIDE, room - (self._request.words if self._owes_picture else 0))
            if count < 1:
                return "length"
            generation = self._generate(ids, count)
            ids += generation.ids
            new += generation.ids
            # Together, since a letter may be spread over tokens.
            self._text = before + self._model.tokenizer.decode(new)
            place, mark = min(
                ((self._text.find(one, len(before)), one) for one in (*self._request.stop, OPEN)),
                key=lambda found: found[0] if found[0] >= 0 else len(self._text),
            )
            if place >= 0:
                self._text = self._text[:place] + (OPEN if mark == OPEN else "")
                return "picture" if mark == OPEN else "stop"
            if generation.stop != "length":
                return "stop"
            self._show(len(self._text) - self._doubtful())
        return "stop"

    def _write_picture(self) -> bool:
        """The words of a picture whose mark is written, and its closing mark; False when there is no room for all."""
        self._pictures += 1
        left = self._request.words
        while left and not self._unwanted.is_set():
            ids = self._model.encode(self._request.prompt + self._text)
            room = min(self._left, self._model.context_length - len(ids))
            constraint, words, tokens = self._words.stretch(min(left, room))
            if not 0 < tokens <= room:
                return False
            self._text += self._model.tokenizer.decode(self._generate(ids, tokens, constraint).ids)
            self._show(len(self._text))
            left -= words
        self._text += f" {CLOSE}"
        return True

    def _generate(self, ids: Sequence[int], count: int, constraint: Constraint | None = None):
        request = self._request
        generation = self._model.generate(
            [ids],
            count,
            temperature=request.temperature,
            top_p=request.top_p,
            # Every stretch draws anew, and the same request always the same.
            seed=request.seed + self._tokens,
            constraints=[constraint],
        )[0]
        self._tokens += len(generation.ids)
        return generation

    def _doubtful(self) -> int:
        """How many characters at the end may begin a mark or a stop string, or are half a letter."""
        if self._text.endswith("\ufffd"):
            return len(self._text) - len(self._text.rstrip("\ufffd"))
        marks = (*self._request.stop, OPEN)
        longest = min(max(map(len, marks)) - 1, len(self._text))
        return next(
            (n for n in range(longest, 0, -1) if any(m.startswith(self._text[-n:]) for m in marks)), 0
        )

    def _show(self, end: int) -> None:
        if end > self._told:
            self._tell(self._text[self._told : end])
            self._told = end
