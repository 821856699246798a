"""The pictures that a model made in context, beside what they were to be: decoded again from the words in the logs."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from icl_runner.cells import Cell, Sample
from spae.errors import InputError


@dataclass(frozen=True)
class Exhibit:
    """One generation. `pictures`: (caption, PNG) in the order to be shown; `figures`: what was measured of it."""

    condition: str
    pictures: tuple[tuple[str, bytes], ...]
    figures: dict[str, float]
    words: str
    repairs: dict[str, int]


def exhibits(cell: Cell, count: int) -> list[Exhibit]:
    """The first `count` samples of a cell of `generate` or `transform`, by id.

    Raises:
        BundleError: the bundle named in the log is not there.
        InputError: a sample without words, or words of another bundle.
    """
    shown = [sample for sample in cell.samples if sample.metadata.get("words")][:count]
    if not shown:
        return []
    import spae

    tokenizer = spae.load(cell.bundle)
    # All at once: one compiled decoder for every number of layers.
    layers = [int(sample.metadata["layers"]) for sample in shown]
    made = _decode(tokenizer, [sample.metadata["words"] for sample in shown], layers, cell)
    wanted = _decode(tokenizer, [_target(sample) for sample in shown], layers, cell)
    return [_exhibit(*one) for one in zip(shown, made, wanted, strict=True)]


def _target(sample: Sample) -> str:
    return sample.metadata.get("target_words") or ""


def _decode(tokenizer, texts: Sequence[str], layers: Sequence[int], cell: Cell) -> list:
    """An image for every text; None for an empty one."""
    images: list[UInt8[np.ndarray, "s s 3"] | None] = [None] * len(texts)
    for depth in sorted(set(layers)):
        places = [i for i, text in enumerate(texts) if text and layers[i] == depth]
        if not places:
            continue
        parsed = [tokenizer.parse(texts[i], depth) for i in places]
        if any(one.repairs for one in parsed):
            raise InputError(
                f"the words of {cell.task} in the log are not of the bundle {cell.bundle!r} that is here now: "
                "install the bundle the run was made with"
            )
        for i, image in zip(places, tokenizer.decode([one.pyramid for one in parsed]), strict=True):
            images[i] = image
    return images


def _exhibit(sample: Sample, made: np.ndarray, wanted: np.ndarray | None) -> Exhibit:
    pictures = [("written by the model", to_png(made))]
    if wanted is not None:
        pictures.append(("the target's own words", to_png(wanted)))
    for key, caption in (("target_png", "target"), ("input_png", "input")):
        if sample.metadata.get(key):
            pictures.insert(0, (caption, base64.b64decode(sample.metadata[key])))
    # input, target, the model's, the oracle's
    metadata = sample.metadata
    figures = {key: value for key, value in sorted(sample.values.items()) if "_" not in key}
    return Exhibit(
        str(metadata.get("condition", "")),
        tuple(pictures),
        figures,
        metadata["words"],
        metadata.get("repairs") or {},
    )


def to_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """The image as a PNG file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
