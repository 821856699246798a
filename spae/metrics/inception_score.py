"""Inception Score from logits that come in batches.

Salimans et al., "Improved Techniques for Training GANs", arXiv 1606.03498: exp of the mean over images of
KL(p(y | x) || p(y)), mean and deviation over splits of the set.
"""

import numpy as np
from jaxtyping import Float

from spae.errors import InputError

SPLITS = 10
_SEED = 2020


class InceptionScore:
    """The score of a known number of images; the logits are not kept.

    Splits and their order are torch-fidelity's: the images are permuted by a fixed seed, then cut into ten.

    Args:
        count: how many images there will be.

    Raises:
        InputError: fewer images than splits.
    """

    def __init__(self, count: int) -> None:
        if count < SPLITS:
            raise InputError(f"wanted at least {SPLITS} images for an Inception Score, got {count}")
        # The old generator, because its permutation is the published tool's.
        order = np.random.RandomState(_SEED).permutation(count)
        self._split_n = np.empty(count, int)
        for split in range(SPLITS):
            self._split_n[order[split * count // SPLITS : (split + 1) * count // SPLITS]] = split
        self._seen = 0
        self._probability_sc: np.ndarray | None = None  # sums over the images of each split
        self._negative_entropy_s = np.zeros(SPLITS)

    def add(self, logits_bc: Float[np.ndarray, "b c"]) -> None:
        """The next images.

        Raises:
            InputError: more images than were announced, or a number that is not finite.
        """
        logits_bc = np.asarray(logits_bc, np.float64)
        end = self._seen + len(logits_bc)
        if end > len(self._split_n) or not np.isfinite(logits_bc).all():
            raise InputError(f"wanted finite logits of {len(self._split_n)} images in all, got image {end}")
        splits_b = self._split_n[self._seen : end]
        self._seen = end
        shifted_bc = logits_bc - logits_bc.max(axis=1, keepdims=True)
        log_bc = shifted_bc - np.log(np.exp(shifted_bc).sum(axis=1, keepdims=True))
        probability_bc = np.exp(log_bc)
        if self._probability_sc is None:
            self._probability_sc = np.zeros((SPLITS, logits_bc.shape[1]))
        np.add.at(self._probability_sc, splits_b, probability_bc)
        np.add.at(self._negative_entropy_s, splits_b, (probability_bc * log_bc).sum(axis=1))

    def result(self) -> tuple[float, float]:
        """Mean and standard deviation over the splits (denominator 10).

        Raises:
            InputError: images are missing.
        """
        if self._seen < len(self._split_n) or self._probability_sc is None:
            raise InputError(f"wanted logits of {len(self._split_n)} images, got {self._seen}")
        count_s = np.bincount(self._split_n, minlength=SPLITS)
        mean_sc = self._probability_sc / count_s[:, None]
        # 0 log 0 = 0: a class that underflowed in every image of a split.
        cross_s = (mean_sc * np.log(np.where(mean_sc > 0, mean_sc, 1.0))).sum(axis=1)
        scores_s = np.exp(self._negative_entropy_s / count_s - cross_s)
        return float(scores_s.mean()), float(scores_s.std())
