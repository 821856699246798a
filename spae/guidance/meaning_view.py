"""Words with the vectors that a guidance gives them, instead of the language model's own.

V2L-Tokenizer (arXiv 2403.07874) searches such a table: the words are the language model's, and their vectors lie in
one space with those of images, so that the words of an image are those nearest to it.
"""

import os
from typing import Literal

import numpy as np

from spae.errors import InputError
from spae.guidance.cache import cached_word_features
from spae.guidance.protocol import Guidance
from spae.vocabulary import View, Vocabulary


def embedded(
    vocabulary: Vocabulary,
    guidance: Guidance,
    view: Literal["two", "raw"] = "raw",
    components: int = 64,
    cache: str | os.PathLike[str] | None = None,
) -> Vocabulary:
    """A vocabulary's words and token ids with the guidance's text vectors, each scaled to length 1.

    Args:
        vocabulary: the words.
        guidance: whose texts; a word's vector is the mean over its templates.
        view: the table itself for meaning, and for appearance the same ("raw", V2L) or its `components` leading
            principal components, whitened ("two").
        components: of that view.
        cache: folder for the vectors; None for `spae.files.cache_folder()`.

    Raises:
        InputError: another view, or more components than the table has.
    """
    if view not in ("two", "raw"):
        raise InputError(
            f"a guidance's vectors have the views two and raw, not {view!r}: other maps move words"
        )
    rows_vc = cached_word_features(guidance, vocabulary.words, cache)
    rows_vc = (rows_vc / np.linalg.norm(rows_vc, axis=1, keepdims=True)).astype(np.float32)
    appearance = View.raw() if view == "raw" else View.whitened(rows_vc, components)
    return Vocabulary(
        vocabulary.words,
        vocabulary.token_ids,
        rows_vc,
        {"meaning": View.raw(), "appearance": appearance},
        {**vocabulary.provenance, "embedded_by": {"guidance": guidance.name, "sha256": guidance.fingerprint}},
    )


def check_embedded(vocabulary: Vocabulary, guidance: Guidance) -> None:
    """That the words' vectors are those of this guidance, so that its image vectors can be compared with them.

    Raises:
        InputError: they are not.
    """
    by = vocabulary.provenance.get("embedded_by", {})
    if by.get("sha256") != guidance.fingerprint or vocabulary.views["meaning"].kind != "raw":
        raise InputError(
            f"ranking words by {guidance.name} needs a vocabulary of its own vectors, got one with vectors of "
            f"{by.get('guidance', 'the language model')}: build it with spae vocab build --embed"
        )
