"""Readers of the layouts that published image sets come in, and of the sets that are installed."""

import csv
import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import spae
from icl_runner.data.examples import Example, ExampleSet
from spae import class_names
from spae.errors import InputError
from spae.files import file_size
from spae.images import open_image
from spae.sources import FolderSource, open_source
from spae.sources.fields import class_name
from spae.weights.packages import package_file

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SPLITS = ("train", "val", "test")


def source(path: str | Path, split: str | None, wanted: str | None) -> ExampleSet:
    """Anything that `spae.sources.open_source` opens; `wanted` is what every image must have: label, caption or None.

    Raises:
        InputError: as `open_source`; an unknown split; images without what is wanted.
    """
    folder = Path(path)
    name = folder.name if folder.is_dir() else f"{folder.resolve().parent.name}/{folder.name}"
    table = class_names.table_beside(path)
    by_class = False
    if split is None and (folder / "dataset_info.json").is_file():
        split = "train"  # as `open_source` has it
    if split is None:
        opened = open_source(path)
    elif (folder / split).is_dir():
        opened = open_source(folder / split)
    elif (folder / "dataset_info.json").is_file():
        opened = open_source(path, split=split)
    elif by_class := split in {part for part, _ in table.values()}:
        opened = open_source(path)
    else:
        open_source(path)  # which says so if nothing is there at all
        there = sorted({part for part, _ in table.values() if part})
        raise InputError(
            f"{path} has no split {split}: wanted a folder of that name, or classes.tsv with that split"
            + (f", which has {', '.join(there)}" if there else "")
            + "; of shards give a part's files, such as 'FOLDER/PART-*.tar', and no split"
        )
    index = {key: number for number, key in enumerate(opened.keys)}
    examples = []
    for (key, number), label in zip(index.items(), opened.labels, strict=True):
        if by_class and (label is None or label not in table or table[label][0] != split):
            continue
        # Captions are read where they may be wanted: for some sources that reads the image's file, too.
        captioned = wanted == "caption" or (wanted is None and label is None)
        text = opened.caption(number) if captioned else None
        # Behind the first line of Tux Paint's stand its translations.
        caption = (text or "").strip().partition("\n")[0].strip()
        if (wanted == "label" and label is None) or (wanted == "caption" and not caption):
            what = (
                "a class (a folder around it)" if wanted == "label" else "a caption (a .txt file beside it)"
            )
            raise InputError(f"{path}: wanted {what} for every image, {key} has none")
        examples.append(Example(key, label, (caption,) if caption else ()))
    names = class_names.english((example.label for example in examples if example.label), folder, table)
    return ExampleSet(
        f"{name} {split}" if split else name,
        examples,
        names,
        lambda key: opened[index[key]].image,
        lambda: f"{opened.fingerprint} {split}",
        split,
        opened.folder if isinstance(opened, FolderSource) else None,
    )


def photographs(split: str | None) -> ExampleSet:
    """The shipped photographs: the label is the file's name, the caption what its README says of it."""
    if split is not None:
        raise InputError(f"the photographs have no splits, got {split}: leave it out")
    folder = Path(spae.__file__).parent / "photographs"
    rows = re.findall(
        r"^\| (\w+)\.jpg \| ([^|]+) \|", (folder / "README.md").read_text("utf-8"), re.MULTILINE
    )
    examples = [Example(f"{stem}.jpg", stem, (what.strip(),)) for stem, what in rows]
    names = {stem: stem for stem, _ in rows}
    return ExampleSet("photographs", examples, names, *_files(folder, examples), folder=folder)


def mnist(file: Path, split: str | None) -> ExampleSet:
    """mnist.npz, as Keras and others pass it on: x_train (60000, 28, 28) uint8, y_train, x_test, y_test."""
    split = _the_split(split, ("train", "test"), file)
    images, labels = mnist_arrays(file, split)
    keys = [f"{split}/{number:05d}" for number in range(len(images))]
    examples = [Example(key, str(label)) for key, label in zip(keys, labels.tolist(), strict=True)]

    def read(key: str) -> np.ndarray:
        return np.repeat(images[int(key.split("/")[1])][..., None], 3, axis=-1)

    names = {str(digit): word for digit, word in enumerate(DIGITS)}
    return ExampleSet(f"mnist {split}", examples, names, read, lambda: content([file]) + split, split)


def mnist_arrays(file: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 28, 28), white on black, and labels (n,) 0..9 of one split of mnist.npz.

    Raises:
        InputError: unreadable, or not these arrays.
    """
    try:
        # Opened here: of a damaged file NumPy leaves it open.
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
    except KeyError as error:
        raise InputError(f"wanted x_{split} and y_{split} in {file}: {error.args[0]}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"cannot read {file} as .npz: {error}") from error
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise InputError(
            f"wanted x_{split} uint8 (n, 28, 28) and y_{split} (n,) in {file}, got {images.dtype} {images.shape} and "
            f"{labels.shape}"
        )
    if not np.isin(labels, np.arange(10)).all():
        raise InputError(f"wanted labels 0 to 9 in {file}, got {sorted(set(labels.tolist()))[:12]}")
    return images, labels


def lists(folder: Path) -> list[str]:
    """Which of train, val and test have a list (a .csv) in the folder."""
    return [split for split in _SPLITS if (folder / f"{split}.csv").is_file()]


def mini_imagenet(folder: Path, split: str | None) -> ExampleSet:
    """mini-ImageNet by lists (Ravi and Larochelle): `<split>.csv` with filename,label, files in images/.

    Other labels than ImageNet's numbers get their names from `classes.tsv` beside the lists.
    """
    split = _the_split(split, lists(folder), folder)
    file = folder / f"{split}.csv"
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            rows = list(csv.DictReader(opened))
        examples = [Example(row["filename"], class_name(row["label"])) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {file}: {error}") from error
    except KeyError as error:
        raise InputError(f"wanted the columns filename and label in {file}, it lacks {error}") from error
    except TypeError as error:
        raise InputError(f"wanted the columns filename and label in {file}, a line is too short") from error
    table = class_names.table_beside(folder)
    names = class_names.english((example.label for example in examples if example.label), folder, table)
    files = _files(folder / "images", examples, file)
    return ExampleSet(f"{folder.name} {split}", examples, names, *files, split, folder / "images")


def caption_files(folder: Path) -> dict[str, Path]:
    """Split -> annotations/captions_<split>.json."""
    return {file.stem.removeprefix("captions_"): file for file in folder.glob("annotations/captions_*.json")}


def coco_captions(folder: Path, split: str | None) -> ExampleSet:
    """COCO captions (arXiv 1504.00325): all captions of an image are its references."""
    found = caption_files(folder)
    split = _the_split(split, sorted(found), folder)
    document = _json(found[split])
    try:
        captions: dict[int, list[str]] = {}
        for annotation in document["annotations"]:
            captions.setdefault(annotation["image_id"], []).append(annotation["caption"].strip())
        examples = [
            Example(image["file_name"], captions=tuple(captions[image["id"]])) for image in document["images"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{found[split]}: wanted images (id, file_name) and annotations (image_id, caption) for each, "
            f"something lacks {error}"
        ) from error
    files = _files(folder / split, examples, found[split])
    return ExampleSet(f"{folder.name} {split}", examples, {}, *files, split, folder / split)


def coco_boxes(
    folder: Path, split: str | None
) -> dict[str, tuple[tuple[str, tuple[float, float, float, float]], ...]]:
    """File of an image -> category and x1, y1, x2, y2 of each thing in it, as shares of width and height, from
    annotations/instances_<split>.json; {} where that file is not there.

    Raises:
        InputError: the file is not as COCO's.
    """
    file = folder / "annotations" / f"instances_{split}.json"
    if not file.is_file():
        return {}
    document = _json(file)
    found: dict[str, list[tuple[str, tuple[float, float, float, float]]]] = {}
    try:
        categories = {category["id"]: category["name"] for category in document["categories"]}
        images = {image["id"]: image for image in document["images"]}
        for annotation in document["annotations"]:
            image = images[annotation["image_id"]]
            x, y, across, down = annotation["bbox"]
            width, height = image["width"], image["height"]
            corners = (x / width, y / height, (x + across) / width, (y + down) / height)
            found.setdefault(image["file_name"], []).append((categories[annotation["category_id"]], corners))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"{file}: wanted categories (id, name), images (id, file_name, width, height) and annotations (image_id, "
            f"category_id, bbox of four numbers), something lacks {error}"
        ) from error
    return {name: tuple(things) for name, things in found.items()}


def question_files(folder: Path) -> dict[str, Path]:
    """Split -> v2_OpenEnded_mscoco_<split>_questions.json."""
    prefix, suffix = "v2_OpenEnded_mscoco_", "_questions"
    files = folder.glob(f"{prefix}*{suffix}.json")
    return {file.stem.removeprefix(prefix).removesuffix(suffix): file for file in files}


def vqa_v2(folder: Path, split: str | None) -> ExampleSet:
    """VQAv2 (arXiv 1612.00837): ten answers to each question."""
    found = question_files(folder)
    split = _the_split(split, sorted(found), folder)
    answers_file = folder / f"v2_mscoco_{split}_annotations.json"
    questions, annotations = _json(found[split]), _json(answers_file)
    try:
        answers = {
            annotation["question_id"]: tuple(answer["answer"] for answer in annotation["answers"])
            for annotation in annotations["annotations"]
        }
        examples = [
            Example(
                str(question["question_id"]),
                question=question["question"],
                answers=answers[question["question_id"]],
                image_key=f"COCO_{split}_{question['image_id']:012d}.jpg",
            )
            for question in questions["questions"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{found[split].name}: wanted questions (question_id, image_id, question), and answers to each in "
            f"{answers_file.name}; something lacks {error}"
        ) from error
    files = _files(folder / split, examples, found[split], answers_file)
    return ExampleSet(f"{folder.name} {split}", examples, {}, *files, split, folder / split)


def easy_vqa(split: str | None) -> ExampleSet:
    """The package easy-vqa (Victor Zhou, MIT licence): drawn shapes of one colour, 64 x 64, one answer a question."""
    split = _the_split(split, ("train", "test"), "easy-vqa")
    file = package_file("easy_vqa", "easy-vqa", f"data/{split}/questions.json")
    examples = [
        Example(f"{split}/{number}", question=question, answers=(answer,), image_key=f"{image}.png")
        for number, (question, answer, image) in enumerate(_json(file))
    ]
    folder = file.parent / "images"
    files = _files(folder, examples, file)
    return ExampleSet(f"easy-vqa {split}", examples, {}, *files, split, folder)


def _files(
    folder: Path, examples: Iterable[Example], *lists: Path
) -> tuple[Callable[[str], np.ndarray], Callable[[], str]]:
    """How images that are files of a folder are read and identified (with the files that list them).

    Raises:
        InputError: an image is not there.
    """
    keys = sorted({example.image_key for example in examples})
    there = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    missing = [key for key in keys if key not in there and not (folder / key).is_file()]
    if missing:
        raise InputError(
            f"wanted {len(keys)} images in {folder}, {len(missing)} are not there, such as {missing[0]}: "
            "unpack the images beside their lists"
        )
    return (
        lambda key: np.array(open_image(folder / key)),
        lambda: content([*lists, *(folder / key for key in keys)]),
    )


def content(files: Iterable[Path]) -> str:
    """sha256 over the names, sizes and bytes of files."""
    digest = hashlib.sha256()
    for file in files:
        size = file_size(file)
        digest.update(f"{file.name}\0{size}\0".encode())
        if not size:
            continue
        with open(file, "rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{file} is not JSON ({error}): copy it again") from error


def _the_split(split: str | None, known: Iterable[str], where: object) -> str:
    """The split asked for; where none was, "test", or the only one there is."""
    known = list(known)
    if split in known:
        return split
    if split is not None:
        raise InputError(f"wanted a split of {where} ({', '.join(known)}), got {split}")
    if "test" in known:
        return "test"
    if len(known) > 1:
        raise InputError(f"{where} has several splits ({', '.join(known)}): say which")
    return known[0]
