"""`spae-train eval`: what a bundle does on images, in figures. Knows bundles and sources, not training.

Per prefix of the pyramid: reconstruction, bits, and codecs at those bits. Per layer: use of the vocabulary,
and how well the words fit the image by the guidance. Over the upper words of labelled images: the few-shot check,
naming, and mosaics, with their controls. Means are over images; every draw follows the seed. What is not measured is
listed with the reason.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from jaxtyping import Int, UInt8

import spae
from spae.errors import InputError
from spae.files import write_file
from spae.guidance.choice import load_clip
from spae.guidance.conse import Conse
from spae.images import to_array
from spae.metrics import lpips
from spae.progress import counted
from spae.sources import Source, open_source
from spae.sources.clips import Sampling, open_clips, trained_sampling
from spae.tokenizer import Tokenizer
from tokenizer_train.evaluation.batches import batches, read
from tokenizer_train.evaluation.classes import OF_CLASSES, Classes
from tokenizer_train.evaluation.codecs import FORMATS, best_within
from tokenizer_train.evaluation.mosaics import GRID
from tokenizer_train.evaluation.pair_measures import Measure, pair_measures
from tokenizer_train.evaluation.reconstruction import Reconstruction
from tokenizer_train.evaluation.set_measures import SetMeasures
from tokenizer_train.evaluation.tables import comparison, markdown
from tokenizer_train.evaluation.word_fit import WordFit
from tokenizer_train.evaluation.word_use import Words

UPPER_LAYERS = (2, 3)  # whose words it looks at: 5 and 21 words of the default pyramid
# Labels matter for the first so many images alone; for the few-shot check these are kept, at the encoded size.
LABELLED_IMAGES = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measure a bundle on images it was not trained on."""

    bundle: tyro.conf.Positional[str]  # name of a shipped bundle, or a folder
    # Folder of images, tar shards (path or glob), parquet or TFDS folder; for a bundle of clips folder of films.
    data: tyro.conf.Positional[str]
    compare: tuple[str, ...] = ()  # further bundles, measured alike on the same images, and a table of all
    split: str | None = None  # of a TFDS directory: "train" if not given
    # Of clips: from one frame to the next, in frames of the film. Without --stride and --fps as the bundle was trained.
    stride: int | None = None
    fps: float | None = None  # of clips: frames a second instead, where the film has a clock
    # Images (or clips) to measure on, drawn without replacement by `seed`: the same ones for every bundle, and those of
    # a smaller limit are among those of a larger one. All of them if not given, or if there are no more.
    limit: int | None = None
    codec_images: int = 300  # the first of them, for JPEG and WebP: 101 quality settings each
    # Of each few-shot setting, among the first 10,000 of the drawn images; so naming and mosaics.
    episodes: int = 2_000
    batch_size: int = 32  # images at once
    seed: int = 0  # of the drawn images and episodes
    lpips: str | None = None  # folder with torchvision's AlexNet or VGG16 and the heads of the package lpips
    inception: str | None = None  # file pt_inception-2015-12-05-6726825d.pth, for FID and Inception Score
    # A CLIP: its folder or safetensors file, clip:PATH or clip-jax:NAME_OR_PATH; the paper's is ViT-L/14.
    clip: str | None = None
    # Parts to leave out, such as those whose weight packages are not installed.
    skip: tuple[
        Literal["stlpips", "frechet", "guidance", "few-shot", "naming", "mosaics", "codecs"], ...
    ] = ()
    json: bool = False  # print JSON instead of Markdown tables
    output: str | None = None  # file that gets the JSON as well

    def __post_init__(self) -> None:
        for name in ("codec_images", "episodes", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise InputError(f"--seed must be at least 0, got {self.seed}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit must be at least 1, got {self.limit}")


def run(options: Options) -> None:
    """The command: measure and print."""
    # Said before anything is measured, not after hours of it.
    if options.output is not None:
        output = Path(options.output)
        if not output.parent.is_dir():
            raise InputError(f"cannot write {output}: there is no folder {output.parent}")
        if output.is_dir():
            raise InputError(f"cannot write {output}: it is a folder")
    bundles = (options.bundle, *options.compare)
    if options.compare:
        frames = {bundle: spae.load(bundle).frames for bundle in bundles}
        if len(set(frames.values())) > 1:
            told = ", ".join(f"{bundle}: {count}" for bundle, count in frames.items())
            raise InputError(
                f"--compare: wanted bundles of images, or of clips of as many frames; got {told}"
            )
    results = [measured(bundle, options) for bundle in bundles]
    shown = results if options.compare else results[0]
    text = json.dumps(_finite(shown), indent=1, allow_nan=False)
    tables = [markdown(result) for result in results] + ([comparison(results)] if options.compare else [])
    try:
        print(text if options.json else "\n\n".join(tables))
    finally:
        # Also where nobody reads what is printed.
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
        InputError: the data holds no image, or a part needs weights that are not there.
        BundleError: the bundle is damaged or none.
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
        InputError: the source is empty, or a part needs weights that are not there.
    """
    evaluation = _Evaluation(tokenizer, source, options)
    evaluation.look(source)
    return evaluation.figures()


class _Evaluation:
    """What is measured of a tokenizer, and what of the images that takes: each is read once."""

    def __init__(self, tokenizer: Tokenizer, source: Source, options: Options) -> None:
        """Drawn and loaded now: what cannot be measured should not show after hours of work."""
        self.tokenizer, self.options = tokenizer, options
        self.indices = _drawn(source, options)
        count, size, shape = len(self.indices), tokenizer.image_size, tokenizer.shape
        not_measured = _without_words(tokenizer, options)
        wanted = OF_CLASSES.keys() - not_measured.keys()
        labelled = self.indices[:LABELLED_IMAGES]
        self.classes = Classes(source, labelled, options.data, wanted, options.episodes, options.seed)
        self.pairs, missing = pair_measures(size, options.lpips, "stlpips" not in options.skip)
        sets = SetMeasures(
            count * tokenizer.frames, len(shape), options.inception, "frechet" not in options.skip
        )
        self.not_measured = missing | sets.missing | not_measured | self.classes.not_measured
        self.conse = self.clip = None
        if "conse_score" not in self.not_measured:
            self.conse = WordFit(Conse(), tokenizer.vocabulary, count)
        if options.clip is not None and "clip_score" not in self.not_measured:
            self.clip = WordFit(load_clip(options.clip), tokenizer.vocabulary, count)
        self.reconstruction = Reconstruction(tokenizer, self.pairs, sets)
        self.words = Words(count, shape, len(tokenizer.vocabulary))
        self.codec_images = 0 if "codecs" in self.not_measured else options.codec_images
        kept = min(count, max(self.codec_images, LABELLED_IMAGES if self.classes.episodes else 0))
        clip_or_image = (size, size, 3) if tokenizer.frames == 1 else (tokenizer.frames, size, size, 3)
        self.first_images = np.empty((kept, *clip_or_image), np.uint8)

    def look(self, source: Source) -> None:
        """Every image once."""
        tokenizer, size, kept = self.tokenizer, self.tokenizer.image_size, len(self.first_images)
        for places_b, squares in read(
            source, self.indices, tokenizer.square, self.options.batch_size, "images"
        ):
            pyramids = tokenizer.encode(squares)
            # What is decoded is compared at its own size.
            images = np.stack(squares if tokenizer.frames > 1 else [to_array(one, size) for one in squares])
            self.reconstruction.add(len(places_b), images, pyramids)
            self.words.add(places_b, pyramids)
            for fit in (self.conse, self.clip):
                if fit is not None:
                    fit.add(places_b, squares)
            early_b = places_b < kept
            self.first_images[places_b[early_b]] = images[: len(places_b)][early_b]

    def figures(self) -> dict[str, Any]:
        """What it comes to."""
        originals, prefixes = self.reconstruction.results()
        layers = self.words.layers()
        if self.codec_images:
            budgets = [prefix["bits"] for prefix in prefixes]
            coded = codecs(self.first_images[: self.codec_images], budgets, self.pairs, self.options)
            for prefix, figures in zip(prefixes, coded, strict=True):
                prefix.update(figures)
        result: dict[str, Any] = {
            "images": len(self.indices),
            "frames": self.tokenizer.frames,
            "image_size": self.tokenizer.image_size,
            "vocabulary": len(self.tokenizer.vocabulary),
            "originals": originals,
            "prefixes": prefixes,
            "layers": layers,
            "all_layers": self.words.all_layers(),
        }
        if self.conse is not None:
            result["guidance"] = self.conse.guidance.name
            self.conse.add_figures(self.words.ids_nk, prefixes, layers, percentiles=True)
            result |= self._of_classes(self.conse)
        if self.clip is not None:
            result["clip"] = self.clip.guidance.fingerprint
            self.clip.add_figures(self.words.ids_nk, prefixes, layers, percentiles=False)
        return result | {"not_measured": self.not_measured}

    def _of_classes(self, conse: WordFit) -> dict[str, Any]:
        """The few-shot check, naming and mosaics: what of them the labels allow."""
        result: dict[str, Any] = {}
        if self.classes.episodes:
            shape = self.tokenizer.shape
            upper = [shape.tokens(n) for n in UPPER_LAYERS if n <= len(shape)]
            drawn = self.first_images[:LABELLED_IMAGES]
            result["few_shot"] = conse.few_shot(
                self.words.ids_nk, upper, drawn, self.classes.episodes, self.options.seed
            )
        return result | self.classes.named(self.tokenizer, conse, self.words.ids_nk)


def _without_words(tokenizer: Tokenizer, options: Options) -> dict[str, str]:
    """What of the words and codecs is not measured, and why."""
    reasons: dict[str, str] = {}
    if tokenizer.config.codebook == "learned":
        of_words = ("percentile", "conse_score", "clip_score", *OF_CLASSES)
        reasons |= dict.fromkeys(of_words, "the codes of a learned codebook are no words")
    elif "guidance" in options.skip:
        reasons |= dict.fromkeys(("percentile", "conse_score", *OF_CLASSES), "left out by --skip guidance")
    else:
        skipped = {
            key: f"left out by --skip {name}" for key, name in OF_CLASSES.items() if name in options.skip
        }
        if "mosaics" not in skipped and tokenizer.shape.layers[1:2] != (GRID,):
            skipped["mosaics"] = "the second layer is no grid of 2 x 2 words of an image"
        reasons |= skipped
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
        return open_source(options.data, tokenizer.sight, options.split)
    if options.split is not None:
        raise InputError("--split is of images of a TFDS directory, and the bundle is of clips: leave it out")
    sampling = trained_sampling(tokenizer.info, tokenizer.frames)
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


def codecs(
    images: UInt8[np.ndarray, "n H W 3"],
    budgets: Sequence[float],
    pairs: dict[str, Measure],
    options: Options,
) -> list[dict[str, Any]]:
    """JPEG and WebP of the images in no more bits than each of the budgets.

    `fits` is the share of images with such a file. The others count with their smallest file, which is larger
    than allowed and so in the codec's favour; below a half that fit, the figures are None.
    """
    result: list[dict[str, Any]] = [{} for _ in budgets]
    for format in FORMATS:
        coded = [best_within(image, budgets, format) for image in counted(images, format, "image")]
        fits = np.mean([[one.fits for one in of_image] for of_image in coded], axis=0)
        measured = [n for n, share in enumerate(fits) if share >= 0.5]
        decoded = [np.stack([of_image[n].image for of_image in coded]) for n in measured]
        sums_mp = np.zeros((len(pairs), len(measured)))
        for count, (originals, *others) in batches([images, *decoded], options.batch_size, format):
            for sums_p, measure in zip(sums_mp, pairs.values(), strict=True):
                compare = measure(originals)
                sums_p += [compare(x)[:count].sum(dtype=float) for x in others]
        for n, entry in enumerate(result):
            figures: dict[str, float | None] = dict.fromkeys(pairs)
            if n in measured:
                means_m = sums_mp[:, measured.index(n)] / len(images)
                figures = dict(zip(pairs, means_m.tolist(), strict=True))
            entry[format.lower()] = {"images": len(images), "fits": float(fits[n])} | figures
    return result
