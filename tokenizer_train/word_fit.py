"""How well the words of a pyramid fit the image, by a guidance, and what they say of its class without one."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int, UInt8

from spae.guidance.cache import cached_word_features
from spae.guidance.protocol import Guidance
from spae.guidance.scores import percentile, scores, word_means
from spae.images import to_float
from spae.pyramid import Pyramid
from spae.vocabulary import Vocabulary
from tokenizer_train.batches import mapped
from tokenizer_train.few_shot import mean_of_words, nearest_centroid

UPPER_LAYERS = (2, 3)  # whose words are checked: 5 and 21 words of the default pyramid
ORACLE_WORDS = 5
ORACLE_BATCH = 256
SCORE_BATCH = 8  # images; the sorted scores of the whole vocabulary are held for each


class WordFit:
    """The figures that need to know what words and images mean, by a guidance, whatever the bundle was trained by.

    Args:
        guidance: it need not be the bundle's own. ConSE's classifier has seen the ImageNet classes and may be
            the bundle's trunk: its scores then say only how well the words follow the guidance.
        vocabulary: whose words are scored.
        images: those that were encoded; of clips the mean vector of the frames counts.
        batch_size: images (or clips) at once.
    """

    def __init__(
        self,
        guidance: Guidance,
        vocabulary: Vocabulary,
        images: UInt8[np.ndarray, "n *t H W 3"],
        batch_size: int,
    ) -> None:
        self.guidance = guidance
        self.words_vf = cached_word_features(guidance, vocabulary.words)

        def embed(images: UInt8[np.ndarray, "b *t H W 3"]) -> Float32[np.ndarray, "b f"]:
            frames_bhwc = images.reshape(-1, *images.shape[-3:])
            vectors = np.asarray(guidance.images(to_float(frames_bhwc)))
            return vectors.reshape(len(images), -1, guidance.width).mean(axis=1)

        self.images_nf = mapped(embed, [images], batch_size, f"{guidance.name} images")
        self.means_v = word_means(self.images_nf, self.words_vf)

    def add_scores(
        self, pyramids: list[Pyramid], prefixes: list[dict[str, Any]], layers: list[dict[str, Any]]
    ) -> None:
        """Add to layers and prefixes the mean score of their words, raw and relative.

        Raw, s'(I, k): the inner product of the image's vector with the mean of the word's vectors over the
        templates. Relative, s(I, k): scaled to [0, 1] over the vocabulary, for each image. Both as the paper
        defines them for its guidance; that its tables take the mean over all words of a prefix is our reading.
        """

        @jax.jit
        def fit(images_bf, ids_bn, words_vf):
            raw_bv = jnp.matmul(images_bf, words_vf.T, precision=jax.lax.Precision.HIGHEST)
            both = (jnp.take_along_axis(x, ids_bn, axis=1) for x in (raw_bv, scores(images_bf, words_vf)))
            return jnp.stack([x.mean(axis=1) for x in both], axis=1)

        names = (f"{self.guidance.name}_score", f"{self.guidance.name}_relative")
        self._add(names, fit, [self.words_vf], pyramids, prefixes, layers)

    def add_percentiles(
        self, pyramids: list[Pyramid], prefixes: list[dict[str, Any]], layers: list[dict[str, Any]]
    ) -> None:
        """Add to layers and prefixes the mean percentile of their words among all words; 0.5 is chance.

        Also with each word's mean score over these images subtracted ("corrected"): a word that is near
        everything ranks high for every image without saying anything of it.
        """

        @jax.jit
        def ranks(images_bf, ids_bn, words_vf, means_v):
            plain_bv, corrected_bv = scores(images_bf, words_vf), scores(images_bf, words_vf, means_v)
            return jnp.stack([percentile(plain_bv, ids_bn), percentile(corrected_bv, ids_bn)], axis=1)

        names = ("percentile", "percentile_corrected")
        self._add(names, ranks, [self.words_vf, self.means_v], pyramids, prefixes, layers)

    def _add(
        self,
        names: Sequence[str],
        function: Callable[..., Any],
        constants: Sequence[np.ndarray],
        pyramids: list[Pyramid],
        prefixes: list[dict[str, Any]],
        layers: list[dict[str, Any]],
    ) -> None:
        """Means of each layer's words by `function`, and from them those of each prefix's."""
        on_device = [jnp.asarray(constant) for constant in constants]
        for layer in layers:
            values_n2 = mapped(
                lambda images_bf, ids_bn: function(images_bf, ids_bn, *on_device),
                [self.images_nf, ids_of(pyramids, layer["layer"])],
                SCORE_BATCH,
                f"{names[0]} of layer {layer['layer']}",
            )
            layer.update(zip(names, values_n2.mean(axis=0, dtype=float).tolist(), strict=True))
        for prefix in prefixes:
            upper = layers[: prefix["layers"]]
            for name in names:
                total = sum(layer[name] * layer["words_per_image"] for layer in upper)
                prefix[name] = total / prefix["words"]

    def few_shot(
        self,
        pyramids: list[Pyramid],
        images: UInt8[np.ndarray, "n *t H W 3"],
        episodes: Sequence[Int[np.ndarray, "e w i"]],
        seed: int,
    ) -> list[dict[str, Any]]:
        """Accuracies on the words, and of the controls that bound them, over the same episodes.

        Controls: chance; raw pixels; the words of another image; the guidance's own best words, plain and
        with each word's mean over these images subtracted; the guidance's vector of the image itself.
        """
        represented = {}
        for n in UPPER_LAYERS:
            if n <= pyramids[0].layers:
                ids_nk = np.concatenate([ids_of(pyramids, layer) for layer in range(1, n + 1)], axis=1)
                represented[f"{ids_nk.shape[1]} words"] = mean_of_words(self.words_vf, ids_nk)
        shuffled = np.random.default_rng(seed).permutation(len(images))
        for name, words_nf in list(represented.items()):
            represented[f"{name} of another image"] = words_nf[shuffled]
        pixels_np = images.reshape(len(images), -1).astype(np.float32)
        represented["raw pixels, centred"] = pixels_np - pixels_np.mean(axis=0)
        for name, means_v in (("", 0 * self.means_v), (", hub-corrected", self.means_v)):
            represented[f"{ORACLE_WORDS} best-scored words{name}"] = mean_of_words(
                self.words_vf, self._best_words(means_v)
            )
        represented[f"{self.guidance.name} vector of the image"] = self.images_nf

        results: list[dict[str, Any]] = []
        for episodes_ewi in episodes:
            accuracies = {name: nearest_centroid(x_nd, episodes_ewi) for name, x_nd in represented.items()}
            count, ways, drawn = episodes_ewi.shape
            results.append(
                {
                    "ways": ways,
                    "shots": drawn - 1,
                    "episodes": count,
                    "chance": 1 / ways,
                    "accuracy": {name: accuracy.mean for name, accuracy in accuracies.items()},
                    "interval": {name: accuracy.interval for name, accuracy in accuracies.items()},
                }
            )
        return results

    def _best_words(self, means_v: Float32[np.ndarray, " v"]) -> Int[np.ndarray, "n k"]:
        """The words that the scores alone would choose for each image."""

        def best(images_bf: Float32[np.ndarray, "b f"]) -> Int[np.ndarray, "b k"]:
            distance_bv = means_v - images_bf @ self.words_vf.T
            return np.argpartition(distance_bv, ORACLE_WORDS, axis=1)[:, :ORACLE_WORDS]

        return mapped(best, [self.images_nf], ORACLE_BATCH, "best-scored words")


def ids_of(pyramids: list[Pyramid], layer: int) -> Int[np.ndarray, "n k"]:
    """The ids of one layer, numbered from 1, a row for each pyramid."""
    return np.stack([pyramid.ids[layer - 1].ravel() for pyramid in pyramids])
