"""Where a run without a bundle begins: principal components of patches and words, and what pursuit needs.

The linear paths beside the networks begin as the principal components of the training images' patches, the map of the
words as the table's own leading components, scaled to those of the patches. Where the networks add nothing yet, this
is a tokenizer already, and a linear one: what training must stay above (docs/results.md).

Pursuit (`spae.pursuit`) sees the colours of words and images by the same components, for good. What else it needs is
counted on a sample of the training images: their mean vector, and which words fit any of them.
"""

import gc
import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from jaxtyping import Bool, Float, Float32, UInt8

from spae.errors import InputError
from spae.files import bucket_errors, is_remote, open_path, write_file
from spae.guidance.cache import cached_word_features
from spae.guidance.protocol import Guidance
from spae.images import to_array
from spae.progress import counted
from spae.pursuit import Pursuit, Sizes
from spae.sources import Source
from spae.tokenizer import Tokenizer
from spae.vocabulary import Vocabulary
from spae.weights.parameters import restore
from tokenizer_train.config import Config
from tokenizer_train.damage import Damage
from tokenizer_train.processes.mesh import is_main, wait_for_all
from tokenizer_train.squares import Squares

SAMPLE = 4_096  # images behind the components, the mean and the candidates
# Words are spread a little wider than patches, so that averages of two reach them. From probes, not by a command.
SPREAD = 1.3
# A word is a candidate if it is among so many best of any image of the sample.
BEST = 20
_AT_ONCE = 64  # images

Tensors = dict[str, np.ndarray]


def beginning(
    config: Config, vocabulary: Vocabulary, guidance: Guidance | None, source: Source
) -> tuple[Tensors | None, Pursuit | None]:
    """Where a run begins: the start, if it is one from principal components, and its choice of meaning words, if it has
    one: the start's, or that of the bundle whose weights it begins with.

    Raises:
        InputError: as `load` and `pursuit`; or the bundle has no pursuit, or one of other layers or pools.
        BundleError: no bundle is there, or it is damaged.
    """
    wanted = config.tokenizer.meaning == "pursuit"
    if config.run.initial is not None:
        return None, pursuit_of(config, Tokenizer.load(config.run.initial)) if wanted else None
    if config.run.start != "principal":
        return None, None
    start = load(
        config, vocabulary, guidance, source, config.data.cache or open_path(config.run.output) / "guidance"
    )
    return start, pursuit(config, start) if wanted else None


def pursuit_of(config: Config, bundle: Tokenizer) -> Pursuit | None:
    """The choice of meaning words of the bundle `run.initial`, of a run that has one.

    Raises:
        InputError: it has none, or one of other layers or pools.
    """
    given, own = bundle.config, config.tokenizer
    if (given.meaning, given.pools, given.pyramid) != (own.meaning, own.pools, own.pyramid):
        raise InputError(
            f"run.initial: {config.run.initial} has meaning {given.meaning!r}, pools {given.pools} and pyramid "
            f"{given.pyramid}, the run {own.meaning!r}, {own.pools} and {own.pyramid}: give the bundle's"
        )
    return bundle.pursuit


def load(
    config: Config,
    vocabulary: Vocabulary,
    guidance: Guidance | None,
    source: Source,
    cache: str | os.PathLike[str],
) -> Tensors:
    """The start of a run: computed by the first process, kept in the cache, read from there by all.

    Args:
        source: of the training images; a sample of it is looked at, drawn by its size alone.
        cache: folder that all processes see.

    Returns:
        "patch_mean" (p,), "components" (p, c), "map" (w, c), float32: p values of a patch, w the width of the
        appearance view, c the latents; and with pursuit its arrays, "pursuit.NAME".

    Raises:
        InputError: an image of the sample cannot be read (with `data.damaged` "skip": none can), or the patches or the
            words' view have fewer dimensions than the latents; or what was kept is damaged.
    """
    fingerprint = guidance.fingerprint if guidance is not None else None
    view = hashlib.sha256(vocabulary.codebook("appearance").tobytes()).hexdigest()
    own = config.tokenizer
    shown = (own.image_size, own.latents, own.stride, own.meaning == "pursuit")
    content = (3, fingerprint, view, source.identity, *shown, *vocabulary.words)
    name = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    file = open_path(cache) / f"start-{name}.safetensors"
    if is_main() and not file.is_file():
        if not is_remote(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, safetensors.numpy.save(_compute(config, vocabulary, guidance, source, cache)))
    wait_for_all("start")
    with bucket_errors(file):
        data = file.read_bytes()
    try:
        return safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise InputError(f"{file} is damaged ({error}): delete it, and it will be made again") from error


def begin(params: nnx.State, start: Tensors) -> nnx.State:
    """Fresh parameters of an `Autoencoder` with the start's linear paths and map; its networks add nothing yet."""
    mean_p, components_pc = start["patch_mean"], start["components"]
    values: dict[tuple[Any, ...], np.ndarray] = {
        ("encoder", "skip", "kernel"): components_pc,
        ("encoder", "skip", "bias"): -mean_p @ components_pc,
        ("decoder", "skip", "kernel"): components_pc.T,
        # The path to latents sees images less 0.5, the path back makes whole ones.
        ("decoder", "skip", "bias"): mean_p + np.float32(0.5),
        ("projection", "kernel"): start["map"],
    }
    flat = []
    for path, variable in nnx.to_flat_state(params):
        if path in values:
            variable = variable.replace(jnp.asarray(values[path], variable.dtype))
        elif path[1:2] == ("head",) or path[0] == "projection":
            variable = variable.replace(jnp.zeros_like(variable[...]))
        flat.append((path, variable))
    return nnx.from_flat_state(flat)


def pursuit(config: Config, start: Tensors) -> Pursuit:
    """The frozen choice of meaning words that the start holds.

    Raises:
        InputError: it holds too few words, or words of too few families.
    """
    prefix = "pursuit."
    words, width = start[f"{prefix}vectors"].shape
    sizes = Sizes(words, width, *start["components"].shape)
    own = {name: value for name, value in start.items() if name.startswith(prefix)}
    made: Pursuit = restore(lambda rngs: Pursuit.of(config.tokenizer, sizes), own, prefix)
    places = sum(side**2 for side in made.sides)
    if made.kinds < places:
        raise InputError(
            f"wanted words of {places} families, one for each place of the meaning layers, got {made.kinds} among "
            f"{words} candidates: take a larger vocabulary or fewer meaning layers"
        )
    return made


def principal(
    images_nhwc: UInt8[np.ndarray, "n s s 3"], view_vw: Float[np.ndarray, "v w"], latents: int, patch: int
) -> Tensors:
    """Patch mean, components and map, see `load`. In float64, signs fixed: the same everywhere."""
    values = patch * patch * 3
    if latents > min(values, view_vw.shape[1]):
        raise InputError(
            f"latents of {latents} begin as so many components: wanted at most {values} (values of a patch of "
            f"{patch} x {patch} pixels) and {view_vw.shape[1]} (components of the words' appearance view)"
        )
    mean_p, covariance_pp = _moments(images_nhwc, patch)
    variances, axes = np.linalg.eigh(covariance_pp)
    variances, axes = variances[::-1][:latents], axes[:, ::-1][:, :latents]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(latents)])
    # The map sees the view scaled as in `Autoencoder.codebook`.
    scale = view_vw.shape[1] ** 0.5
    deviations_c = view_vw[:, :latents].astype(np.float64).std(axis=0) * scale
    map_wc = np.zeros((view_vw.shape[1], latents))
    np.fill_diagonal(map_wc, SPREAD * np.sqrt(np.maximum(variances, 0)) / deviations_c)
    tensors = {"patch_mean": mean_p, "components": axes, "map": map_wc}
    return {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}


def _moments(
    images_nhwc: UInt8[np.ndarray, "n s s 3"], patch: int
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, "p p"]]:
    """Mean and covariance of the patches' values, less 0.5; a few images at a time, of which float64 is gigabytes."""
    side = images_nhwc.shape[1] // patch
    count = len(images_nhwc) * side**2
    total_p, square_pp = np.zeros(patch * patch * 3), np.zeros((patch * patch * 3,) * 2)
    for first in range(0, len(images_nhwc), _AT_ONCE):
        part = images_nhwc[first : first + _AT_ONCE].reshape(-1, side, patch, side, patch, 3)
        x_mp = part.transpose(0, 1, 3, 2, 4, 5).reshape(-1, patch * patch * 3) / 255 - 0.5
        total_p += x_mp.sum(axis=0)
        square_pp += x_mp.T @ x_mp
    mean_p = total_p / count
    return mean_p, (square_pp - count * np.outer(mean_p, mean_p)) / max(count - 1, 1)


def _compute(
    config: Config, vocabulary: Vocabulary, guidance: Guidance | None, source: Source, cache: Any
) -> Tensors:
    tokenizer = config.tokenizer
    pursued = guidance if tokenizer.meaning == "pursuit" else None
    # First what is kept in parts; the sample is looked at in one go.
    words_vd = cached_word_features(pursued, vocabulary.words, cache) if pursued is not None else None
    squares_nhwc, seen_nd = _sample(config, source, pursued)
    view_vw = vocabulary.codebook("appearance")
    start = principal(squares_nhwc, view_vw, tokenizer.latents or view_vw.shape[1], tokenizer.stride)
    if words_vd is None:
        return start
    found = candidates(seen_nd, words_vd, in_dictionary(vocabulary.words))
    colours_vc = view_vw * np.float32(view_vw.shape[1] ** 0.5) @ start["map"]
    families = families_of(vocabulary.words)
    return start | {
        "pursuit.ids": found.astype(np.int32),
        "pursuit.families": families[found],
        "pursuit.vectors": (words_vd - words_vd.mean(axis=0))[found],
        "pursuit.image_mean": seen_nd.mean(axis=0, dtype=np.float64).astype(np.float32),
        "pursuit.colours": colours_vc[found],
        "pursuit.patch_kernel": start["components"],
        "pursuit.patch_bias": -start["patch_mean"] @ start["components"],
    }


def candidates(
    seen_nd: Float32[np.ndarray, "n d"],
    words_vd: Float32[np.ndarray, "v d"],
    allowed_v: Bool[np.ndarray, " v"],
) -> np.ndarray:
    """Ids of the allowed words that are among the `BEST` of any image, both seen from their means; ascending."""
    images_nd = seen_nd - seen_nd.mean(axis=0)
    words_vd = words_vd - words_vd.mean(axis=0)
    words_vd = words_vd / np.linalg.norm(words_vd, axis=1, keepdims=True)
    best = min(BEST, len(words_vd))
    found = np.zeros(len(words_vd), bool)
    for first in range(0, len(images_nd), 512):
        score_nv = images_nd[first : first + 512] @ words_vd.T
        found[np.argpartition(-score_nv, best - 1, axis=1)[:, :best]] = True
    return np.flatnonzero(found & allowed_v)


def in_dictionary(words: Sequence[str]) -> Bool[np.ndarray, " v"]:
    """Which words an English dictionary has as they are spelled: Hunspell's of American English, in the package spylls.
    Texts of the web hold names of places and words of other languages ("ger", "por") and pieces of words ("mah"), which
    a language model's vocabulary has taken up; none of them says what is in a photograph."""
    from spylls.hunspell import Dictionary

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files open
        english = Dictionary.from_files(str(files("spylls.hunspell") / "data" / "en" / "en_US"))
        gc.collect()
    return np.array([english.lookup(word) for word in words])


def families_of(words: Sequence[str]) -> np.ndarray:
    """int32, the same number for words of the same stem (Porter's second English stemmer)."""
    from snowballstemmer import stemmer

    stems = stemmer("english").stemWords(list(words))
    return np.unique(stems, return_inverse=True)[1].astype(np.int32)


def _sample(
    config: Config, source: Source, guidance: Guidance | None
) -> tuple[UInt8[np.ndarray, "n s s 3"], Float32[np.ndarray, "n d"]]:
    """A sample of the images as the encoder sees them, and the guidance's vectors of what it sees of them, in another
    order; none without a guidance. Images that cannot be read are left out, if the config allows it."""
    size, damage = config.tokenizer.image_size, Damage(config.data.damaged)
    looked_at = Squares(source, size, guidance.image_size if guidance is not None else size)
    squares: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    waiting: dict[int, list[np.ndarray]] = {}  # by their sides, of which there are two
    sample_n = np.sort(np.random.default_rng(0).permutation(len(source))[:SAMPLE])
    for index in counted(sample_n.tolist(), "sample of the images", "image"):
        try:
            square = looked_at[index].image
        except InputError as error:
            damage.left_out(error)
            continue
        squares.append(to_array(square, size))
        if guidance is not None:
            batch = waiting.setdefault(len(square), [])
            batch.append(square)
            if len(batch) == _AT_ONCE:
                rows.append(_seen(guidance, waiting.pop(len(square))))
    if not squares:
        raise InputError(f"none of {min(SAMPLE, len(source)):,} images could be read: are they still there?")
    if guidance is None:
        return np.stack(squares), np.zeros((len(squares), 0), np.float32)
    rows += [_seen(guidance, batch) for batch in waiting.values()]
    return np.stack(squares), np.concatenate(rows)


def _seen(guidance: Guidance, squares: Sequence[np.ndarray]) -> Float32[np.ndarray, "n d"]:
    """The guidance's vectors of at most `_AT_ONCE` squares of one size, for which one shape is compiled."""
    filler = np.zeros((_AT_ONCE - len(squares), *squares[0].shape), np.uint8)
    batch = jnp.asarray(np.concatenate([np.stack(squares), filler]), jnp.float32) / 255
    return np.asarray(guidance.images(batch))[: len(squares)]
