"""What the factory knows of an image: what people said of it, and where things are."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from icl_runner.cells import shuffled
from icl_runner.data import layouts, sets
from icl_runner.data.scenes import Scene, compose
from icl_runner.data.sprites import SPRITES
from spae.errors import InputError
from spae.files import write_file

Corners = tuple[float, float, float, float]  # x1, y1, x2, y2: shares of the image's width and height


@dataclass(frozen=True)
class Described:
    """One image.

    Args:
        id: unique among them.
        image: its file, inside of the folder of images.
        captions: all equally right.
        things: name and corners of each; () where none is known.
    """

    id: str
    image: str
    captions: tuple[str, ...]
    things: tuple[tuple[str, Corners], ...] = ()


@dataclass(frozen=True)
class DescribedImages:
    """Images by id, each read when it is asked for; `name` is what reports call them."""

    name: str
    ids: Sequence[str]
    read: Callable[[str], Described]


def open_images(name: str, split: str | None, count: int, seed: int, folder: Path) -> DescribedImages:
    """The first `count` images in the order of the seed.

    Args:
        name: "tuxpaint" or "openmoji", whose scenes are composed and written into `folder` as PNG; else what
            `icl_runner.data.sets.captioned` takes, whose images stay where they are: COCO's captions, with the boxes
            of `annotations/instances_<split>.json` where that is there, or images with captions alone.

    Raises:
        InputError: nothing there that is understood, images that are no files, fewer than wanted, or a folder that
            cannot be made.
    """
    if name in SPRITES:
        if split is not None:
            raise InputError(f"composed scenes have no splits, got {split}: leave it out")
        return _composed(name, count, seed, folder)
    examples = sets.captioned(name, split)
    if examples.folder is None:
        raise InputError(
            f"wanted images that are files, since what is written names them by their paths; those of {examples.name} "
            "are within archives or tables: unpack them into a folder, each with its caption beside it (a.jpg, a.txt)"
        )
    boxes = layouts.coco_boxes(Path(name), examples.split) if layouts.caption_files(Path(name)) else {}
    chosen = shuffled([one for one in examples.examples if one.captions], seed, lambda one: one.key)[:count]
    if len(chosen) < count:
        raise InputError(
            f"wanted {count} images with captions, {examples.name} has {len(chosen)}: ask for fewer"
        )

    def read(key: str) -> Described:
        example = examples[key]
        return Described(key, example.image_key, example.captions, boxes.get(example.image_key, ()))

    return DescribedImages(examples.name, [one.key for one in chosen], read)


def _composed(name: str, count: int, seed: int, folder: Path) -> DescribedImages:
    sprites = SPRITES[name]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror or error}") from error

    def read(number: str) -> Described:
        scene = compose(sprites, seed, int(number))
        file = folder / f"{scene.id}.png"
        if not file.exists():
            _write_png(scene, file)
        width, height = scene.size
        things = tuple(
            (
                thing.name,
                (
                    thing.box.x / width,
                    thing.box.y / height,
                    (thing.box.x + thing.box.width) / width,
                    (thing.box.y + thing.box.height) / height,
                ),
            )
            for thing in scene.objects
        )
        return Described(scene.id, file.name, (scene.caption,), things)

    return DescribedImages(f"{name}, seed {seed}", [str(number) for number in range(count)], read)


def _write_png(scene: Scene, file: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(scene.image).save(data, "PNG")
    write_file(file, data.getvalue())
