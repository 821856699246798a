"""What the images and the words of a run mean: the guidance's features of both."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from spae.files import open_path
from spae.guidance.cache import cached_word_features, compute_image_features, stored_image_features
from spae.guidance.choice import load_guidance
from spae.guidance.clip import Clip
from spae.guidance.clip_jax import ClipJax
from spae.guidance.conse import Conse
from spae.guidance.embedded import check_embedded
from spae.guidance.protocol import Guidance
from spae.guidance.scores import word_means
from spae.images import to_array
from spae.sources import Source
from spae.vocabulary import Vocabulary
from tokenizer_train.config import Config
from tokenizer_train.damage import Damage
from tokenizer_train.data import Rows
from tokenizer_train.mesh import is_main, wait_for_all

IMAGES_PER_DEVICE = 64  # in one call of the guidance


def load(config: Config) -> Conse | Clip | ClipJax | None:
    """The guidance of a run; None where neither the semantic loss nor a trunk looks at images.

    Raises:
        InputError: Its weights are not there; says how to get them.
    """
    return load_guidance(config.guidance) if looks_at_images(config) else None


def features(
    config: Config,
    guidance: Guidance | None,
    vocabulary: Vocabulary,
    sources: Sequence[tuple[Source, float]],
) -> tuple[list[Rows], Float32[np.ndarray, "v f"], Float32[np.ndarray, " v"]]:
    """Features of the training images of every source and of every word, and each word's mean score over the images.

    A film's features are those of its middle clip, the mean over its frames, wherever training reads it. The mean of
    scores is over the sources by their weights, as training sees them; zeros without hub correction. Without a
    guidance there are no features: f = 0.

    The processes of a run share the work; all must call this together and see the same folder.

    Raises:
        InputError: Words are to be ranked by another guidance than the one they were embedded with; an image cannot
            be read; the processes do not see the same folder.
    """
    no_means_v = np.zeros(len(vocabulary), np.float32)
    if guidance is None:
        nothing: list[Rows] = [np.zeros((len(source), 0), np.float32) for source, _ in sources]
        return nothing, np.zeros((len(vocabulary), 0), np.float32), no_means_v
    if config.tokenizer.meaning == "ranked":
        check_embedded(vocabulary, guidance)
    if config.tokenizer.trunk != "none" and config.tokenizer.frames == 1:
        # The tokenizer's trunk will see squares of this size and nothing finer, so it is trained on them; clips are
        # read as such squares.
        sources = [(Squares(source, config.tokenizer.image_size), weight) for source, weight in sources]
    damage = Damage(config.data.damaged)
    cache = config.data.cache or open_path(config.run.output) / "guidance"
    batch_size = IMAGES_PER_DEVICE * jax.local_device_count()
    for source, _ in sources:
        share = (jax.process_index(), jax.process_count())
        compute_image_features(guidance, source, cache, batch_size, share, damage.left_out)
    if is_main():
        cached_word_features(guidance, vocabulary.words, cache)
    wait_for_all("guidance")
    images = [stored_image_features(guidance, source, cache) for source, _ in sources]
    words_vf = cached_word_features(guidance, vocabulary.words, cache)
    if not config.loss.hub_correction:
        return list(images), words_vf, no_means_v
    mean_f = np.average([one.mean() for one in images], axis=0, weights=[weight for _, weight in sources])
    return list(images), words_vf, word_means(mean_f[None].astype(np.float32), words_vf)


def looks_at_images(config: Config) -> bool:
    """Whether the guidance's features of the images are used at all."""
    return config.loss.semantic > 0 or config.tokenizer.trunk != "none"


class Squares(Source):
    """A source whose images are the squares that a tokenizer of this image size sees."""

    def __init__(self, source: Source, image_size: int) -> None:
        super().__init__(source.files, image_size)
        self._source, self._image_size = source, image_size

    def __len__(self) -> int:
        return len(self._source)

    def _read(self, index: int) -> tuple[Any, str | None, str | None, str]:
        record = self._source[index]
        return to_array(record.image, self._image_size), record.label, record.caption, record.key

    def label(self, index: int) -> str | None:
        """That of the source."""
        return self._source.label(index)

    def key(self, index: int) -> str:
        """That of the source."""
        return self._source.key(index)

    @cached_property
    def fingerprint(self) -> str:
        """That of the source, and the size."""
        return f"{self._source.fingerprint} {self._image_size}"

    @cached_property
    def identity(self) -> str:
        """That of the source, and the size."""
        return f"{self._source.identity} {self._image_size}"
