"""`spae-train eval`: what a bundle does on images, in figures. Knows bundles and sources, not training.

Per prefix of the pyramid: reconstruction, bits, and codecs at those bits. Per layer: use of the vocabulary,
and how well the words fit the image by the guidance. Over the upper words: the few-shot check with its
controls. Means are over images; every draw follows the seed. What is not measured is listed with the reason.
"""

import dataclasses
import hashlib
import json
import math
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from jaxtyping import Int, UInt8
from tqdm import tqdm

import spae
from spae import lpips
from spae.clips import Sampling, open_clips, to_clip, trained_sampling
from spae.errors import InputError
from spae.files import write_file
from spae.guidance.clip import Clip
from spae.guidance.conse import Conse
from spae.images import to_array
from spae.metrics import codebook_usage
from spae.pyramid import Pyramid
from spae.sources import Source, open_source
from spae.tokenizer import Tokenizer
from tokenizer_train.batches import batches, mapped
from tokenizer_train.few_shot import draw_episodes
from tokenizer_train.pair_measures import Measure, pair_measures
from tokenizer_train.rates import FORMATS, best_within
from tokenizer_train.set_measures import SetMeasures
from tokenizer_train.tables import comparison, markdown
from tokenizer_train.word_fit import WordFit, ids_of

SETTINGS = ((2, 1), (5, 1), (5, 5))  # ways, shots of the few-shot check


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measure a bundle on images it was not trained on."""

    bundle: tyro.conf.Positional[str]  # name of a shipped bundle, or a folder
    # Folder of images, tar shards (path or glob), parquet or TFDS folder; for a bundle of clips folder of films.
    data: tyro.conf.Positional[str]
    compare: tuple[str, ...] = ()  # further bundles, measured alike on the same images, and a table of all
    split: str | None = None  # of a TFDS directory: "train" if not given
    # Of clips: from one frame to the next, in frames of the film; frames a second instead, where the film has a clock.
    stride: int | None = None  # neither given: as the bundle was trained
    fps: float | None = None
    limit: int | None = None  # images (or clips), drawn without replacement; all of them if not given
    codec_images: int = 300  # of them, for JPEG and WebP: 101 quality settings each
    episodes: int = 2_000  # of each few-shot setting
    batch_size: int = 32  # images at once
    seed: int = 0  # of the drawn images and episodes
    lpips: str | None = None  # folder with torchvision's AlexNet or VGG16 and the heads of the package lpips
    inception: str | None = None  # file pt_inception-2015-12-05-6726825d.pth, for FID and Inception Score
    clip: str | None = None  # folder or safetensors file of a CLIP; the paper's is ViT-L/14
    # Parts to leave out, such as those whose weight packages are not installed.
    skip: tuple[Literal["stlpips", "frechet", "guidance", "few-shot", "codecs"], ...] = ()
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
    results = [measured(bundle, options) for bundle in (options.bundle, *options.compare)]
    shown = results if options.compare else results[0]
    text = json.dumps(_finite(shown), indent=1, allow_nan=False)
    tables = [markdown(result) for result in results] + ([comparison(results)] if options.compare else [])
    print(text if options.json else "\n\n".join(tables))
    if options.output is not None:
        write_file(options.output, (text + "\n").encode())


def _finite(value: Any) -> Any:
    """Infinity (PSNR of an image that came back exactly) and NaN as None, because JSON has neither."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def measured(bundle: str, options: Options) -> dict[str, Any]:
    """All figures of one bundle on `options.data`, and what they were measured with.

    Raises:
        InputError: The data holds no image, or a part needs weights that are not there.
        BundleError: The bundle is damaged or none.
    """
    started = time.monotonic()
    tokenizer = spae.load(bundle)
    return {
        "bundle": bundle,
        "data": Path(options.data).name,
        **evaluate(tokenizer, _opened(tokenizer, options), options),
        "weights": _weights(options),
        "device": jax.devices()[0].device_kind,
        "seconds": round(time.monotonic() - started, 1),
    }


def evaluate(tokenizer: Tokenizer, source: Source, options: Options) -> dict[str, Any]:
    """All figures of a tokenizer on a source, as JSON-able data.

    Raises:
        InputError: The source is empty, or a part needs weights that are not there.
    """
    indices = _drawn(source, options)
    every = source.labels
    labels = [every[int(i)] for i in indices]
    not_measured = _without_words(tokenizer, labels, options)
    episodes = []
    if "few_shot" not in not_measured:
        # Drawn first: too few labelled images should not show after minutes of work.
        numbers_n = np.unique([str(label) for label in labels], return_inverse=True)[1]
        episodes = [
            draw_episodes(numbers_n, *setting, options.episodes, options.seed) for setting in SETTINGS
        ]
    # So are networks loaded first.
    size = tokenizer.image_size
    pairs, missing = pair_measures(size, options.lpips, "stlpips" not in options.skip)
    frames = len(indices) * tokenizer.frames
    sets = SetMeasures(frames, len(tokenizer.shape), options.inception, "frechet" not in options.skip)
    not_measured = missing | sets.missing | not_measured
    conse = Conse() if "conse_score" not in not_measured else None
    clip = Clip(options.clip) if options.clip is not None and "clip_score" not in not_measured else None

    square = to_array if tokenizer.frames == 1 else partial(to_clip, frames=tokenizer.frames)
    images = np.stack([square(source[int(i)].image, size) for i in indices])
    pyramids, prefixes = reconstruction(tokenizer, images, pairs, sets, options.batch_size)
    layers = usage(tokenizer, pyramids)
    bits = math.log2(len(tokenizer.vocabulary))
    for prefix in prefixes:
        prefix["bits"] = round(prefix["words"] * bits, 1)
    originals, distances = sets.results()
    for prefix, figures in zip(prefixes, distances, strict=True):
        prefix.update(figures)
    if "codecs" not in not_measured:
        for prefix, coded in zip(prefixes, codecs(images, prefixes, pairs, options), strict=True):
            prefix.update(coded)
    result: dict[str, Any] = {
        "images": len(images),
        "frames": tokenizer.frames,
        "image_size": size,
        "vocabulary": len(tokenizer.vocabulary),
        "originals": originals,
        "prefixes": prefixes,
        "layers": layers,
        "all_layers": overall_usage(tokenizer, pyramids),
    }
    if conse is not None:
        fit = WordFit(conse, tokenizer.vocabulary, images, options.batch_size)
        result["guidance"] = conse.name
        fit.add_percentiles(pyramids, prefixes, layers)
        fit.add_scores(pyramids, prefixes, layers)
        if episodes:
            result["few_shot"] = fit.few_shot(pyramids, images, episodes, options.seed)
    if clip is not None:
        result["clip"] = clip.fingerprint
        WordFit(clip, tokenizer.vocabulary, images, options.batch_size).add_scores(pyramids, prefixes, layers)
    return result | {"not_measured": not_measured}


def _without_words(tokenizer: Tokenizer, labels: list[str | None], options: Options) -> dict[str, str]:
    """What of the words, labels and codecs is not measured, and why."""
    reasons: dict[str, str] = {}
    if tokenizer.config.codebook == "learned":
        of_words = ("percentile", "conse_score", "clip_score", "few_shot")
        reasons |= dict.fromkeys(of_words, "the codes of a learned codebook are no words")
    elif "guidance" in options.skip:
        reasons |= dict.fromkeys(("percentile", "conse_score", "few_shot"), "left out by --skip guidance")
    elif "few-shot" in options.skip:
        reasons["few_shot"] = "left out by --skip few-shot"
    elif any(label is None for label in labels):
        reasons["few_shot"] = "not every image has a label"
    if options.clip is None and "clip_score" not in reasons:
        reasons["clip_score"] = "needs --clip PATH with the weights of a CLIP"
    if "codecs" in options.skip:
        reasons["codecs"] = "left out by --skip codecs"
    elif tokenizer.frames > 1:
        reasons["codecs"] = "they hold one image, and these are clips"
    return reasons


def _opened(tokenizer: Tokenizer, options: Options) -> Source:
    """The images, or the middle of each film."""
    paced = options.stride is not None or options.fps is not None
    if tokenizer.frames == 1:
        if paced:
            raise InputError("--stride and --fps are of clips, and the bundle is of images: leave them out")
        return open_source(options.data, tokenizer.image_size, options.split)
    if options.split is not None:
        raise InputError("--split is of images of a TFDS directory, and the bundle is of clips: leave it out")
    sampling = trained_sampling(tokenizer)
    if paced:
        stride = 1 if options.stride is None else options.stride
        sampling = Sampling(frames=tokenizer.frames, stride=stride, fps=options.fps)
    return open_clips(options.data, tokenizer.image_size, sampling)


def _weights(options: Options) -> dict[str, str]:
    """Names of the weight files that the user brought -> sha256, in hexadecimal."""
    hashes: dict[str, str] = {}
    if options.lpips is not None:
        for files in lpips.find(options.lpips):
            hashes |= files.sha256()
    if options.inception is not None:
        file = Path(options.inception)
        hashes[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashes


def _drawn(source: Source, options: Options) -> Int[np.ndarray, " n"]:
    if len(source) == 0:
        raise InputError(f"{options.data!r} holds no image; wanted at least one to measure on")
    order = np.random.default_rng(options.seed).permutation(len(source))
    return order[: options.limit]


def reconstruction(
    tokenizer: Tokenizer,
    images: UInt8[np.ndarray, "n *t H W 3"],
    pairs: dict[str, Measure],
    sets: SetMeasures,
    batch_size: int,
) -> tuple[list[Pyramid], list[dict[str, Any]]]:
    """The pyramids of all images, and per prefix the pairs' measures; `sets` sees every reconstruction, too."""
    depth = len(tokenizer.shape)
    pyramids: list[Pyramid] = []
    values: list[np.ndarray] = []  # (b, prefixes, measures)
    for count, (originals,) in batches([images], batch_size, "reconstruction"):
        words = tokenizer.encode(originals)
        decoded = [tokenizer.decode(words, layers=n) for n in range(1, depth + 1)]
        figures = [np.stack([measure(originals, x) for measure in pairs.values()], axis=1) for x in decoded]
        sets.add(count, originals, decoded)
        pyramids += words[:count]
        values.append(np.stack(figures, axis=1)[:count])
    means = np.concatenate(values).mean(axis=0, dtype=float)
    prefixes = [
        {"layers": n, "words": tokenizer.shape.tokens(n)}
        | dict(zip(pairs, means[n - 1].tolist(), strict=True))
        for n in range(1, depth + 1)
    ]
    return pyramids, prefixes


def usage(tokenizer: Tokenizer, pyramids: list[Pyramid]) -> list[dict[str, Any]]:
    """Per layer: distinct words, their share of the vocabulary, and the perplexity of their use."""
    words = [ids_of(pyramids, n) for n in range(1, len(tokenizer.shape) + 1)]
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


def overall_usage(tokenizer: Tokenizer, pyramids: list[Pyramid]) -> dict[str, Any]:
    """The same over the words of all layers together."""
    words = [ids_of(pyramids, n).ravel() for n in range(1, len(tokenizer.shape) + 1)]
    (used,) = codebook_usage([np.concatenate(words)], len(tokenizer.vocabulary))
    share = used.used / len(tokenizer.vocabulary)
    return {"distinct": used.used, "usage": share, "perplexity": used.perplexity}


def codecs(
    images: UInt8[np.ndarray, "n H W 3"],
    prefixes: list[dict[str, Any]],
    pairs: dict[str, Measure],
    options: Options,
) -> list[dict[str, Any]]:
    """Per prefix: JPEG and WebP in no more bits than its words, over the first `codec_images` images.

    `fits` is the share of images with such a file. The others count with their smallest file, which is larger
    than allowed and so in the codec's favour; below a half that fit, the figures are None.
    """
    some = images[: options.codec_images]
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
                name: float(mapped(measure, [some, decoded], options.batch_size, format).mean(dtype=float))
                if fits >= 0.5
                else None
                for name, measure in pairs.items()
            }
    return result
