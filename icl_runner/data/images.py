"""The images of a run, and their words or what is shown in their place; each thing is made when it is first asked
for."""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from icl_runner import shown
from icl_runner.data.examples import ExampleSet
from icl_runner.pictures.encoding import thumbnail
from spae import bundle
from spae.images import data_url, to_png
from spae.progress import Progress

# JAX takes seconds to import.
if TYPE_CHECKING:
    from icl_runner.data.pyramids import Pyramids
    from spae.polygons import Box
    from spae.tokenizer import Tokenizer


NO_IMAGE = ""  # in place of an image's key, which is never empty


class Images:
    """Examples with a tokenizer.

    Args:
        examples: the data.
        bundle: the tokenizer, as `spae.load` takes it.
        connector: the bundle of a connector, whose model is shown the images; None: it reads their words.
    """

    def __init__(self, examples: ExampleSet, bundle: str, connector: str | None = None) -> None:
        self.examples, self.bundle, self.connector = examples, bundle, connector
        self._photographs: dict[str, str] = {}  # cells share them

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        import spae

        return spae.load(self.bundle)

    @cached_property
    def pyramids(self) -> "Pyramids":
        from icl_runner.data.pyramids import Pyramids

        return Pyramids(self.tokenizer, self.examples)

    def words(self, image_keys: Iterable[str], layers: int) -> dict[str, str]:
        """Image key -> the words of its first layers, as they stand in a prompt, or the mark of an image that is shown
        (`icl_runner.shown`)."""
        if self.connector is not None:
            return {key: shown.mark(key) for key in image_keys}
        from spae.text import render

        pyramids = self.pyramids(sorted(set(image_keys)))
        return {key: render(pyramid, layers) for key, pyramid in pyramids.items()}

    @property
    def blank(self) -> str:
        """What stands in a prompt for no image: no words, or the mark of a black image."""
        return "" if self.connector is None else shown.mark(NO_IMAGE)

    def region_words(self, regions: Iterable[tuple[str, "Box"]], count: int) -> dict[tuple[str, "Box"], str]:
        """(Image key, box) -> `count` words of what is there, as they stand in a prompt: `Tokenizer.region_words`."""
        wanted = list(dict.fromkeys(regions))
        found = {}
        with Progress(len(wanted), "words of regions", "region") as progress:
            for key, box in wanted:
                found[key, box] = " ".join(self.tokenizer.region_words(self.examples.image(key), box, count))
                progress.update(1)
        return found

    def tokens(self, layers: int) -> int:
        """How many words the first layers have, or how many soft tokens an image that is shown."""
        if self.connector is not None:
            return int(bundle.read(self.connector, "connector")[0]["tokens"])
        return self.tokenizer.shape.tokens(layers)

    @property
    def picture(self) -> Callable[[str], str] | None:
        """Image key -> a data URL of the whole image (of NO_IMAGE a black one), for a model that is shown images; else
        None."""
        if self.connector is None:
            return None
        return lambda key: data_url(to_png(self._shown(key)), "png")

    def _shown(self, image_key: str) -> UInt8[np.ndarray, "h w 3"]:
        # Any size: what sees it resizes it.
        return np.zeros((64, 64, 3), np.uint8) if image_key == NO_IMAGE else self.examples.image(image_key)

    def photograph(self, image_key: str) -> str:
        """An image as those see it who read the log: a data URL, no more than a few kilobytes."""
        if image_key not in self._photographs:
            self._photographs[image_key] = thumbnail(self.examples.image(image_key))
        return self._photographs[image_key]
