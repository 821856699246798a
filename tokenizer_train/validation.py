"""Figures and pictures over a few fixed images, while a run goes on."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from spae.compiled import in_parts
from spae.metrics import psnr
from spae.progress import Progress
from spae.pyramid import Pyramid
from spae.tokenizer import Tokenizer
from tokenizer_train.processes.mesh import is_main
from tokenizer_train.summaries import Summaries

SHOWN_IMAGES = 8  # of the validation images, on the sheet of pictures
SHOWN_LAYERS = 3  # whose words stand beside it

Images = UInt8[np.ndarray, "n *T H W 3"]


def validate(tokenizer: Callable[..., Tokenizer], images: Images, summaries: Summaries, step: int) -> None:
    """PSNR of every prefix and distinct words of every layer over the fixed images, or clips, with the averaged
    weights; the PSNR of all words with the last weights, as they are; pictures of the first images.

    All processes must call this together; the first one measures and shows.

    Args:
        tokenizer: gives the tokenizer of this step's averaged weights, with `averaged=False` of the last ones.
        images: the fixed ones.
    """
    model = tokenizer(averaged=False)
    depth = len(model.shape)
    if is_main():
        _, (raw,) = _reconstructed(model, images, [depth], "validation, raw weights")
        raw_psnr = float(psnr(images, raw).mean())
    model = tokenizer()
    if not is_main():
        return
    pyramids, prefixes = _reconstructed(model, images, range(1, depth + 1), "validation")
    figures = {f"psnr/{n}": float(psnr(images, x).mean()) for n, x in enumerate(prefixes, start=1)}
    figures[f"raw-psnr/{depth}"] = raw_psnr
    for n in range(1, depth + 1):
        used = np.unique(np.stack([pyramid.ids[n - 1] for pyramid in pyramids]))
        figures[f"words/{n}"] = used.size
    summaries.scalars(step, figures, "validation")
    shown = slice(SHOWN_IMAGES)
    summaries.pictures(step, [images[shown], *(prefix[shown] for prefix in prefixes)])
    summaries.words(step, [pyramid.text(min(SHOWN_LAYERS, depth)) for pyramid in pyramids[shown]])


def _reconstructed(
    model: Tokenizer, images: Images, prefixes: Sequence[int], what: str
) -> tuple[list[Pyramid], list[Images]]:
    """The pyramids of the images, and what each prefix of so many layers decodes to."""
    pyramids: list[Pyramid] = []
    decoded: list[list[np.ndarray]] = [[] for _ in prefixes]
    with Progress(len(images), what, "image") as progress:
        for some in in_parts(images):
            part = model.encode(some)
            for parts, layers in zip(decoded, prefixes, strict=True):
                parts.append(model.decode(part, layers=layers))
            pyramids += part
            progress.update(len(part))
    return pyramids, [np.concatenate(parts) for parts in decoded]
