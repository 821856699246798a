"""CLIP's own tokenizer: byte-pair encoding over lower-cased text, in which "</w>" marks the end of a word.

Sennrich et al., arXiv 1508.07909; Radford et al., arXiv 2103.00020, section 2.4. The merges come from the
files that lie beside the user's weights.
"""

import gzip
import json
import unicodedata
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from spae.errors import InputError

FILES = ("tokenizer.json", "merges.txt", "bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt")
START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
# The published merges file is longer than what the models were trained with.
_VOCABULARY = 49152
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def _byte_letters() -> dict[int, str]:
    """A printable letter for each byte, in the order of CLIP's ids: printable bytes stand for themselves and
    come first, the others follow as letters from 256 on."""
    ranges = (("!", "~"), ("¡", "¬"), ("®", "ÿ"))
    printable = [byte for first, last in ranges for byte in range(ord(first), ord(last) + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def _kind(character: str) -> str:
    # Python counts four separators as space that Unicode does not.
    if character.isspace() and character not in "\x1c\x1d\x1e\x1f":
        return "space"
    category = unicodedata.category(character)[0]
    return {"L": "letter", "N": "number"}.get(category, "other")


def _pieces(text: str) -> list[str]:
    """Runs of letters, single numbers, runs of other signs, English contractions; space separates."""
    pieces, at = [], 0
    while at < len(text):
        kind, end = _kind(text[at]), at + 1
        contraction = next((c for c in _CONTRACTIONS if text.startswith(c, at)), None)
        if contraction:
            end = at + len(contraction)
        elif kind in ("letter", "other"):
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if kind != "space":
            pieces.append(text[at:end])
        at = end
    return pieces


class ClipTokenizer:
    """Texts -> ids, with start and end."""

    def __init__(self, ids: dict[str, int], merges: list[tuple[str, str]]):
        """ids: of every symbol; merges: pairs of symbols, the first to be merged first.

        Raises:
            InputError: the start or end symbol, or the symbol that a merge makes, has no id.
        """
        needed = [START, END, *(a + b for a, b in merges)]
        if missing := [symbol for symbol in needed if symbol not in ids]:
            raise InputError(
                f"expected CLIP's tokenizer with the symbol {missing[0]!r}, it is missing: another model's?"
            )
        self._ids = ids
        self._rank = {pair: rank for rank, pair in enumerate(merges)}
        self._letters = _byte_letters()
        self._symbols = lru_cache(maxsize=65536)(self._merge)
        self.start, self.end = ids[START], ids[END]

    def __len__(self) -> int:
        return len(self._ids)

    @classmethod
    def from_merges(cls, merges: list[tuple[str, str]]) -> "ClipTokenizer":
        """The ids follow from the merges: bytes, bytes at a word's end, merged symbols, start, end."""
        letters = _byte_letters().values()
        merges = merges[: _VOCABULARY - 2 * len(letters) - 2]
        symbols = [
            *letters,
            *(letter + _WORD_END for letter in letters),
            *(a + b for a, b in merges),
            START,
            END,
        ]
        return cls({symbol: i for i, symbol in enumerate(symbols)}, merges)

    @classmethod
    def from_file(cls, path: Path) -> "ClipTokenizer":
        """A Hugging Face tokenizer.json, or a merges file (plain or .gz) with one pair per line.

        Raises:
            InputError: the file is neither.
        """
        try:
            content = path.read_bytes()
            text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
            if path.suffix == ".json":
                read = json.loads(text)
                ids = dict(read["model"]["vocab"])
                ids |= {token["content"]: token["id"] for token in read["added_tokens"]}
                pairs = [m.split(" ") if isinstance(m, str) else m for m in read["model"]["merges"]]
                return cls(ids, [(a, b) for a, b in pairs])
            lines = [
                line for line in text.split("\n") if line and not line.startswith(("#version", '"bpe_simple'))
            ]
            return cls.from_merges([(a, b) for a, b in (line.split(" ") for line in lines)])
        except InputError:
            raise
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"expected CLIP's tokenizer.json or merges file, {path} is not one ({error}): "
                "copy it from where the weights came from"
            ) from error

    @classmethod
    def from_folder(cls, folder: Path) -> tuple["ClipTokenizer", Path]:
        """The tokenizer of a folder of weights, and the file it came from.

        Raises:
            InputError: the folder holds none.
        """
        for name in FILES:
            if (folder / name).is_file():
                return cls.from_file(folder / name), folder / name
        raise InputError(
            f"expected one of {', '.join(FILES)} in {folder}, found none: copy it beside the weights"
        )

    def _merge(self, piece: str) -> tuple[int, ...]:
        symbols = [self._letters[byte] for byte in piece.encode()]
        symbols[-1] += _WORD_END
        while len(symbols) > 1:
            best = min(pairwise(symbols), key=lambda pair: self._rank.get(pair, len(self._rank)))
            if best not in self._rank:
                break
            merged, at = [], 0
            while at < len(symbols):
                both = tuple(symbols[at : at + 2]) == best
                merged.append("".join(best) if both else symbols[at])
                at += 2 if both else 1
            symbols = merged
        return tuple(self._ids[symbol] for symbol in symbols)

    def encode(self, text: str, longest: int) -> list[int]:
        """Start, the text's ids, end; at most `longest`, of which the last is always the end.

        Text is brought to NFC and lower case. Special symbols written out in a text are plain text.
        """
        text = unicodedata.normalize("NFC", text).lower()
        ids = [i for piece in _pieces(text) for i in self._symbols(piece)]
        return [self.start, *ids[: longest - 2], self.end]
