"""What the first words of an image say about its class, without a language model: nearest centroid.

An episode draws `ways` classes, `shots` support images and one query image of each, represents every image
by one vector, and gives each query the class whose mean support vector is nearest (cosine). No training, no
model that could know the classes; the vectors of the words carry all there is.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Shaped

from spae.errors import InputError


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Mean over episodes and the half width of its 95 % interval (normal approximation over episodes)."""

    mean: float
    interval: float
    ways: int
    shots: int
    episodes: int


def draw_episodes(
    labels_n: Int[np.ndarray, " n"], ways: int, shots: int, episodes: int, seed: int
) -> Int[np.ndarray, "episodes ways shots+1"]:
    """Indices of the images of each episode; the last of each class is the query, never among its support.

    Raises:
        InputError: fewer than `ways` classes have `shots` + 1 images.
    """
    classes, counts = np.unique(labels_n, return_counts=True)
    members = [np.flatnonzero(labels_n == c) for c in classes[counts > shots]]
    if len(members) < ways:
        raise InputError(
            f"{ways}-way {shots}-shot episodes need {ways} classes of at least {shots + 1} images, "
            f"got {len(members)}"
        )
    generator = np.random.default_rng((seed, ways, shots))
    drawn = np.empty((episodes, ways, shots + 1), np.int64)
    for episode in drawn:
        for way, chosen in enumerate(generator.choice(len(members), ways, replace=False)):
            episode[way] = generator.choice(members[chosen], shots + 1, replace=False)
    return drawn


def nearest_centroid(
    features_nd: Shaped[np.ndarray, "n d"],
    episodes_ewi: Int[np.ndarray, "e w i"],
    origin_d: Float[np.ndarray, " d"] | float = 0.0,
) -> Accuracy:
    """Accuracy of the queries over the given episodes.

    Args:
        features_nd: One vector per image, of any length; directions, seen from `origin_d`, are compared. A tie between
            centroids (as between images of the same words) counts the share of the right answer among the tied.
        episodes_ewi: Of `draw_episodes`.
    """
    correct = np.empty(len(episodes_ewi))
    for e, episode_wi in enumerate(episodes_ewi):
        # Here and not for all at once: of pixels, as float64, that would be eight times the images.
        unit_wid = _unit(features_nd[episode_wi] - origin_d)
        centroids_wd = _unit(unit_wid[:, :-1].mean(axis=1))
        similarity_ww = unit_wid[:, -1] @ centroids_wd.T
        best_ww = similarity_ww >= similarity_ww.max(axis=1, keepdims=True) - 1e-6
        correct[e] = (best_ww.diagonal() / best_ww.sum(axis=1)).mean()
    interval = 1.96 * correct.std(ddof=1) / np.sqrt(len(correct)) if len(correct) > 1 else float("nan")
    _, ways, images = episodes_ewi.shape
    return Accuracy(
        mean=float(correct.mean()),
        interval=float(interval),
        ways=ways,
        shots=images - 1,
        episodes=len(correct),
    )


def mean_of_words(
    words_vd: Float[np.ndarray, "v d"], ids_nk: Int[np.ndarray, "n k"]
) -> Float[np.ndarray, "n d"]:
    """The mean text vector of each image's first k words: what an image is in the episodes."""
    return np.stack([words_vd[ids_k].mean(axis=0) for ids_k in ids_nk])


def _unit(x: Float[np.ndarray, "... d"]) -> Float[np.ndarray, "... d"]:
    x = x.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
