"""Whether the first words of an image name it: of all classes, is the name nearest to them its own?

Words and names are seen from their means: words that are near everything say nothing. A class's name is put into the
guidance's prompts, as each word is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

WORDS = 5  # of each image: the upper two layers of the default pyramid
MOST_NAMES = 250  # drawn by the seed where there are more, so that data sets compare


class Names:
    """The names of labelled images, and their vectors.

    Attributes:
        names: each once, in alphabetical order.
        own_n: of every image the place of its name in `names`.
        vectors_md: of the names, seen from their mean.

    Args:
        names_n: of every image.
        vectors: name -> the guidance's vector.
    """

    def __init__(self, names_n: Sequence[str], vectors: Mapping[str, Float32[np.ndarray, " d"]]) -> None:
        self.names, self.own_n = np.unique(np.asarray(names_n), return_inverse=True)
        self.vectors_md = centred(np.stack([vectors[name] for name in self.names.tolist()]))


def naming(
    names_n: Sequence[str],
    vectors: Mapping[str, Float32[np.ndarray, " d"]],
    words_nd: Float[np.ndarray, "n d"],
    images_nd: Float[np.ndarray, "n d"],
    seed: int,
) -> dict[str, Any]:
    """The shares of images whose own name is the nearest (cosine) of all names, by what stands for an image.

    Controls: chance; the words of another image; the guidance's own vector of the image, as a ceiling.

    Args:
        names_n: the name of every image's class; two different ones at least.
        vectors: name -> the guidance's vector.
        words_nd: of every image the sum of its first `WORDS` words' vectors, each seen from the mean word.
        images_nd: the guidance's vectors of the images; they too are seen from their mean.
        seed: of the control and, where there are more than `MOST_NAMES` names, of those that are drawn; images of
            other classes are then left out.
    """
    all_names = sorted(set(names_n))
    generator = np.random.default_rng((seed, MOST_NAMES))
    drawn = all_names
    if len(all_names) > MOST_NAMES:
        drawn = [all_names[i] for i in generator.choice(len(all_names), MOST_NAMES, replace=False)]
    rows_n = np.flatnonzero(np.isin(names_n, drawn))
    names = Names([names_n[row] for row in rows_n.tolist()], vectors)
    represented = {
        f"{WORDS} words": words_nd[rows_n],
        f"{WORDS} words of another image": words_nd[rows_n][another(len(rows_n), generator)],
        "guidance's vector of the image": centred(images_nd)[rows_n],
    }
    right = {name: nearest(x_nd, names.vectors_md) == names.own_n for name, x_nd in represented.items()}
    return {
        "images": len(rows_n),
        "names": len(names.names),
        "chance": 1 / len(names.names),
        "accuracy": {name: float(right_n.mean()) for name, right_n in right.items()},
        "interval": {name: half_width(right_n) for name, right_n in right.items()},
    }


def half_width(right_n: Bool[np.ndarray, " n"]) -> float:
    """Of the 95 % interval of a share, as if two more were right and two more wrong (Agresti and Coull, 1998): not zero
    where none or all are right."""
    count = len(right_n) + 4
    share = (right_n.sum() + 2) / count
    return 1.96 * float(np.sqrt(share * (1 - share) / count))


def centred(x_nd: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows seen from their mean."""
    return x_nd - x_nd.mean(axis=0)


def nearest(x_nd: Float[np.ndarray, "n d"], names_md: Float[np.ndarray, "m d"]) -> Int[np.ndarray, " n"]:
    """Of every row the place of the name with the largest cosine."""
    lengths_m = np.maximum(np.linalg.norm(names_md, axis=1), 1e-12)
    return np.argmax(x_nd @ (names_md / lengths_m[:, None]).T, axis=1)


def another(count: int, generator: np.random.Generator) -> Int[np.ndarray, " n"]:
    """For each of `count` (two at least) the place of another one, each once."""
    order_n = generator.permutation(count)
    others_n = np.empty(count, int)
    others_n[order_n] = np.roll(order_n, 1)
    return others_n
