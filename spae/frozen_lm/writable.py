"""The words of a vocabulary that a language model can write as one token each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spae.errors import InputError
from spae.frozen_lm.constraint import TokenSet, encode_behind
from spae.frozen_lm.tokenizer import TextTokenizer


@dataclass(frozen=True)
class WritableWords:
    """What a picture may be written in by one model.

    A bundle is made for one language model; for another some of its words may be several tokens. Those are left out:
    a count of words is a count of tokens then, and no word is likelier for being begun like many others.

    Attributes:
        ids: word -> its token behind a space, in the vocabulary's order.
        left_out: the words that are several tokens.
        model: its name.
    """

    ids: Mapping[str, int]
    left_out: tuple[str, ...]
    model: str

    @classmethod
    def of(cls, words: Sequence[str], tokenizer: TextTokenizer, model: str) -> "WritableWords":
        """Those words that are a single token; refused if there is none."""
        tokens = {word: encode_behind(f" {word}", tokenizer) for word in words}
        ids = {word: found[0] for word, found in tokens.items() if len(found) == 1}
        if not ids:
            raise InputError(
                f"words: none of the {len(words):,} words ({', '.join(words[:2])}, ..) is a single token of {model}: "
                "use a bundle made for this model, or no constraint"
            )
        return cls(ids, tuple(word for word in words if word not in ids), model)

    def constraint(self, count: int) -> TokenSet:
        """Exactly `count` of the words, each behind a space."""
        return TokenSet(list(self.ids.values()), count)

    def note(self) -> str | None:
        """A line for whoever asked for words, where some cannot be written."""
        if not self.left_out:
            return None
        total = len(self.ids) + len(self.left_out)
        return (
            f"{len(self.left_out):,} of {total:,} words ({self.left_out[0]!r}, ..) are not single tokens of "
            f"{self.model} and left out"
        )
