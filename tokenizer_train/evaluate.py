"""`spae-train eval`: what a bundle does on images, in figures. Knows bundles and sources, not training.

Per prefix of the pyramid: reconstruction, bits, and codecs at those bits. Per layer: use of the vocabulary,
and how well the words fit the image by the guidance. Over the upper words: the few-shot check with its
controls. Means are over images; every draw follows the seed.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from jaxtyping import Float, Float32, Int, Shaped, UInt8
from tqdm import tqdm

import spae
from spae.errors import InputError
from spae.feature_distance import SMALLEST_SIDE
from spae.files import write_file
from spae.guidance.cache import cached_word_features
from spae.guidance.conse import Conse
from spae.guidance.scores import percentile, scores, word_means
from spae.images import to_array, to_float
from spae.metrics import Stlpips, codebook_usage, psnr, ssim
from spae.pyramid import Pyramid
from spae.sources import Source, open_source
from spae.tokenizer import Tokenizer
from tokenizer_train.few_shot import draw_episodes, mean_of_words, nearest_centroid
from tokenizer_train.rates import FORMATS, best_within
from tokenizer_train.tables import markdown

SETTINGS = ((2, 1), (5, 1), (5, 5))  # ways, shots of the few-shot check
UPPER_LAYERS = (2, 3)  # whose words are checked: 5 and 21 words of the default pyramid
ORACLE_WORDS = 5
ORACLE_BATCH = 256
PERCENTILE_BATCH = 8  # images; the sorted scores of the whole vocabulary are held for each

# Two batches of uint8 images to one value per pair.
Measure = Callable[[np.ndarray, np.ndarray], Float[np.ndarray, " b"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measure a bundle on images it was not trained on."""

    bundle: tyro.conf.Positional[str]  # name of a shipped bundle, or a folder
    data: tyro.conf.Positional[str]  # folder of images, tar shards (path or glob), parquet or TFDS folder
    split: str | None = None  # of a TFDS directory: "train" if not given
    limit: int | None = None  # images, drawn without replacement; all of them if not given
    codec_images: int = 300  # of them, for JPEG and WebP: 101 quality settings each
    episodes: int = 2_000  # of each few-shot setting
    batch_size: int = 32  # images at once
    seed: int = 0  # of the drawn images and episodes
    # Parts to leave out, such as those whose weight packages are not installed.
    skip: tuple[Literal["stlpips", "guidance", "few-shot", "codecs"], ...] = ()
    json: bool = False  # print JSON instead of Markdown tables
    output: str | None = None  # file that gets the JSON as well

    def __post_init__(self) -> None:
        for name in ("codec_images", "episodes", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit must be at least 1, got {self.limit}")


def run(options: Options) -> None:
    """The command: measure and print."""
    started = time.monotonic()
    tokenizer = spae.load(options.bundle)
    result = {
        "bundle": options.bundle,
        "data": Path(options.data).name,
        **evaluate(tokenizer, open_source(options.data, tokenizer.image_size, options.split), options),
        "device": jax.devices()[0].device_kind,
        "seconds": round(time.monotonic() - started, 1),
    }
    text = json.dumps(result, indent=1)
    print(text if options.json else markdown(result))
    if options.output is not None:
        write_file(options.output, (text + "\n").encode())


def evaluate(tokenizer: Tokenizer, source: Source, options: Options) -> dict[str, Any]:
    """All figures of a tokenizer on a source, as JSON-able data.

    Raises:
        InputError: The source is empty, or a part needs a weight package that is not installed.
    """
    indices = _drawn(source, options)
    every = source.labels
    labels = [every[int(i)] for i in indices]
    labelled = all(label is not None for label in labels)
    guided_parts = "guidance" not in options.skip
    episodes = []
    if labelled and guided_parts and "few-shot" not in options.skip:
        # Drawn first: too few labelled images should not show after minutes of work.
        numbers_n = np.unique([str(label) for label in labels], return_inverse=True)[1]
        episodes = [
            draw_episodes(numbers_n, *setting, options.episodes, options.seed) for setting in SETTINGS
        ]

    images = np.stack([to_array(source[int(i)].image, tokenizer.image_size) for i in indices])
    pyramids, prefixes = reconstruction(tokenizer, images, options)
    layers = usage(tokenizer, pyramids)
    bits = math.log2(len(tokenizer.vocabulary))
    for prefix in prefixes:
        prefix["bits"] = round(prefix["words"] * bits, 1)
    if "codecs" not in options.skip:
        for prefix, coded in zip(prefixes, codecs(images, prefixes, options), strict=True):
            prefix.update(coded)
    result: dict[str, Any] = {
        "images": len(images),
        "vocabulary": len(tokenizer.vocabulary),
        "prefixes": prefixes,
        "layers": layers,
    }
    if guided_parts:
        guided = Guided(tokenizer, images, options)
        result["guidance"] = guided.guidance.name
        guided.percentiles(pyramids, prefixes, layers)
        if episodes:
            result["few_shot"] = guided.few_shot(pyramids, images, episodes, options)
        elif not labelled:
            result["few_shot"] = "not measured: not every image has a label"
    return result


def _drawn(source: Source, options: Options) -> Int[np.ndarray, " n"]:
    if len(source) == 0:
        raise InputError(f"{options.data!r} holds no image; wanted at least one to measure on")
    order = np.random.default_rng(options.seed).permutation(len(source))
    return order[: options.limit]


def reconstruction(
    tokenizer: Tokenizer, images: UInt8[np.ndarray, "n H W 3"], options: Options
) -> tuple[list[Pyramid], list[dict[str, Any]]]:
    """The pyramids of all images, and per prefix PSNR (dB), SSIM and STLPIPS against the images."""
    measures = _measures(tokenizer.image_size, options)
    depth = len(tokenizer.shape)
    pyramids: list[Pyramid] = []

    def measure(originals: UInt8[np.ndarray, "b H W 3"]) -> Float[np.ndarray, "b prefixes measures"]:
        words = tokenizer.encode(originals)
        pyramids.extend(words)
        decoded = [tokenizer.decode(words, layers=n) for n in range(1, depth + 1)]
        return np.stack(
            [np.stack([f(originals, x) for f in measures.values()], axis=1) for x in decoded], axis=1
        )

    values = _mapped(measure, [images], options.batch_size, "reconstruction").mean(axis=0, dtype=float)
    prefixes = [
        {"layers": n, "words": tokenizer.shape.tokens(n)}
        | dict(zip(measures, values[n - 1].tolist(), strict=True))
        for n in range(1, depth + 1)
    ]
    return pyramids[: len(images)], prefixes


def _measures(image_size: int, options: Options) -> dict[str, Measure]:
    measures: dict[str, Measure] = {"psnr": psnr, "ssim": ssim}
    if "stlpips" not in options.skip and image_size >= SMALLEST_SIDE:
        network = nnx.jit(Stlpips("vgg"))
        measures["stlpips"] = lambda a, b: np.asarray(
            network(jnp.asarray(to_float(a)), jnp.asarray(to_float(b)))
        )
    return measures


def usage(tokenizer: Tokenizer, pyramids: list[Pyramid]) -> list[dict[str, Any]]:
    """Per layer: distinct words, their share of the vocabulary, and the perplexity of their use."""
    words = [_ids(pyramids, n) for n in range(1, len(tokenizer.shape) + 1)]
    return [
        {
            "layer": n,
            "words_per_image": ids_nk.shape[1],
            "distinct": used.used,
            "usage": used.used / len(tokenizer.vocabulary),
            "perplexity": used.perplexity,
        }
        for n, (ids_nk, used) in enumerate(
            zip(words, codebook_usage(words, len(tokenizer.vocabulary)), strict=True), start=1
        )
    ]


def codecs(
    images: UInt8[np.ndarray, "n H W 3"], prefixes: list[dict[str, Any]], options: Options
) -> list[dict[str, Any]]:
    """Per prefix: JPEG and WebP in no more bits than its words, over the first `codec_images` images.

    `fits` is the share of images with such a file. The others count with their smallest file, which is larger
    than allowed and so in the codec's favour; below a half that fit, the figures are None.
    """
    some = images[: options.codec_images]
    measures = _measures(images.shape[1], options)
    result: list[dict[str, Any]] = [{} for _ in prefixes]
    for format in FORMATS:
        coded = [
            best_within(image, [prefix["bits"] for prefix in prefixes], format)
            for image in tqdm(some, desc=format, unit="image", disable=None, leave=False)
        ]
        for n, entry in enumerate(result):
            fits = float(np.mean([per_prefix[n].fits for per_prefix in coded]))
            decoded = np.stack([per_prefix[n].image for per_prefix in coded])
            entry[format.lower()] = {"images": len(some), "fits": fits} | {
                name: float(_mapped(measure, [some, decoded], options.batch_size, format).mean(dtype=float))
                if fits >= 0.5
                else None
                for name, measure in measures.items()
            }
    return result


class Guided:
    """The figures that need to know what words and images mean, by ConSE, whatever the bundle was trained by.

    ConSE's classifier has seen the ImageNet classes and may be the bundle's own trunk: the percentile then
    says only how well the words follow the guidance; the few-shot check is on the labels.
    """

    def __init__(self, tokenizer: Tokenizer, images: UInt8[np.ndarray, "n H W 3"], options: Options) -> None:
        self.guidance = Conse()
        self.words_vf = cached_word_features(self.guidance, tokenizer.vocabulary.words)
        embed = lambda images_bhwc: self.guidance.images(to_float(images_bhwc))  # noqa: E731
        self.images_nf = _mapped(embed, [images], options.batch_size, f"{self.guidance.name} images")
        self.means_v = word_means(self.images_nf, self.words_vf)

    def percentiles(
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

        for layer in layers:
            ids_nk = _ids(pyramids, layer["layer"])
            values_n2 = _mapped(
                lambda images_bf, ids_bn: ranks(images_bf, ids_bn, self.words_vf, self.means_v),
                [self.images_nf, ids_nk],
                PERCENTILE_BATCH,
                f"percentiles of layer {layer['layer']}",
            )
            layer["percentile"], layer["percentile_corrected"] = values_n2.mean(axis=0, dtype=float).tolist()
        for prefix in prefixes:
            upper = layers[: prefix["layers"]]
            for name in ("percentile", "percentile_corrected"):
                total = sum(layer[name] * layer["words_per_image"] for layer in upper)
                prefix[name] = total / prefix["words"]

    def few_shot(
        self,
        pyramids: list[Pyramid],
        images: UInt8[np.ndarray, "n H W 3"],
        episodes: Sequence[Int[np.ndarray, "e w i"]],
        options: Options,
    ) -> list[dict[str, Any]]:
        """Accuracies on the words, and of the controls that bound them, over the same episodes.

        Controls: chance; raw pixels; the words of another image; the guidance's own best words, plain and
        with each word's mean over these images subtracted; the guidance's vector of the image itself.
        """
        represented = {}
        for n in UPPER_LAYERS:
            if n <= pyramids[0].layers:
                ids_nk = np.concatenate([_ids(pyramids, layer) for layer in range(1, n + 1)], axis=1)
                represented[f"{ids_nk.shape[1]} words"] = mean_of_words(self.words_vf, ids_nk)
        shuffled = np.random.default_rng(options.seed).permutation(len(images))
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
        for (ways, shots), episodes_ewi in zip(SETTINGS, episodes, strict=True):
            accuracies = {name: nearest_centroid(x_nd, episodes_ewi) for name, x_nd in represented.items()}
            results.append(
                {
                    "ways": ways,
                    "shots": shots,
                    "episodes": options.episodes,
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

        return _mapped(best, [self.images_nf], ORACLE_BATCH, "best-scored words")


def _ids(pyramids: list[Pyramid], layer: int) -> Int[np.ndarray, "n k"]:
    return np.stack([pyramid.ids[layer - 1].ravel() for pyramid in pyramids])


def _mapped(
    function: Callable[..., Any], arrays: Sequence[np.ndarray], size: int, what: str
) -> Shaped[np.ndarray, "n ..."]:
    """`function` over the arrays' rows, `size` at a time; the last batch is filled up, and cut again.

    So nothing is compiled for a rest, and no filler counts.
    """
    results = []
    starts = range(0, len(arrays[0]), size)
    for start in tqdm(starts, desc=what, unit="batch", disable=None, leave=False):
        parts = [array[start : start + size] for array in arrays]
        filled = [np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)]) for part in parts]
        results.append(np.asarray(function(*filled))[: len(parts[0])])
    return np.concatenate(results)
