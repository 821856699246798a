"""Whether words say where: four photographs as one picture, and the second layer's word of each quadrant.

A word is right if, of the four photographs' names, its own photograph's is nearest to it. Words and names are seen from
the means that `tokenizer_train.evaluation.naming` takes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8

from spae.images import to_array, to_float
from spae.progress import counted
from spae.sources import Source
from spae.tokenizer import Tokenizer
from tokenizer_train.evaluation.batches import by_side
from tokenizer_train.evaluation.naming import Names, another, centred, nearest
from tokenizer_train.evaluation.word_fit import WordFit

MOST = 250  # mosaics; no photograph is in two of them
BATCH = 32  # mosaics at once
LAYER = 2  # whose words are looked at
GRID = (2, 2)


def mosaics(
    tokenizer: Tokenizer,
    fit: WordFit,
    source: Source,
    indices_n: Int[np.ndarray, " n"],
    names_n: Sequence[str],
    vectors: Mapping[str, Float32[np.ndarray, " d"]],
    seed: int,
) -> dict[str, Any]:
    """The share of quadrants whose word is nearest to their own photograph's name, and of the controls: chance; the
    words of another mosaic; the guidance's vector of the quadrant, from one pass over the mosaic, as a ceiling.

    Args:
        tokenizer: one whose second layer has 2 x 2 words.
        fit: the guidance, and its vectors of the vocabulary.
        indices_n: the photographs in the source.
        names_n: the names of their classes; enough for two mosaics, see `draw_groups`.
        vectors: name -> the guidance's vector.
        seed: of the photographs of a mosaic, and of the control.

    Raises:
        InputError: a photograph cannot be read.
    """
    groups_g4 = draw_groups(names_n, seed)
    words_g4 = np.empty(groups_g4.shape, int)
    seen_g4d = np.empty((*groups_g4.shape, fit.guidance.width), np.float32)
    for start in counted(range(0, len(groups_g4), BATCH), "mosaics", "batch"):
        made = [
            mosaic([tokenizer.square(source[int(index)].image) for index in indices_n[group]])
            for group in groups_g4[start : start + BATCH]
        ]
        squares = [tokenizer.square(one) for one in made]
        pyramids = tokenizer.encode(squares)
        words_g4[start : start + BATCH] = [one.ids[LAYER - 1].ravel() for one in pyramids]
        for rows, images in by_side(squares, BATCH):
            regions = np.asarray(fit.guidance.regions(to_float(images), GRID[:1]))
            seen_g4d[start + rows] = regions[: len(rows)]
    names = Names(names_n, vectors)
    own_g4d = names.vectors_md[names.own_n[groups_g4]]
    words_g4d = centred(fit.words_vf)[words_g4]
    other_g = another(len(groups_g4), np.random.default_rng((seed, MOST)))
    represented = {
        "words of the quadrants": words_g4d,
        "words of another mosaic": words_g4d[other_g],
        "guidance's vectors of the quadrants": seen_g4d - seen_g4d.mean(axis=(0, 1)),
    }
    right = {
        name: np.array([nearest(x, own) == np.arange(4) for x, own in zip(x_g4d, own_g4d, strict=True)])
        for name, x_g4d in represented.items()
    }
    # Of the mosaics, whose four words were chosen together.
    means = {name: right_g4.mean(axis=1) for name, right_g4 in right.items()}
    return {
        "mosaics": len(groups_g4),
        "chance": 0.25,
        "accuracy": {name: float(mean_g.mean()) for name, mean_g in means.items()},
        "interval": {
            name: 1.96 * float(mean_g.std(ddof=1) / np.sqrt(len(mean_g))) for name, mean_g in means.items()
        },
    }


def draw_groups(names_n: Sequence[str], seed: int) -> Int[np.ndarray, "g 4"]:
    """Places of four photographs with four different names for each mosaic, none of them twice; at most `MOST`."""
    left = np.random.default_rng((seed, 4)).permutation(len(names_n)).tolist()
    groups: list[list[int]] = []
    while len(groups) < MOST:
        group: dict[str, int] = {}
        for place in left:
            group.setdefault(names_n[place], place)
            if len(group) == 4:
                break
        if len(group) < 4:
            break
        groups.append(list(group.values()))
        left = [place for place in left if place not in groups[-1]]
    return np.array(groups, int).reshape(-1, 4)


def mosaic(squares: Sequence[UInt8[np.ndarray, "_s _s 3"]]) -> UInt8[np.ndarray, "s s 3"]:
    """Four squares as the quadrants of one, row by row; larger ones are reduced to the smallest."""
    side = min(len(one) for one in squares)
    quadrants = [to_array(one, side) for one in squares]
    return np.concatenate([np.concatenate(quadrants[row : row + 2], axis=1) for row in (0, 2)])
