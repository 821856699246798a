"""What the name of an image's file says of it, and what files beside it say: a folder's habits, and WebDataset's.

The fields of an image `cat/k.left.jpg` are `cat/k.left.cls`, or `cat/k.cls`, which all images of one key share; and so
on for each of FIELDS (WebDataset's convention: a key ends at the first point of the file's name).
"""

import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from spae.sources.columns import CAPTION_COLUMNS, LABEL_COLUMNS, column_of

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp")
# A class, as a number or a name; a caption; a JSON object with either, under the names that columns have.
FIELDS = ("cls", "txt", "json")

_WORDNET_ID = re.compile(r"(n\d{8})_")

# Field -> its bytes; None where an image has none.
Field = Callable[[str], bytes | None]


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder around it, is of programs (`.ipynb_checkpoints`, `._a.jpg`)."""
    return any(part.startswith(".") and part != ".." for part in PurePosixPath(name).parts)


def is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in EXTENSIONS and not is_hidden(name)


def class_name(text: str) -> str:
    """The name of a class as it is shown and compared: composed letters (NFC), no white space but single spaces.

    File systems and archives keep decomposed letters where one wrote composed ones; line breaks would end an answer.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def keys_of(name: str) -> list[str]:
    """Under which names, but for the field, the fields of an image may stand; the nearest first."""
    path = PurePosixPath(name)
    return [str(path.with_name(stem)) for stem in dict.fromkeys((path.stem, path.name.partition(".")[0]))]


def label_of(name: str, field: Field) -> str | None:
    """The class of an image: what its field `cls` says, else the folder around it, else its field `json`, else the
    WordNet id that its name begins with, as the names of ImageNet's files do (`n01440764_10026.JPEG`)."""
    if (content := field("cls")) is not None:
        return class_name(_text(content)) or None
    if folder := PurePosixPath(name).parent.name:
        return class_name(folder) or None
    if (value := _value(field, LABEL_COLUMNS)) is not None:
        return class_name(str(value)) or None
    found = _WORDNET_ID.match(PurePosixPath(name).name)
    return found[1] if found else None


def caption_of(field: Field) -> str | None:
    """The caption of an image: its field `txt`, else what its field `json` says."""
    if (content := field("txt")) is not None:
        return _text(content)
    value = _value(field, CAPTION_COLUMNS)
    return None if value is None else str(value).strip()


def _text(content: bytes) -> str:
    return content.decode("utf-8-sig", "replace").strip()


def _value(field: Field, names: tuple[str, ...]) -> Any:
    """What the JSON beside an image says under one of the names. It may be the file of another program: what is no
    JSON object says nothing."""
    content = field("json")
    try:
        found = json.loads(content) if content else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    value = found.get(column_of(list(found), names) or "")
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, str | int) else None
