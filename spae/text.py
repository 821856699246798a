"""Pyramids as plain text and back: rendering, and a parser that repairs what people and models write."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from rapidfuzz.distance import OSA
from rapidfuzz.process import cdist

from spae.errors import InputError
from spae.pyramid import Pyramid, PyramidShape
from spae.vocabulary import Vocabulary
from spae.wrapping import unwrap, without_sentences

# Letters and digits; hyphens and apostrophes inside a word belong to it.
_PIECE = re.compile(r"[^\W_]+(?:['’‐‑-][^\W_]+)*")
_JOINED = re.compile(r"['’‐‑-]|[a-z][A-Z]")
_HUMPS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_JOINTS = re.compile(r"['’‐‑-]")
# Without `layers`, surplus of up to this part of a prefix is taken for miscounting, not for a next layer.
_SURPLUS_TOLERATED = 0.1
# Of the words, the part that may be missing or unknown before a reader is warned: with more, what a prefix of the
# top layers shows (one word of five, two of twenty-one) can be another picture than the one that was written.
REPAIRS_TOLERATED = 0.1
_LONGEST_REPAIRED = 40  # letters; a longer "word" is no misspelling
_FURTHEST = 2  # edits


@dataclass(frozen=True)
class Repair:
    """One thing that was not as `render` writes it.

    `kind`: "case", "punctuation", "numbering", "whitespace", "wrapping" (what stands around the words), "unknown",
    "missing" or "surplus";
    `position`: 0-based place among the pyramid's words; `found`: what the text has there;
    `used`: the word taken instead, "" for something left out.
    """

    kind: str
    position: int
    found: str
    used: str


@dataclass(frozen=True)
class Parsed:
    """A pyramid read from text, and every repair that it took, in the order of the text."""

    pyramid: Pyramid
    repairs: tuple[Repair, ...]

    def count(self, kind: str) -> int:
        """How many repairs are of this kind: of "missing" and "unknown" one a word."""
        return sum(repair.kind == kind for repair in self.repairs)

    @property
    def doubtful(self) -> bool:
        """Whether more than `REPAIRS_TOLERATED` of the words are not those of the text."""
        replaced = self.count("missing") + self.count("unknown")
        return replaced > REPAIRS_TOLERATED * self.pyramid.shape.tokens(self.pyramid.layers)

    @property
    def account(self) -> str:
        """What is not as the text has it, in one line; "" if all its words were taken and no other."""
        missing, unknown = self.count("missing"), self.count("unknown")
        words, layers = self.pyramid.shape.tokens(self.pyramid.layers), self.pyramid.layers
        said = [f"{missing} missing, filled with the word above"] if missing else []
        said += [f"{unknown} unknown, replaced"] if unknown else []
        said += [f"left out {repair.found}" for repair in self.repairs if repair.kind == "surplus"]
        if not said:
            return ""
        wanted = (
            f"{words} word{'s' if words > 1 else ''} wanted for {layers} layer{'s' if layers > 1 else ''}"
        )
        return f"{wanted}, {words - missing - unknown} found: " + "; ".join(said)

    def strict(self) -> Pyramid:
        """The pyramid, if all words of the text were taken and no other. Punctuation, case, numbering and what stands
        around the words change no word.

        Raises:
            InputError: a word was missing, unknown or one too many.
        """
        if self.account:
            unknown = [
                f"{one.found!r} at {one.position + 1}" for one in self.repairs if one.kind == "unknown"
            ]
            named = f"; not in the vocabulary: {', '.join(unknown[:5])}" if unknown else ""
            raise InputError(f"text: {self.account}{named}; mend the text, or decode without strict")
        return self.pyramid


def render(pyramid: Pyramid, layers: int | None = None) -> str:
    """The words of the first `layers` layers (all by default), top layer first, each grid row by row,
    separated by single spaces."""
    return pyramid.text(layers)


def parse(text: str, vocabulary: Vocabulary, shape: PyramidShape, layers: int | None = None) -> Parsed:
    """Reads a pyramid from words; the inverse of `render`, tolerant of how people and models write.

    Another case, punctuation, numbering ("1." "2)"), line breaks: understood and reported. So is what stands around
    the words: code fences, JSON with lists of words, sentences before and behind, headings ("Layer 2:"); the marks
    <image> and </image> are nothing to report. Words joined by hyphens ("dog-puppy") are told apart. A word that is
    not in the vocabulary becomes the nearest by spelling (1 edit for 3 to 5 letters, 2 for longer words;
    ties to the lower id, which is the more frequent word); when none is near, it is filled like a missing
    word: with the word above it in the pyramid, or at the top with the first known word of the text.

    `layers`: how many layers the text should hold. By default the most layers that its words fill, where
    a surplus of up to a tenth is dropped as miscounting; with more, the next layer is begun, and completed
    by filling.

    Raises:
        InputError: the text is empty or has no word near the vocabulary, or bad `layers`.
    """
    if not isinstance(text, str):
        raise InputError(f"text: wanted words as a string; got {type(text).__name__}")
    wanted = shape.tokens(layers)
    inside, around = unwrap(text)
    inside, sentence = _without_sentences(inside, vocabulary, shape, layers)
    around = around or sentence
    found, repairs = _words(inside, vocabulary, wanted)
    if around:
        repairs.insert(0, Repair("wrapping", 0, around[:_LONGEST_REPAIRED], ""))
    if not found:
        raise InputError("text: wanted words of the vocabulary, separated by spaces; got none")
    if layers is None:
        layers = _layers_for(len(found), shape)
    size = shape.tokens(layers)
    surplus, found = found[size:], found[:size]

    ids = _lookup(found, vocabulary, repairs)
    whole = _filled(ids, found, vocabulary, shape.above[:size], repairs)
    repairs = [repair for repair in repairs if repair.position <= size]
    if surplus:
        first = " ".join(word[:_LONGEST_REPAIRED] for word in surplus[:3])
        repairs.append(Repair("surplus", size, f"{len(surplus)} more words: {first} ..", ""))
    return Parsed(
        Pyramid.from_ids(whole, shape, vocabulary), tuple(sorted(repairs, key=lambda repair: repair.position))
    )


def _words(text: str, vocabulary: Vocabulary, wanted: int) -> tuple[list[str], list[Repair]]:
    """The words of the text as written, and the formatting repaired among the first `wanted`."""
    chunks = text.split()
    repairs: list[Repair] = []
    if text != " ".join(chunks):
        repairs.append(Repair("whitespace", 0, "line breaks, tabs or extra spaces", ""))
    found: list[str] = []
    for chunk in chunks:
        if chunk in vocabulary.index:
            found.append(chunk)
            continue
        pieces = [part for piece in _PIECE.findall(chunk) for part in _apart(piece, vocabulary)]
        words = [piece for piece in pieces if not piece.isdigit() or piece in vocabulary.index]
        if words != [chunk] and len(found) <= wanted:
            repair = Repair(
                "numbering" if pieces and not words else "punctuation",
                len(found),
                chunk[:_LONGEST_REPAIRED],
                "",
            )
            # A page of dots is one repair, not thousands.
            if not repairs or (repair.kind, repair.position) != (repairs[-1].kind, repairs[-1].position):
                repairs.append(repair)
        found += words
    return found, repairs


def _without_sentences(
    text: str, vocabulary: Vocabulary, shape: PyramidShape, layers: int | None
) -> tuple[str, str]:
    sizes = shape.sizes if layers is None else [shape.tokens(layers)]

    def count(part: str) -> int:
        return len(_words(part, vocabulary, 0)[0])

    inside, around = without_sentences(text, count, lambda words: min(abs(words - size) for size in sizes))
    # "dog: A" has a word, and it is in what looks like a heading.
    ids = _lookup(_words(inside, vocabulary, 0)[0], vocabulary, []) if around else []
    return (inside, around) if any(id_ is not None for id_ in ids) else (text, "")


def _apart(piece: str, vocabulary: Vocabulary) -> list[str]:
    """Words that are joined in one, if each of them is a word of the vocabulary: dog-puppy, DogPuppy."""
    if not _JOINED.search(piece) or piece.casefold() in vocabulary.folded_index:
        return [piece]
    parts = [part for joined in _JOINTS.split(piece) for part in _HUMPS.findall(joined)]
    whole = "".join(parts) == _JOINTS.sub("", piece)
    return parts if whole and all(part.casefold() in vocabulary.folded_index for part in parts) else [piece]


def _layers_for(words: int, shape: PyramidShape) -> int:
    if words in shape.sizes:
        return shape.sizes.index(words) + 1
    for layers, size in enumerate(shape.sizes[:-1], start=1):
        if words <= size * (1 + _SURPLUS_TOLERATED):
            return layers
    return len(shape)


def _lookup(found: Sequence[str], vocabulary: Vocabulary, repairs: list[Repair]) -> list[int | None]:
    """The id of every word found, None where nothing is near; repairs of case and spelling are added."""
    ids: list[int | None] = []
    unknown: dict[str, list[int]] = {}
    for position, word in enumerate(found):
        id_ = vocabulary.index.get(word)
        if id_ is None:
            id_ = vocabulary.folded_index.get(word.casefold())
            if id_ is None:
                unknown.setdefault(word, []).append(position)
            else:
                repairs.append(Repair("case", position, word, vocabulary.words[id_]))
        ids.append(id_)
    for word, id_ in _nearest_by_spelling(list(unknown), vocabulary).items():
        for position in unknown[word]:
            ids[position] = id_
            repairs.append(Repair("unknown", position, word, vocabulary.words[id_]))
    return ids


def _nearest_by_spelling(unknown: list[str], vocabulary: Vocabulary) -> dict[str, int]:
    """For the unknown words that have a near one: the id of the nearest, lowest id first."""
    plain = {word: _JOINTS.sub("", word).casefold() for word in unknown}
    queries = [word for word in unknown if 3 <= len(plain[word]) <= _LONGEST_REPAIRED]
    if not queries:
        return {}
    distances = cdist(
        [plain[word] for word in queries],
        list(vocabulary.folded_index),
        scorer=OSA.distance,
        score_cutoff=_FURTHEST,
        dtype=np.uint8,
    )
    folded_ids = list(vocabulary.folded_index.values())
    nearest: dict[str, int] = {}
    for word, row in zip(queries, distances, strict=True):
        best = int(row.argmin())
        if row[best] <= (1 if len(plain[word]) <= 5 else _FURTHEST):
            nearest[word] = folded_ids[best]
    return nearest


def _filled(
    ids: Sequence[int | None],
    found: Sequence[str],
    vocabulary: Vocabulary,
    above: Int[np.ndarray, " n"],
    repairs: list[Repair],
) -> list[int]:
    """An id for each of the n places, where the text has none that of the word above; the repairs are added."""
    first_known = next((id_ for id_ in ids if id_ is not None), None)
    if first_known is None:
        raise InputError(
            f"text: none of its words is in the vocabulary or near it ({' '.join(found[:3])[:60]} ..); "
            "wanted words that encode gives"
        )
    filled: list[int] = []
    for position, parent in enumerate(above.tolist()):
        missing = position >= len(found)
        id_ = None if missing else ids[position]
        if id_ is None:
            id_ = first_known if parent < 0 else filled[parent]
            word = "" if missing else found[position][:_LONGEST_REPAIRED]
            repairs.append(Repair("missing" if missing else "unknown", position, word, vocabulary.words[id_]))
        filled.append(id_)
    return filled
