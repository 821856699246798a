"""Scenes: images composed of sprites, of which everything is known: boxes, polygons, names and captions, exactly.

Regions, detection, instruction data and which-corner questions are asked about them. A scene depends on nothing but
the sprites, the seed and its number (`icl_runner.dice`), so it is the same on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from icl_runner.data.sprites import OPAQUE, Sprite, SpriteSet
from icl_runner.dice import Dice
from spae.errors import InputError
from spae.images import to_array
from spae.polygons import Box, Polygon, box_of, fill, outlines, rectangle

PLACES = 100  # tried for each object before a scene is begun anew
SCENES = 20  # begun before giving up
PAPER = (200, 255)  # darkest and lightest of each channel of the ground
MAX_SIDE = 4096


@dataclass(frozen=True)
class SceneObject:
    """One thing in a scene, as much of it as is to be seen.

    Args:
        key: of its sprite.
        name: what a class set calls it; no two objects of a scene share one.
        category: what sort of thing it is.
        caption: a phrase with its article.
        box: the least box around its visible pixels, in pixels of the image.
        polygons: around its visible pixels; holes, where there are any, are polygons too (`polygons.fill`).
    """

    key: str
    name: str
    category: str
    caption: str
    box: Box
    polygons: tuple[Polygon, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """An image, uint8 (h, w, 3), its objects from back to front, and one caption of all of them."""

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    objects: tuple[SceneObject, ...]
    caption: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[1], self.image.shape[0]

    def mask(self, thing: SceneObject) -> Bool[np.ndarray, "h w"]:
        """The visible pixels of one of the objects."""
        return fill(thing.polygons, *self.size)


@dataclass(frozen=True, kw_only=True)
class Composition:
    """How scenes are composed.

    Args:
        width, height: of the image, in pixels.
        least, most: number of objects.
        smallest, largest: the longer side of an object, as a share of the image's shorter one.
        overlap: the share of any object's pixels that those before it may hide, at most.

    Raises:
        InputError: a number out of its range.
    """

    width: int = 256
    height: int = 256
    least: int = 2
    most: int = 4
    smallest: float = 0.25
    largest: float = 0.5
    overlap: float = 0.1

    def __post_init__(self) -> None:
        if not (8 <= self.width <= MAX_SIDE and 8 <= self.height <= MAX_SIDE):
            raise InputError(
                f"wanted scenes of 8 to {MAX_SIDE} pixels a side, got {self.width} x {self.height}"
            )
        if not 1 <= self.least <= self.most:
            raise InputError(
                f"wanted at least 1 object, and no more at least than at most, got {self.least} and {self.most}"
            )
        if not 0 < self.smallest <= self.largest <= 1:
            raise InputError(
                f"wanted sizes above 0, up to 1 (the image's side), got {self.smallest} and {self.largest}"
            )
        if not 0 <= self.overlap < 1:
            raise InputError(f"wanted an overlap from 0, below 1, got {self.overlap}")


def compose(sprites: SpriteSet, seed: int, number: int, composition: Composition | None = None) -> Scene:
    """Scene `number` of the seed: different things at random places on a plain, light ground.

    Raises:
        InputError: fewer different names than objects; no room for so many objects of that size (never a scene with
            fewer); a sprite that cannot be read.
    """
    composition = composition or Composition()
    if len(sprites.names) < composition.most:
        raise InputError(
            f"wanted {composition.most} different things for a scene, {sprites.name} has {len(sprites.names)}: "
            "ask for fewer objects"
        )
    count = Dice(seed, number).whole("count", composition.least, composition.most)
    for attempt in range(SCENES):
        dice = Dice(seed, number, attempt)
        chosen = [
            dice.choose(f"sprite of {name}", sprites.by_name[name], 1)[0]
            for name in dice.choose("names", sprites.names, count)
        ]
        drawn = _place(sprites, chosen, composition, dice)
        if drawn is not None:
            image, owner = drawn
            things = [_thing(sprite, owner == place) for place, sprite in enumerate(chosen)]
            return _scene(f"{sprites.name}-seed{seed}-{number:05d}", image, things)
    raise InputError(
        f"found no room for {count} objects of {composition.smallest:g} to {composition.largest:g} of the side of "
        f"{composition.width} x {composition.height} pixels, hidden to {composition.overlap:g} at most: ask for fewer "
        "or smaller objects, or let more of them be hidden"
    )


def mosaic(
    sprites: SpriteSet, seed: int, number: int, grid: tuple[int, int] = (2, 2), side: int = 128
) -> Scene:
    """Scene `number` of the seed: images of different names, each the central square of its own, in `grid` rows and
    columns of `side` pixels a square.

    Raises:
        InputError: fewer names than places; more than MAX_SIDE pixels a side; an image that cannot be read.
    """
    rows, columns = grid
    if min(rows, columns, side) < 1 or max(rows, columns) * side > MAX_SIDE:
        raise InputError(
            f"wanted a grid of at most {MAX_SIDE} pixels a side, got {rows} x {columns} of {side}"
        )
    if len(sprites.names) < rows * columns:
        raise InputError(
            f"wanted {rows * columns} different names for a mosaic, {sprites.name} has {len(sprites.names)}"
        )
    dice = Dice(seed, number)
    image = np.empty((rows * side, columns * side, 3), np.uint8)
    things = []
    for place, name in enumerate(dice.choose("names", sprites.names, rows * columns)):
        sprite = dice.choose(f"sprite of {name}", sprites.by_name[name], 1)[0]
        y, x = place // columns * side, place % columns * side
        square = to_array(Image.fromarray(sprites.picture(sprite)), side)  # on white, where it is cut out
        image[y : y + side, x : x + side] = square
        box = Box(x, y, side, side)
        things.append(SceneObject(sprite.key, name, sprite.category, sprite.caption, box, (rectangle(box),)))
    return _scene(f"{sprites.name}-{rows}x{columns}-seed{seed}-{number:05d}", image, things)


def _place(
    sprites: SpriteSet, chosen: Sequence[Sprite], composition: Composition, dice: Dice
) -> tuple[UInt8[np.ndarray, "h w 3"], Int[np.ndarray, "h w"]] | None:
    """The image, and of every pixel the place in `chosen` of what is seen there, -1 for the ground; None if an object
    found no room."""
    width, height = composition.width, composition.height
    image = np.empty((height, width, 3), np.uint8)
    image[:] = [dice.whole(f"ground {channel}", *PAPER) for channel in "rgb"]
    owner = np.full((height, width), -1)
    whole = np.zeros(len(chosen), np.int64)  # pixels of each object, hidden or not
    for place, sprite in enumerate(chosen):
        share = dice.uniform(f"size {place}", composition.smallest, composition.largest)
        rgba = _sized(sprites.picture(sprite), max(2, round(share * min(width, height))))
        opaque = rgba[..., 3] >= OPAQUE
        down, across = opaque.shape
        whole[place] = opaque.sum()
        for number in range(PLACES):
            x = dice.whole(f"x {place} {number}", 0, width - across)
            y = dice.whole(f"y {place} {number}", 0, height - down)
            window = (slice(y, y + down), slice(x, x + across))
            seen = owner.copy()
            seen[window][opaque] = place
            visible = np.bincount(seen.ravel() + 1, minlength=len(chosen) + 1)[1 : place + 2]
            if (visible >= np.maximum(1, (1 - composition.overlap) * whole[: place + 1])).all():
                break
        else:
            return None
        owner, image[window] = seen, _blend(image[window], rgba)
    return image, owner


def _sized(rgba: UInt8[np.ndarray, "h w 4"], longer: int) -> UInt8[np.ndarray, "h2 w2 4"]:
    """As large as `longer` pixels on its longer side, at least one pixel opaque."""
    height, width = rgba.shape[:2]
    scale = longer / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    small = np.array(Image.fromarray(rgba).resize(size, how))
    if not (small[..., 3] >= OPAQUE).any():  # a thread thinner than half of a pixel
        small[..., 3][small[..., 3] == small[..., 3].max()] = 255
    return small


def _blend(under: UInt8[np.ndarray, "h w 3"], over: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    alpha = over[..., 3:].astype(np.uint32)
    return ((alpha * over[..., :3] + (255 - alpha) * under + 127) // 255).astype(np.uint8)


def _thing(sprite: Sprite, mask: Bool[np.ndarray, "h w"]) -> SceneObject:
    return SceneObject(sprite.key, sprite.name, sprite.category, sprite.caption, box_of(mask), outlines(mask))


def _scene(id: str, image: UInt8[np.ndarray, "h w 3"], things: Sequence[SceneObject]) -> Scene:
    phrases = [thing.caption for thing in things]
    caption = " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))
    return Scene(id, image, tuple(things), caption)
