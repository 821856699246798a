"""A tokenizer without networks, for tests of what stands around it: words are levels of brightness."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
from PIL import Image

from spae.errors import InputError
from spae.images import to_array
from spae.prompt import write_prompt
from spae.pyramid import Pyramid, PyramidShape
from spae.text import parse
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary

WORDS = ("black", "coal", "dusk", "grey", "mist", "pale", "snow", "white")


class FakeTokenizer:
    shape = PyramidShape((1, 2, 4))
    image_size = sight = 16
    frames = 1
    fingerprint = "fake"
    config = SimpleNamespace(meaning_layers=2)
    pursuit = SimpleNamespace(kinds=8)
    palette: ClassVar[dict[str, list[str]]] = {"black": ["black", "coal"], "white": ["white", "snow"]}

    def __init__(self) -> None:
        embeddings = np.linspace(-1, 1, 8, dtype=np.float32)[:, None].repeat(2, 1)
        views = {"meaning": View.raw(), "appearance": View.raw()}
        provenance = {"model": {"name": "Tiny <b>LM</b>"}, "filters": [{"filter": "all", "left": 8}]}
        self.vocabulary = Vocabulary(WORDS, np.arange(8, dtype=np.int32), embeddings, views, provenance)
        self.info = {"training": {"images": 1200, "config": {"optimizer": {"steps": 3400}}}}

    check = Tokenizer.check

    def square(self, image):
        return to_array(image, self.image_size)

    def encode(self, image):
        if not isinstance(image, list) and (isinstance(image, Image.Image) or image.ndim == 3):
            return self._encode(image)
        return [self._encode(one) for one in image]

    def _encode(self, image):
        grey = Image.fromarray(to_array(image, self.image_size)).convert("L")
        grids = [np.asarray(grey.resize(grid, Image.Resampling.BOX)) // 32 for grid in self.shape.layers]
        return Pyramid(tuple(grids), self.shape, self.vocabulary)

    def rivals(self, image, count):
        """The next nearest levels, the darker first of two that are equally near."""
        pyramid = self._encode(image)
        order = [sorted(set(range(8)) - {i}, key=lambda j: (abs(i - j), j))[:count] for i in range(8)]
        return pyramid, tuple(np.array(order, np.int32)[ids] for ids in pyramid.ids)

    def region_words(self, image, box, count):
        """Its level of brightness, and the next nearest ones."""
        x, y, width, height = map(round, box)
        x, y = min(x, image.shape[1] - 1), min(y, image.shape[0] - 1)
        part = Image.fromarray(to_array(image[y : y + max(1, height), x : x + max(1, width)], 8)).convert("L")
        level = int(np.asarray(part).mean()) // 32
        return [WORDS[i] for i in sorted(range(8), key=lambda j: (abs(level - j), j))[:count]]

    def decode(self, pyramid, layers=None):
        if isinstance(pyramid, list):
            return np.stack([self.decode(one, layers) for one in pyramid])
        if layers is not None:
            pyramid = pyramid.prefix(layers)
        grid = Image.fromarray((pyramid.ids[-1] * 32 + 16).astype(np.uint8))
        return np.asarray(grid.resize((self.image_size,) * 2, Image.Resampling.NEAREST).convert("RGB"))

    def prompt(self, layers=None, examples=None, json=False):
        return write_prompt(self, layers, examples, json)

    def parse(self, text, layers=None):
        return parse(text, self.vocabulary, self.shape, layers)


def load_fake(name="default"):
    if name == "default":
        return FakeTokenizer()
    raise InputError(f"no bundle {name}")
