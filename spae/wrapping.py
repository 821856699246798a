"""What people and language models write around the words of a pyramid: marks, code fences, JSON, sentences."""

import json
import re
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

from spae.errors import InputError

# Between these a language model shows a picture in a conversation.
OPEN, CLOSE = "<image>", "</image>"

_MARK = re.compile(r"< ?(/?) ?image ?>", re.IGNORECASE)
_FENCE = re.compile(r"(```|~~~)[^\n`~]*\n(.*?)(?:\1|\Z)", re.DOTALL)
_JSON_BEGINS = re.compile(r"[\[{]")
_JSON_FOLLOWS = re.compile(r"[\s,]*(?=[\[{])")
_JSON_KEY = re.compile(r'"[^"\n]{1,40}"\s*:')
# Of our own records and of chat replies: where the words are, the first that is there.
_WORDS = ("words", "layers", "text", "content")
_SEVERAL = ("data", "choices", "inputs")  # of which the first is meant
# A line, or of a line what ends like a sentence or a heading.
_SEGMENT = re.compile(r"[^\n]+?(?:[.!?:][*_]*(?=\s)|(?=\n)|\Z)")
# What stands before the words of a layer or a place, at the end of the words of another.
_LABEL = re.compile(
    r"[*_]*(?:(?:layer|level|grid|row|line)\s*\d+\s*(?:\([^()]*\))?|\d+|(?<=[,;|/])[^,;|/]*)\s*:[*_]*$",
    re.IGNORECASE,
)
_LONGEST_LABEL = 60  # characters
_EMPHASIS = "*_"
_LETTERS = re.compile(r"[^\W\d_]+")


def unwrap(text: str) -> tuple[str, str]:
    """The words in their text as they were written, and the beginning of what stood around them ("" for nothing).

    Understood are a code fence, a JSON value with words or lists of words in it, and the marks <image> and </image>,
    also within each other. Of several pictures the first is taken. Marks alone are no wrapping, nor are records with
    layers: so this project writes pictures into conversations and files.

    Raises:
        InputError: a JSON object without words.
    """
    left_out = ""
    for take in (_in_fence, _in_json, _in_marks):
        text, rest = take(text)
        left_out = left_out or rest
    return text, left_out


def without_sentences(text: str, count: Callable[[str], int], miss: Callable[[int], int]) -> tuple[str, str]:
    """The text without the sentences before and behind the words, and headings between them; and what was left out.

    What looks like a sentence may be words, and words may look like a sentence. So of the readings the one is taken
    whose number of words is nearest to that of whole layers.

    Args:
        count: the number of words in a text.
        miss: how far so many words are from filling layers.
    """
    segments = _segments(text)
    lines = {line.strip() for line in text.split("\n")} if "\n" in text else set()
    spoken = [_is_sentence(one, one in lines) for one in segments]
    if not any(spoken):
        return text, ""
    first, last = spoken.index(False) if False in spoken else 0, len(segments)
    while last > first and spoken[last - 1]:
        last -= 1
    if first == last or (first, last) == (0, 0):
        return text, ""
    counts = [count(one) for one in segments]

    def missed(kept: set[int]) -> int:
        return miss(sum(counts[i] for i in kept))

    whole = best = set(range(len(segments)))
    inside = set(range(first, last))
    for kept in (inside, {i for i in inside if not _ends(segments[i], ":")}):
        better = missed(best) - missed(kept)
        surely = any(_ends(segments[i], ":", "!") for i in whole - kept)
        if any(counts[i] for i in kept) and (better > 0 or (better == 0 and surely)):
            best = kept
    if best == whole:
        return text, ""
    return "\n".join(segments[i] for i in sorted(best)), segments[min(whole - best)]


def _segments(text: str) -> list[str]:
    """The lines of a text, divided behind sentences and headings. Of two headings in one line the words between them
    are a part of their own: "Layer 1: dog, Layer 2: park"."""
    segments: list[str] = []
    for line in text.split("\n"):
        behind_heading = False
        for found in _SEGMENT.finditer(line):
            segment = found[0].strip()
            # A label is short, and a text of digits alone may be long.
            label = _LABEL.search(segment, max(0, len(segment) - _LONGEST_LABEL)) if behind_heading else None
            segments += [segment[: label.start()], segment[label.start() :]] if label else [segment]
            behind_heading = _ends(segment, ":")
    return [stripped for one in segments if (stripped := one.strip())]


def _is_sentence(segment: str, is_line: bool) -> bool:
    """Whether a part of a text looks like one, or like a heading."""
    letters = _LETTERS.findall(segment)
    if not letters:
        return False
    if _ends(segment, ":"):
        return True
    if not letters[0][0].isupper():
        return False
    if is_line:
        return len(letters) > 2 or _ends(segment, "!")
    # "Dog." may be a word in a list, "Sure!" is not.
    return _ends(segment, "!") or (_ends(segment, ".", "?") and len(letters) > 1)


def _ends(segment: str, *marks: str) -> bool:
    return segment.rstrip(_EMPHASIS).endswith(marks)


def _in_fence(text: str) -> tuple[str, str]:
    for found in _FENCE.finditer(text):
        if found[2].strip():
            return found[2].strip(), text[: found.start() + 40].strip()
    return text, ""


def _in_json(text: str) -> tuple[str, str]:
    begin = _JSON_BEGINS.search(text)
    if begin is None:
        return text, ""
    try:
        value, end = json.JSONDecoder().raw_decode(text, begin.start())
        words = list(_strings(value))
        # A layer for each value; otherwise several values are several pictures, of which the first is meant.
        while isinstance(value, dict) and "layer" in value and (following := _JSON_FOLLOWS.match(text, end)):
            value, end = json.JSONDecoder().raw_decode(text, following.end())
            words += _strings(value)
    except (ValueError, RecursionError):
        value, end, words = None, 0, []
    whole = not text[: begin.start()].strip() and not text[end:].strip()
    if words:
        ours = (
            whole and isinstance(value, dict) and "layers" in value
        )  # a record, as this project writes them
        return " ".join(words), "" if ours else text.strip()
    if whole and isinstance(value, dict):
        raise InputError(
            "text: the JSON holds no words: wanted layers with words, as spae encode --json writes"
        )
    # It may break off: what it calls things are no words.
    return (_JSON_KEY.sub(" ", text), text.strip()) if _JSON_KEY.search(text) else (text, "")


def _strings(value: Any) -> Iterator[str]:
    """The words of a JSON value, or the texts that they are in."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, dict):
        known = [name for name in _WORDS if name in value]
        several = next((value[name] for name in _SEVERAL if isinstance(value.get(name), list)), None)
        if known:
            # "layers" may be their number. Each is looked through once, or values within values would take for ever.
            yield from next(filter(None, (list(_strings(value[name])) for name in known)), [])
        elif several is not None:
            yield from _strings(several[:1])
        else:
            inner = [one for one in value.values() if isinstance(one, list | dict)]
            yield from _strings(inner or list(value.values()))


def _in_marks(text: str) -> tuple[str, str]:
    marks = list(_MARK.finditer(text))
    if not marks:
        return text, ""
    # From an opening mark to the next one of any kind; up to the first, if the opening one is lost.
    spans: list[tuple[int, int, int, int]] = []
    if all(one[1] for one in marks):
        spans.append((0, 0, marks[0].start(), marks[0].end()))
    for one, following in zip_longest(marks, marks[1:]):
        if not one[1]:
            end, behind = following.span() if following else (len(text), len(text))
            spans.append((one.start(), one.end(), end, behind))
    for before, begin, end, behind in spans:
        if text[begin:end].strip():
            return text[begin:end].strip(), text[:before].strip() or text[behind:].strip()
    return _MARK.sub(" ", text).strip(), marks[0][0]
