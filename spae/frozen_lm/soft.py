"""Prompts in which vectors stand in the place of some tokens: soft tokens."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32

from spae.errors import InputError

SOFT = -1  # in a list of ids: here stands the next of the vectors


class SoftPrompt:
    """Token ids with vectors between them, which a frozen language model reads as it reads a prompt.

    Args:
        ids: token ids, and SOFT wherever a vector stands.
        vectors: float32 (s, d), in the order of their places: what the model's first layer takes there.

    Attributes:
        ids, vectors: those.

    Raises:
        InputError: not as many vectors as places for them, an id below SOFT, or a vector that is not finite.
    """

    def __init__(self, ids: Sequence[int], vectors: Float[np.ndarray, "s d"]) -> None:
        self.ids = [int(id_) for id_ in ids]
        self.vectors: Float32[np.ndarray, "s d"] = np.asarray(vectors, np.float32)
        places = self.ids.count(SOFT)
        if self.vectors.ndim != 2 or len(self.vectors) != places:
            raise InputError(
                f"soft prompt: wanted vectors (s, d) for {places} places, got shape {self.vectors.shape}"
            )
        if min(self.ids, default=0) < SOFT:
            raise InputError(f"soft prompt: wanted token ids, or {SOFT} for a vector; got {min(self.ids)}")
        if not np.isfinite(self.vectors).all():
            raise InputError(
                "soft prompt: wanted finite vectors, got NaN or infinity: is what made them trained?"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def named(self) -> list[int]:
        """The ids with a negative number in place of each SOFT: the same one for equal vectors and for no others, so
        that prompts can be compared as lists of ids."""
        rows = iter(self.vectors)
        return [_name(next(rows)) if id_ == SOFT else id_ for id_ in self.ids]


def _name(vector: Float32[np.ndarray, " d"]) -> int:
    """A negative number of 63 bits, by the vector's bytes."""
    return -1 - (int.from_bytes(hashlib.sha256(vector.tobytes()).digest()[:8], "big") >> 2)


def vectors_by_name(prompts: Iterable[Sequence[int] | SoftPrompt]) -> dict[int, Float32[np.ndarray, " d"]]:
    """The vectors of all prompts that have some, by the numbers in `SoftPrompt.named`."""
    found: dict[int, Float32[np.ndarray, " d"]] = {}
    for prompt in prompts:
        if isinstance(prompt, SoftPrompt):
            found |= zip((id_ for id_ in prompt.named if id_ < 0), prompt.vectors, strict=True)
    return found
