"""Image marks in a text that a language model writes: what is said, and what is a picture in words.

`<image> dog park grass .. </image>` is a picture. Text comes in pieces as the model writes it (`Splitter`),
or whole (`split`); how it is cut makes no difference.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spae.wrapping import CLOSE, OPEN

__all__ = ["CLOSE", "OPEN", "Event", "Picture", "Piece", "Splitter", "split"]


@dataclass(frozen=True)
class Piece:
    """Text as it was written; `picture`: the number, from 0, of the picture it belongs to (its marks do), or None."""

    text: str
    picture: int | None


@dataclass(frozen=True)
class Picture:
    """A picture is complete. `words`: what is between its marks; `closed`: whether its closing mark was there."""

    number: int
    words: str
    closed: bool


Event = Piece | Picture


class Splitter:
    """Tells words of pictures from other text while it comes in.

    Nothing is held back but what may be the beginning of a mark, at most 7 characters; the texts of all pieces
    together are what was fed. A picture ends at its closing mark, where another one begins, or with the text.
    """

    def __init__(self) -> None:
        self._held = ""
        self._pictures = 0
        self._words: list[str] | None = None  # of the picture that is open

    def feed(self, text: str) -> list[Event]:
        """What the next piece of text brings."""
        self._held += text
        events: list[Event] = []
        while (found := self._next_mark()) is not None:
            place, mark = found
            events += self._take(self._held[:place])
            self._held = self._held[place:]
            if mark == OPEN:
                events += self._end_picture(closed=False)
                self._words = []
                self._pictures += 1
            events.append(Piece(mark, self._pictures - 1))
            self._held = self._held[len(mark) :]
            if mark == CLOSE:
                events += self._end_picture(closed=True)
        sure = len(self._held) - self._doubtful()
        events += self._take(self._held[:sure])
        self._held = self._held[sure:]
        return events

    def finish(self) -> list[Event]:
        """What is left at the end of the text."""
        events = [*self._take(self._held), *self._end_picture(closed=False)]
        self._held = ""
        return events

    def _marks(self) -> Sequence[str]:
        """The marks that mean something here: outside of a picture a closing one is text like any other."""
        return (OPEN,) if self._words is None else (OPEN, CLOSE)

    def _next_mark(self) -> tuple[int, str] | None:
        found = [(place, mark) for mark in self._marks() if (place := self._held.find(mark)) >= 0]
        return min(found, default=None)

    def _doubtful(self) -> int:
        """How many characters at the end may begin a mark."""
        longest = min(len(CLOSE) - 1, len(self._held))
        return next(
            (n for n in range(longest, 0, -1) if any(m.startswith(self._held[-n:]) for m in self._marks())), 0
        )

    def _take(self, text: str) -> list[Event]:
        if not text:
            return []
        if self._words is None:
            return [Piece(text, None)]
        self._words.append(text)
        return [Piece(text, self._pictures - 1)]

    def _end_picture(self, closed: bool) -> list[Event]:
        if self._words is None:
            return []
        picture = Picture(self._pictures - 1, "".join(self._words).strip(), closed)
        self._words = None
        return [picture]


def split(texts: Iterable[str]) -> list[Event]:
    """All events of a whole text, given in pieces."""
    splitter = Splitter()
    events = [event for text in texts for event in splitter.feed(text)]
    return events + splitter.finish()
