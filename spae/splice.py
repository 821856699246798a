"""Texts with images in them: tokens of a frozen language model, and where soft tokens stand between them.

A text has `<image>` wherever an image stands. It becomes a list of token ids with IMAGE_ID in those places (`encode`),
and then every IMAGE_ID makes room for as many soft tokens as its image has (`splice`), as LLaVA does (arXiv
2304.08485). Labels are the ids that the model is to be trained to say, NO_LABEL everywhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int32

from spae.connector_config import IMAGE
from spae.errors import InputError
from spae.frozen_lm import SOFT, FrozenLM, SoftPrompt
from spae.frozen_lm.constraint import encode_behind

IMAGE_ID = -200  # LLaVA's
NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class Spliced:
    """A text of n places.

    Attributes:
        ids_n: int32, the token at each place; 0 at those of soft tokens.
        soft_n: int32, which soft token stands there, counted from 0 over all images in order; -1 where a token does.
        labels_n: int32, the id that is to be said at this place, given all before it; NO_LABEL for none.
    """

    ids_n: Int32[np.ndarray, " n"]
    soft_n: Int32[np.ndarray, " n"]
    labels_n: Int32[np.ndarray, " n"]

    def prompt(self, soft_sd: Float[np.ndarray, "s d"]) -> SoftPrompt:
        """With the soft tokens of all images, in order.

        Raises:
            InputError: another number of them than there is room for.
        """
        return SoftPrompt(np.where(self.soft_n < 0, self.ids_n, SOFT).tolist(), soft_sd)


def encode(lm: FrozenLM, turns: Sequence[tuple[str, str]]) -> tuple[list[int], list[int]]:
    """A text from its beginning as ids, with IMAGE_ID for every `<image>`, and a label for each of them.

    Args:
        lm: whose tokens they are.
        turns: pairs of what is given, with `<image>` anywhere, and what is to be said behind it, which alone has
            labels; a prompt is one pair whose second text is empty.

    Raises:
        InputError: no turn, a text that is none, or `<image>` in what is to be said.
    """
    if not turns:
        raise InputError("wanted at least one text, got none")
    ids: list[int] = []
    labels: list[int] = []
    for number, (given, said) in enumerate(turns):
        if IMAGE in said:
            raise InputError(
                f"{IMAGE} cannot be said, only shown: put it in front of the answer {said[:40]!r}"
            )
        for place, piece in enumerate(given.split(IMAGE)):
            if place:
                ids.append(IMAGE_ID)
            if number == place == 0:
                ids = lm.encode(piece)
            elif piece:
                ids += encode_behind(piece, lm.tokenizer)
        labels += [NO_LABEL] * (len(ids) - len(labels))
        answer = encode_behind(said, lm.tokenizer) if said else []
        ids, labels = ids + answer, labels + answer
    return ids, labels


def splice(ids: Sequence[int], labels: Sequence[int], sizes: Sequence[int]) -> Spliced:
    """Room for the soft tokens of every image.

    Args:
        ids: token ids, IMAGE_ID where an image stands.
        labels: one for each of them.
        sizes: of every image in order, how many soft tokens it has; 0 for an image that is left out.

    Raises:
        InputError: not as many labels as ids (LLaVA's code would train on nothing there, and not say so), not as many
            images as IMAGE_IDs, a label at an image, or an empty text.
    """
    if len(ids) != len(labels):
        raise InputError(f"wanted a label for each of {len(ids)} tokens, got {len(labels)}: both of one text")
    places = sum(id_ == IMAGE_ID for id_ in ids)
    if places != len(sizes):
        raise InputError(f"wanted an image for each {IMAGE} of the text, got {len(sizes)} for {places}")
    sizes_left, used = iter(sizes), 0
    rows: list[tuple[int, int, int]] = []
    for id_, label in zip(ids, labels, strict=True):
        if id_ != IMAGE_ID:
            rows.append((id_, -1, label))
            continue
        if label != NO_LABEL:
            raise InputError(f"wanted no label at an {IMAGE}, got {label}: an image is not said")
        size = next(sizes_left)
        rows += [(0, used + i, NO_LABEL) for i in range(size)]
        used += size
    if not rows:
        raise InputError("wanted a text of at least one token, got an empty one")
    return Spliced(*np.array(rows, np.int32).T)
