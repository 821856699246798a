"""Where a run's weights begin: another bundle's, inflated from images to clips where the run is one of clips.

Inflation is MAGVIT's "central" kind (Yu et al., arXiv 2212.05199, section 3.1): a 3-D kernel holds the 2-D kernel at
its middle time and zeros elsewhere, so a clip of one still image is encoded at every time as the image was, and
decoded at every time to what the image was decoded to.
"""

from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from spae.architecture import AutoencoderConfig
from spae.errors import InputError
from spae.tokenizer import Tokenizer
from spae.vocabulary import Vocabulary


def initial(
    name: str, config: AutoencoderConfig, vocabulary: Vocabulary, params: Any
) -> tuple[Any, dict[str, Any]]:
    """The parameters of the bundle `name` in the place of `params`, in their shapes, dtypes and shardings; and what the
    bundle tells of its own training.

    Args:
        name: of a shipped bundle, or a path.
        config: the run's tokenizer. A perceptron beside the map of words may be new in it, and adds nothing yet.
        vocabulary: the run's.
        params: of the run's `Autoencoder`, fresh, as `nnx.split` gives them; of what the bundle has, only the layout
            is looked at.

    Raises:
        InputError: the bundle is of other words, or of another network than the run's but for the inflation.
        BundleError: no bundle is there, or it is damaged.
    """
    bundle = Tokenizer.load(name)
    own = matching(name, bundle, config, vocabulary, params)
    values = [
        (path, variable.replace(_placed(own[path], variable[...])) if path in own else variable)
        for path, variable in nnx.to_flat_state(params)
    ]
    return nnx.from_flat_state(values), dict(bundle.info.get("training", {}))


def matching(
    name: str, bundle: Tokenizer, config: AutoencoderConfig, vocabulary: Vocabulary, params: Any
) -> dict[tuple[Any, ...], np.ndarray]:
    """Path -> parameter of the bundle called `name`, inflated where it is of images and the run of clips.

    Args:
        config, vocabulary, params: as of `initial`; of `params` the shapes alone are looked at.

    Raises:
        InputError: as `initial`.
    """
    for view in ("appearance", "meaning"):
        if bundle.vocabulary.words != vocabulary.words or not np.array_equal(
            bundle.vocabulary.codebook(view), vocabulary.codebook(view)
        ):
            raise InputError(
                f"run.initial: the words of {name}, or their {view} view, are not those of vocabulary.path, and what "
                "its networks learned holds for its own words: give the vocabulary that it was trained with"
            )
    stored = {path: np.asarray(value[...]) for path, value in nnx.to_flat_state(bundle.parameters)}
    flat = nnx.to_flat_state(params)
    if extra := sorted(".".join(map(str, path)) for path in stored.keys() - dict(flat).keys()):
        raise InputError(
            f"run.initial: {name} has parameters that this tokenizer lacks: {', '.join(extra[:3])}"
        )
    values = {}
    for path, variable in flat:
        label = ".".join(map(str, path))
        if path[0] == "perceptron" and path not in stored:
            continue
        if path not in stored:
            raise InputError(
                f"run.initial: {name} lacks {label}, which this tokenizer has: give its architecture"
            )
        inflates = config.frames > 1 and bundle.frames == 1
        value = _inflated(label, stored[path], bundle.config, config) if inflates else stored[path]
        if value is None or value.shape != variable.shape:
            raise InputError(
                f"run.initial: {label} of {name} has shape {stored[path].shape}, this tokenizer wants "
                f"{variable.shape}: give the architecture of the bundle, with frames for clips"
            )
        values[path] = value
    return values


def _inflated(
    label: str, value: np.ndarray, images: AutoencoderConfig, clips: AutoencoderConfig
) -> np.ndarray | None:
    """A parameter of images as one of clips; None where it has no counterpart."""
    times = clips.strides[0]
    if label == "encoder.skip.kernel":
        # The path sees the frames of one latent one behind the other: their mean is the still image.
        return np.tile(value, (times, 1)) / np.float32(times)
    if label == "decoder.skip.kernel":
        return np.tile(value, (1, times))
    if label == "decoder.skip.bias":
        return np.tile(value, times)
    if label == "meaning.position":
        return _inflated_positions(value, images, clips)
    if label.endswith(".kernel") and value.ndim == 4:
        side = value.shape[0]
        kernel = np.zeros((side, *value.shape), value.dtype)
        kernel[side // 2] = value
        return kernel
    return value


def _inflated_positions(
    value_nh: Float[np.ndarray, "n h"], images: AutoencoderConfig, clips: AutoencoderConfig
) -> Float[np.ndarray, "m h"] | None:
    """The meaning head's positions: at every time of a layer those of the image's layer, if it has the same sides."""
    parts, start = [], 0
    for image_grid, (time, *sides) in zip(
        images.shape.layers[: images.meaning_layers], clips.shape.layers, strict=False
    ):
        count = image_grid[0] * image_grid[1]
        if list(image_grid) != sides:
            return None
        parts.append(np.tile(value_nh[start : start + count], (time, 1)))
        start += count
    return np.concatenate(parts)


def _placed(value: np.ndarray, like: Array) -> Array:
    """The array with the dtype of another one, cut over the devices, of all processes, as that one is."""
    value = value.astype(like.dtype)
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: value[index])
