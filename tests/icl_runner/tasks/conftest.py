"""Scenes of plain colours, and in place of a tokenizer eyes that name the colours of a picture."""

import numpy as np
import pytest

from icl_runner.data import scene_sets
from icl_runner.data.images import Images
from icl_runner.data.sprites import Sprite, SpriteSet

COLOURS = {"apple": (200, 0, 0), "leaf": (0, 150, 0), "sea": (0, 0, 180), "plum": (90, 0, 90)}


def seen(picture: np.ndarray) -> str:
    """The names of the colours that a picture has."""
    return " ".join(
        name for name, colour in COLOURS.items() if (abs(picture.astype(int) - colour) < 9).all(-1).any()
    )


class _Eyes:
    class shape:
        tokens = staticmethod(lambda layers: 5)

    def region_words(self, image, box, count):
        x, y = int(box[0] + box[2] / 2), int(box[1] + box[3] / 2)
        return (seen(image[y : y + 1, x : x + 1]).split() * count)[:count]


@pytest.fixture
def toys(monkeypatch) -> str:
    """What `--data` calls them."""

    def picture(name: str) -> np.ndarray:
        return np.full((20, 30, 4), (*COLOURS[name], 255), np.uint8)

    sprites = SpriteSet("toys", [Sprite(n, n, "toy", f"a {n}") for n in COLOURS], picture, lambda: "toys")
    monkeypatch.setitem(scene_sets.SPRITES, "toys", lambda: sprites)
    monkeypatch.setattr(Images, "tokenizer", _Eyes())
    monkeypatch.setattr(
        Images, "words", lambda self, keys, layers: {key: seen(self.examples.image(key)) for key in keys}
    )
    return "toys"
