"""The splitter: however a text is cut, the same pieces and pictures come out, and nothing is lost or held too long."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spae.service.marks import CLOSE, OPEN, Picture, Piece, Splitter, split

# Marks, parts of marks, and words: whatever may stand beside each other in a model's text.
_BITS = st.sampled_from(
    [OPEN, CLOSE, "<", "</", "<image", "</image", ">", "i", "dog park", " ", "\n", "image>", "é"]
)
_TEXTS = st.lists(_BITS, max_size=12).map("".join)


def _merged(events):
    """Neighbouring pieces of one picture, or of none, as one."""
    merged = []
    for event in events:
        last = merged[-1] if merged else None
        if isinstance(event, Piece) and isinstance(last, Piece) and last.picture == event.picture:
            merged[-1] = Piece(last.text + event.text, event.picture)
        else:
            merged.append(event)
    return merged


def _cut(text, cuts):
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


@given(_TEXTS, st.lists(st.integers(0, 200), max_size=30))
def test_any_cutting_gives_the_same(text, cuts):
    whole, pieces = _merged(split([text])), _merged(split(_cut(text, cuts)))
    assert pieces == whole
    assert "".join(event.text for event in pieces if isinstance(event, Piece)) == text


@given(_TEXTS)
def test_agrees_with_a_regular_expression(text):
    # A picture runs from its mark to the first mark behind it, or to the end.
    found = re.findall(rf"{OPEN}(.*?)({CLOSE}|(?={OPEN})|\Z)", text, re.DOTALL)
    pictures = [event for event in split([text]) if isinstance(event, Picture)]
    assert [(one.words, one.closed) for one in pictures] == [(w.strip(), bool(end)) for w, end in found]
    assert [one.number for one in pictures] == list(range(len(pictures)))


@given(_TEXTS)
def test_only_a_possible_mark_is_held_back(text):
    splitter, seen = Splitter(), ""
    for end, letter in enumerate(text, 1):
        seen += "".join(event.text for event in splitter.feed(letter) if isinstance(event, Piece))
        held = text[:end][len(seen) :]
        assert text.startswith(seen)
        assert not held or any(mark.startswith(held) and mark != held for mark in (OPEN, CLOSE))


def test_pieces_know_their_picture():
    events = split(["A dog: <ima", "ge> dog pa", "rk </image", "> and <image> cat"])
    assert _merged(events) == [
        Piece("A dog: ", None),
        Piece("<image> dog park </image>", 0),
        Picture(0, "dog park", closed=True),
        Piece(" and ", None),
        Piece("<image> cat", 1),
        Picture(1, "cat", closed=False),
    ]


@pytest.mark.parametrize("text", ["", "a < b and c > d", "</image> alone", "<img> <IMAGE> <image"])
def test_text_without_pictures_stays_text(text):
    events = split(list(text))
    assert all(isinstance(event, Piece) and event.picture is None for event in events)
    assert "".join(event.text for event in events) == text
