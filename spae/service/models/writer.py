"""Writing an answer with the embedded model: text, and pictures that are held to words."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spae.frozen_lm import FrozenLM
from spae.frozen_lm.constraint import Constraint, encode_behind
from spae.frozen_lm.writable import WritableWords
from spae.service.marks import CLOSE, OPEN
from spae.service.models.upstream import PictureFormat

_STRIDE = 8  # tokens that are generated between two looks at the world


@dataclass(frozen=True)
class Request:
    """What is to be written."""

    prompt: list[int]
    max_tokens: int
    stop: tuple[str, ...]
    temperature: float
    top_p: float
    seed: int
    pictures: PictureFormat | None = None  # None: marks of pictures are text like any other


@dataclass(frozen=True)
class End:
    """The last thing that is told of an answer."""

    reason: str  # OpenAI's finish_reason
    tokens: int


class Writer:
    """Writes one answer, a few tokens at a time."""

    def __init__(
        self,
        model: FrozenLM,
        words: WritableWords,
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
        self._tokens = 0  # of what has been written
        self._drawn = 0  # tokens, also those behind the end of a text
        # What ends an answer begins no picture.
        self._draws = request.pictures is not None and OPEN not in request.stop
        self._marks = (*request.stop, *([OPEN] if self._draws else []))
        self._pictures = 0  # begun

    def write(self) -> None:
        reason = "length"
        while not self._unwanted.is_set() and self._left > 0:
            reason = self._write_text()
            last = reason != "picture" and self._owed is not None
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
    def _owed(self) -> PictureFormat | None:
        """The picture that the answer must still have."""
        wanted = self._request.pictures
        return wanted if wanted is not None and wanted.must and not self._pictures else None

    @property
    def _left(self) -> int:
        return self._request.max_tokens - self._tokens

    def _write_text(self) -> str:
        """Up to where the text ends, a picture begins ("picture"), or there is no room for more."""
        owed = self._owed
        if owed is not None and not owed.text:
            return "stop"
        ids = self._ids()
        before, new = self._text, []
        while not self._unwanted.is_set():
            room = min(self._left, self._model.context_length - len(ids))
            # The picture that must come has its place.
            count = min(_STRIDE, room - (owed.words if owed else 0))
            if count < 1:
                return "length"
            generation = self._generate(ids, count)
            ids += generation.ids
            new += generation.ids
            # Together, since a letter may be spread over tokens.
            self._text = before + self._model.tokenizer.decode(new)
            found = self._first_mark(len(before))
            if found is not None:
                place, mark = found
                begins = self._draws and mark == OPEN
                self._text = self._text[:place] + (OPEN if begins else "")
                self._give_back(new, len(self._text) - len(before))
                return "picture" if begins else "stop"
            if generation.stop != "length":
                return "stop"
            self._show(len(self._text) - self._doubtful())
        return "stop"

    def _first_mark(self, start: int) -> tuple[int, str] | None:
        """The first stop string or mark of a picture from there on, and its place; of several in one place the first
        that was given."""
        found = [(self._text.find(one, start), i) for i, one in enumerate(self._marks)]
        place, i = min((one for one in found if one[0] >= 0), default=(-1, 0))
        return None if place < 0 else (place, self._marks[i])

    def _give_back(self, ids: Sequence[int], letters: int) -> None:
        """Takes those tokens at the end off the count that the first so many letters do without."""
        needed = len(ids)
        while needed and len(self._model.tokenizer.decode(ids[: needed - 1])) >= letters:
            needed -= 1
        self._tokens -= len(ids) - needed

    def _write_picture(self) -> bool:
        """The words of a picture whose mark is written, and its closing mark; False when there is no room for all."""
        wanted = self._request.pictures
        assert wanted is not None  # or no mark would be looked for
        self._pictures += 1
        left = wanted.words
        while left and not self._unwanted.is_set():
            ids = self._ids()
            room = min(self._left, self._model.context_length - len(ids))
            count = min(_STRIDE, left, room)
            if count < 1:
                return False
            written = self._generate(ids, count, self._words.constraint(count))
            self._text += self._model.tokenizer.decode(written.ids)
            self._show(len(self._text))
            left -= count
        self._text += f" {CLOSE}"
        return True

    def _ids(self) -> list[int]:
        """The prompt and what is written so far."""
        text = self._text
        return self._request.prompt + (encode_behind(text, self._model.tokenizer) if text else [])

    def _generate(self, ids: Sequence[int], count: int, constraint: Constraint | None = None):
        request = self._request
        generation = self._model.generate(
            [ids],
            count,
            temperature=request.temperature,
            top_p=request.top_p,
            # Every stretch draws anew, and the same request always the same.
            seed=request.seed + self._drawn,
            constraints=[constraint],
        )[0]
        self._tokens += len(generation.ids)
        self._drawn += len(generation.ids)
        return generation

    def _doubtful(self) -> int:
        """How many characters at the end may begin a mark or a stop string, or are half a letter."""
        whole = self._text.rstrip("\ufffd")
        longest = min(max(map(len, self._marks), default=1) - 1, len(whole))
        begun = next(
            (n for n in range(longest, 0, -1) if any(m.startswith(whole[-n:]) for m in self._marks)), 0
        )
        return len(self._text) - len(whole) + begun

    def _show(self, end: int) -> None:
        if end > self._told:
            self._tell(self._text[self._told : end])
            self._told = end
