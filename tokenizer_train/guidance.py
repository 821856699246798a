"""What the images and the words of a run mean: the guidance's features of both."""

import hashlib
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32

from spae.files import open_path
from spae.guidance.cache import cached_word_features, compute_image_features, stored_image_features
from spae.guidance.choice import load_guidance
from spae.guidance.clip import Clip
from spae.guidance.clip_jax import ClipJax
from spae.guidance.conse import Conse
from spae.guidance.meaning_view import check_embedded
from spae.guidance.protocol import Guidance
from spae.guidance.scores import word_means
from spae.pursuit import Pursuit
from spae.sources import Source
from spae.vocabulary import Vocabulary
from spae.weights.parameters import flatten
from tokenizer_train.config import Config
from tokenizer_train.damage import Damage
from tokenizer_train.data import Rows
from tokenizer_train.processes.mesh import is_main, wait_for_all
from tokenizer_train.squares import Squares

IMAGES_PER_DEVICE = 64  # in one call of the guidance


class Chosen:
    """A guidance whose vector of an image is what pursuit chooses for it: ids as float32, exact below 2^24. So they are
    computed in shares, cached and handed out as any guidance's vectors are."""

    name = "meaning"

    def __init__(self, guidance: Conse | Clip | ClipJax, pursuit: Pursuit) -> None:
        self.image_size = guidance.image_size
        self.width = sum(side**2 for side in pursuit.sides)
        digest = hashlib.sha256(f"{guidance.fingerprint} {pursuit.sides} {pursuit.pools}".encode())
        for name, array in sorted(flatten(nnx.state(pursuit), "").items()):
            digest.update(f"{name} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        self.fingerprint = digest.hexdigest()
        graph, self._state = nnx.split((pursuit, guidance.tower))

        @jax.jit
        def choose(state, images_bhwc):
            pursuit, tower = nnx.merge(graph, state)
            return pursuit(tower, images_bhwc).astype(np.float32)

        self._choose = choose

    def images(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b k"]:
        """RGB images in [0, 1] -> the ids of their meaning layers' words."""
        return self._choose(self._state, images_bhwc)


def load(config: Config) -> Conse | Clip | ClipJax | None:
    """The guidance of a run; None where neither the semantic loss nor a trunk looks at images.

    Raises:
        InputError: its weights are not there; says how to get them.
    """
    return load_guidance(config.guidance) if looks_at_images(config) else None


def features(
    config: Config,
    guidance: Guidance | Chosen | None,
    vocabulary: Vocabulary,
    sources: Sequence[tuple[Source, float]],
) -> tuple[list[Rows], Float32[np.ndarray, "v f"], Float32[np.ndarray, " v"]]:
    """Features of the training images of every source and of every word, and each word's mean score over the images.

    A film's features are those of its middle clip, the mean over its frames, wherever training reads it. The mean of
    scores is over the sources by their weights, as training sees them; zeros without hub correction. Without a
    guidance there are no features: f = 0. Of `Chosen` an image's features are its words, and words have none.

    The processes of a run share the work; all must call this together and see the same folder.

    Raises:
        InputError: words are to be ranked by another guidance than the one they were embedded with; an image cannot
            be read; the processes do not see the same folder.
    """
    no_means_v = np.zeros(len(vocabulary), np.float32)
    if guidance is None or (
        isinstance(guidance, Chosen) and config.optimizer.steps == 0
    ):  # no image is drawn
        width = guidance.width if guidance is not None else 0
        nothing: list[Rows] = [np.zeros((len(source), width), np.float32) for source, _ in sources]
        return nothing, np.zeros((len(vocabulary), 0), np.float32), no_means_v
    if config.tokenizer.meaning == "ranked" and not isinstance(guidance, Chosen):
        check_embedded(vocabulary, guidance)
    if config.tokenizer.trunk != "none" and config.tokenizer.frames == 1:
        # What the tokenizer's trunk will see; clips are read as squares of the image size.
        size = config.tokenizer.image_size
        sources = [(Squares(source, size, guidance.image_size), weight) for source, weight in sources]
    damage = Damage(config.data.damaged)
    cache = config.data.cache or open_path(config.run.output) / "guidance"
    batch_size = IMAGES_PER_DEVICE * jax.local_device_count()
    for source, _ in sources:
        share = (jax.process_index(), jax.process_count())
        compute_image_features(guidance, source, cache, batch_size, share, damage.left_out)
    if isinstance(guidance, Chosen):
        wait_for_all("guidance")
        chosen = [stored_image_features(guidance, source, cache) for source, _ in sources]
        return list(chosen), np.zeros((len(vocabulary), 0), np.float32), no_means_v
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
