"""Measures of a set of images against another: FID, Inception Score, and the Frechet distance in other features.

The sets are the images and, for each prefix of the pyramid, their reconstructions. Frames of clips count as
images.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, UInt8

from spae.guidance import efficientnet
from spae.guidance.resize import resize_square
from spae.images import to_float
from spae.metrics import inception
from spae.metrics.frechet import Moments, frechet_distance
from spae.metrics.inception_score import SPLITS, InceptionScore
from spae.progress import counted

# A batch of uint8 images to features, and logits if the Inception Score is taken of them.
Embed = Callable[
    [UInt8[np.ndarray, "b h w 3"]], tuple[Float[np.ndarray, "b d"], Float[np.ndarray, "b c"] | None]
]

# The features are of these widths.
_WIDTHS = {"fid": inception.WIDTH, "frechet_lite0": efficientnet.HEAD_WIDTH}


class SetMeasures:
    """Statistics that grow batch by batch; no image and no feature is kept.

    Args:
        count: images (frames) there will be.
        prefixes: sets of reconstructions.
        inception_file: of `spae.metrics.inception.load`, if the weights are there.
        with_frechet: the distance in the features of EfficientNet-Lite0, whose weights are in a package.

    Attributes:
        missing: what is not measured, and why.

    Raises:
        InputError: weights are missing, damaged or another model's.
    """

    def __init__(self, count: int, prefixes: int, inception_file: str | None, with_frechet: bool) -> None:
        self.missing: dict[str, str] = {}
        networks: dict[str, Callable[[], Embed]] = {}
        if inception_file is None:
            reason = "needs --inception FILE with the weights of its network"
            self.missing |= {"fid": reason, "inception_score": reason}
        else:
            networks["fid"] = lambda: _inception(inception_file)
            if count < SPLITS:
                self.missing["inception_score"] = f"needs at least {SPLITS} images"
        if with_frechet:
            networks["frechet_lite0"] = _lite0
        else:
            self.missing["frechet_lite0"] = "left out by --skip frechet"
        if count < 2:
            self.missing |= dict.fromkeys(networks, "needs at least two images")
        self._networks = {name: make() for name, make in networks.items() if name not in self.missing}
        self._prefixes = prefixes
        sets = range(1 + prefixes)  # the images come first
        self._moments = {name: [Moments(_WIDTHS[name]) for _ in sets] for name in self._networks}
        scored = "fid" in self._networks and "inception_score" not in self.missing
        self._scores = [InceptionScore(count) for _ in sets] if scored else []

    def add(
        self,
        count: int,
        images: UInt8[np.ndarray, "b *t h w 3"],
        decoded: Sequence[UInt8[np.ndarray, "b *t h w 3"]],
    ) -> None:
        """A batch of images and its reconstruction from each prefix; the first `count` of each are no filler."""
        for number, batch in enumerate([images, *decoded]):
            frames_bhwc = batch.reshape(-1, *batch.shape[-3:])
            real = count * (len(frames_bhwc) // len(batch))
            for name, embed in self._networks.items():
                features_bd, logits_bc = embed(frames_bhwc)
                self._moments[name][number].add(features_bd[:real])
                if self._scores and logits_bc is not None:
                    self._scores[number].add(logits_bc[:real])

    def results(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The figures of the images themselves, and of each prefix's reconstructions against them."""
        scores: list[dict[str, Any]] = [
            dict(zip(("inception_score", "inception_score_deviation"), score.result(), strict=True))
            for score in self._scores
        ]
        originals = scores[0] if scores else {}
        prefixes = scores[1:] or [{} for _ in range(self._prefixes)]
        for name, (images, *decoded) in self._moments.items():
            for prefix, moments in zip(counted(prefixes, name, "prefix"), decoded, strict=True):
                prefix[name] = frechet_distance(images, moments)
        return originals, prefixes


def _inception(file: str) -> Embed:
    network = inception.load(file)

    @nnx.jit
    def run(network, images_bhwc):
        return network(images_bhwc)

    def embed(images_bhwc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with jax.default_matmul_precision("highest"):
            features, logits = run(network, jnp.asarray(images_bhwc))
        return np.asarray(features), np.asarray(logits)

    return embed


def _lite0() -> Embed:
    network, _ = efficientnet.packaged()

    @nnx.jit
    def run(network, images_bhwc):
        square = resize_square(to_float(images_bhwc), efficientnet.IMAGE_SIZE)
        return network.feature_map(square).mean(axis=(1, 2))

    def embed(images_bhwc: np.ndarray) -> tuple[np.ndarray, None]:
        with jax.default_matmul_precision("highest"):
            return np.asarray(run(network, images_bhwc)), None

    return embed
