"""How well the words of a pyramid fit the image, by a guidance, and what they say of its class without one."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int, UInt8

from spae.guidance.cache import cached_word_features
from spae.guidance.protocol import Guidance
from spae.guidance.scores import percentile, scores, word_means
from spae.images import to_float
from spae.progress import Progress
from spae.vocabulary import Vocabulary
from tokenizer_train.evaluation.batches import by_side, mapped
from tokenizer_train.evaluation.few_shot import mean_of_words, nearest_centroid

ORACLE_WORDS = 5
ORACLE_BATCH = 256
SCORE_BATCH = 8  # images; the sorted scores of the whole vocabulary are held for each


class WordFit:
    """The figures that need to know what words and images mean, by a guidance, whatever the bundle was trained by.

    Of the images only the guidance's vectors are kept, f numbers each.

    Attributes:
        words_vf, images_nf: the guidance's vectors of the vocabulary and of the images.

    Args:
        guidance: it need not be the bundle's own. ConSE's classifier has seen the ImageNet classes and may be
            the bundle's trunk: its scores then say only how well the words follow the guidance.
        vocabulary: whose words are scored.
        count: images there will be.
    """

    def __init__(self, guidance: Guidance, vocabulary: Vocabulary, count: int) -> None:
        self.guidance = guidance
        self.words_vf = cached_word_features(guidance, vocabulary.words)
        self.images_nf = np.empty((count, guidance.width), np.float32)

    def add(
        self, places_b: Int[np.ndarray, " b"], squares: Sequence[UInt8[np.ndarray, "*t _s _s 3"]]
    ) -> None:
        """Images as they are looked at, of several sizes (of clips the mean vector of the frames counts), by their
        places; what is beyond those is filler."""
        for rows, images in by_side(squares, len(squares)):
            vectors = np.asarray(self.guidance.images(to_float(images.reshape(-1, *images.shape[-3:]))))
            of_images_bf = vectors.reshape(len(images), -1, self.guidance.width).mean(axis=1)
            rows = rows[rows < len(places_b)]
            self.images_nf[places_b[rows]] = of_images_bf[: len(rows)]

    def add_figures(
        self,
        ids_nk: Int[np.ndarray, "n k"],
        prefixes: list[dict[str, Any]],
        layers: list[dict[str, Any]],
        percentiles: bool,
    ) -> None:
        """Add to layers and prefixes the means over images and words of how well their words fit the image.

        Percentiles, if wanted: a word's rank among all words; 0.5 is chance. Also with each word's mean score
        over these images subtracted ("corrected"): a word that is near everything ranks high for every image without
        saying anything of it.

        Scores, raw, s'(I, k): the inner product of the image's vector with the mean of the word's vectors over the
        templates. Relative, s(I, k): scaled to [0, 1] over the vocabulary, for each image. Both as the paper defines
        them for its guidance; that its tables take the mean over all words of a prefix is our reading.

        Args:
            ids_nk: the words of all layers, a row for each image.
        """
        ends = np.cumsum([layer["words_per_image"] for layer in layers])[:-1].tolist()
        names = [f"{self.guidance.name}_score", f"{self.guidance.name}_relative"]
        if percentiles:
            names = ["percentile", "percentile_corrected", *names]

        @jax.jit
        def fit(images_bf, ids_bk, words_vf, means_v):
            raw_bv = jnp.matmul(images_bf, words_vf.T, precision=jax.lax.Precision.HIGHEST)
            plain_bv = scores(images_bf, words_vf)
            figures = [jnp.take_along_axis(x_bv, ids_bk, axis=1) for x_bv in (raw_bv, plain_bv)]
            if percentiles:
                corrected_bv = scores(images_bf, words_vf, means_v)
                figures = [percentile(x_bv, ids_bk) for x_bv in (plain_bv, corrected_bv)] + figures
            by_layer = jnp.split(jnp.stack(figures, axis=-1), ends, axis=1)
            return jnp.stack([x_bkm.mean(axis=1) for x_bkm in by_layer], axis=1)

        on_device = [jnp.asarray(x) for x in (self.words_vf, self._means_v)]
        values_nlm = mapped(
            lambda images_bf, ids_bk: fit(images_bf, ids_bk, *on_device),
            [self.images_nf, ids_nk],
            SCORE_BATCH,
            f"{self.guidance.name} of words",
        )
        for layer, means_m in zip(layers, values_nlm.mean(axis=0, dtype=float), strict=True):
            layer.update(zip(names, means_m.tolist(), strict=True))
        for prefix in prefixes:
            upper = layers[: prefix["layers"]]
            for name in names:
                total = sum(layer[name] * layer["words_per_image"] for layer in upper)
                prefix[name] = total / prefix["words"]

    @cached_property
    def _means_v(self) -> Float32[np.ndarray, " v"]:
        return word_means(self.images_nf, self.words_vf)

    def few_shot(
        self,
        ids_nk: Int[np.ndarray, "n k"],
        words: Sequence[int],
        images: UInt8[np.ndarray, "m *t H W 3"],
        episodes: Sequence[Int[np.ndarray, "e w i"]],
        seed: int,
    ) -> list[dict[str, Any]]:
        """Accuracies on the words, and of the controls that bound them, over the same episodes of the first m images.

        Controls: chance; raw pixels; the words of another image; the guidance's own best words, plain and
        with each word's mean over all images subtracted; the guidance's vector of the image itself.

        Args:
            ids_nk: the words of all layers, a row for each image.
            words: an image is represented by its first so many, for each of these numbers.
            images: the first m, for the control by pixels.
            episodes: of `draw_episodes`, for each setting.
        """
        count = len(images)
        represented = {f"{k} words": mean_of_words(self.words_vf, ids_nk[:count, :k]) for k in words}
        shuffled = np.random.default_rng(seed).permutation(count)
        for name, words_nf in list(represented.items()):
            represented[f"{name} of another image"] = words_nf[shuffled]
        pixels = "raw pixels, centred"
        represented[pixels] = images.reshape(count, -1)
        for name, means_v in (("", 0 * self._means_v), (", hub-corrected", self._means_v)):
            best_nk = self._best_words(self.images_nf[:count], means_v)
            represented[f"{ORACLE_WORDS} best-scored words{name}"] = mean_of_words(self.words_vf, best_nk)
        represented[f"{self.guidance.name} vector of the image"] = self.images_nf[:count]
        origins = {pixels: represented[pixels].mean(axis=0)}

        results: list[dict[str, Any]] = []
        with Progress(len(episodes) * len(represented), "few-shot", "accuracy") as progress:
            for episodes_ewi in episodes:
                accuracies = {}
                for name, x_nd in represented.items():
                    accuracies[name] = nearest_centroid(x_nd, episodes_ewi, origins.get(name, 0.0))
                    progress.update()
                drawn, ways, of_class = episodes_ewi.shape
                results.append(
                    {
                        "ways": ways,
                        "shots": of_class - 1,
                        "episodes": drawn,
                        "images": count,
                        "chance": 1 / ways,
                        "accuracy": {name: accuracy.mean for name, accuracy in accuracies.items()},
                        "interval": {name: accuracy.interval for name, accuracy in accuracies.items()},
                    }
                )
        return results

    def _best_words(
        self, images_nf: Float32[np.ndarray, "n f"], means_v: Float32[np.ndarray, " v"]
    ) -> Int[np.ndarray, "n k"]:
        """The words that the scores alone would choose for each image."""

        def best(images_bf: Float32[np.ndarray, "b f"]) -> Int[np.ndarray, "b k"]:
            distance_bv = means_v - images_bf @ self.words_vf.T
            return np.argpartition(distance_bv, ORACLE_WORDS, axis=1)[:, :ORACLE_WORDS]

        return mapped(best, [images_nf], ORACLE_BATCH, "best-scored words")
