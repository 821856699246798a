"""CLIP's own tokenizer: byte-pair encoding over lower-cased text, in which "</w>" marks the end of a word.

Sennrich et al., arXiv 1508.07909; Radford et al., arXiv 2103.00020, section 2.4. The merges come from the
files that lie beside the user's weights; `tokenizers` merges.
"""

import gzip
import json
import unicodedata
from pathlib import Path

from spae.errors import InputError
from spae.frozen_lm.tokenizer import import_tokenizers

FILES = ("tokenizer.json", "merges.txt", "bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt")
START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
# The published merges file is longer than what the models were trained with.
_VOCABULARY = 49152
# Runs of letters, single numbers, runs of other signs, English contractions; space separates.
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def _byte_letters() -> list[str]:
    """A printable letter for each byte, in the order of CLIP's ids: printable bytes stand for themselves and
    come first, the others follow as letters from 256 on."""
    ranges = (("!", "~"), ("¡", "¬"), ("®", "ÿ"))
    printable = [chr(byte) for first, last in ranges for byte in range(ord(first), ord(last) + 1)]
    return printable + [chr(256 + n) for n in range(256 - len(printable))]


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
        tokenizers = import_tokenizers()
        model = tokenizers.models.BPE(vocab=ids, merges=merges, end_of_word_suffix=_WORD_END)
        self._tokenizer = tokenizers.Tokenizer(model)
        self._tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
            [
                tokenizers.pre_tokenizers.Split(tokenizers.Regex(_PIECES), behavior="removed", invert=True),
                tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        self.start, self.end = ids[START], ids[END]

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    @classmethod
    def from_merges(cls, merges: list[tuple[str, str]]) -> "ClipTokenizer":
        """The ids follow from the merges: bytes, bytes at a word's end, merged symbols, start, end."""
        letters = _byte_letters()
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

    def encode(self, text: str, longest: int) -> list[int]:
        """Start, the text's ids, end; at most `longest`, of which the last is always the end.

        Text is brought to NFC and lower case, by Python as CLIP was trained. Special symbols written out in a text are
        plain text.
        """
        text = unicodedata.normalize("NFC", text).lower()
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self.start, *ids[: longest - 2], self.end]
