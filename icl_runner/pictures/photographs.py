"""Which class of ImageNet does a picture show? The packaged EfficientNet-Lite0: the judge of generated photographs.

It was trained on photographs of these classes, and the shipped bundle's words of meaning are chosen by it as well.
"""

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, UInt8

from spae.class_names import imagenet_numbers
from spae.guidance import efficientnet
from spae.guidance.resize import resize_square
from spae.images import to_float

BEST = 5


class PhotographJudge:
    """Whether pictures show a class, among others; see `icl_runner.pictures.drawing.Judge`. Chance is one of
    `judged_among` of its setting, and five of them.

    Args:
        labels: WordNet ids of the classes that are told apart, of ImageNet's 1,000.
    """

    def __init__(self, labels: Collection[str]) -> None:
        numbers = imagenet_numbers()
        self._numbers = {label: numbers[label] for label in sorted(set(labels))}
        self.setting = {"judged_among": len(self._numbers)}

    def prepare(self) -> None:
        """
        Raises:
            InputError: the package with the weights is not installed.
        """
        self._graph, self._state = nnx.split(efficientnet.packaged()[0])

    def __call__(self, images: UInt8[np.ndarray, "n h w 3"], label: str) -> dict[str, Bool[np.ndarray, " n"]]:
        """ "class": the class is the likeliest of all for the picture; "five": one of the five likeliest, of more."""
        logits_nc = np.asarray(_logits(self._graph, self._state, to_float(images)))
        wanted_n1 = logits_nc[:, [self._numbers[label]]]
        likelier_n = (logits_nc[:, list(self._numbers.values())] > wanted_n1).sum(axis=1)
        found = {"class": likelier_n == 0}
        return found | ({"five": likelier_n < BEST} if len(self._numbers) > BEST else {})


@jax.jit(static_argnums=0)
def _logits(
    graph: nnx.GraphDef, state: nnx.State, images_nhwc: Float[jax.Array, "n h w 3"]
) -> Float[jax.Array, "n 1000"]:
    return nnx.merge(graph, state)(resize_square(jnp.asarray(images_nhwc), efficientnet.IMAGE_SIZE))
