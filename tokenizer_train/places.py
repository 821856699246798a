"""Which fields of a config are places on somebody's machine, and what a bundle tells of them."""

import dataclasses
import re
from pathlib import Path
from typing import Any

_KEY = "place"


def place(parts: int) -> dict[str, int]:
    """Metadata of a field that holds a path, or several, or the name of a machine.

    Of each path bundle.json tells the last so many parts; with 0 it does not even tell the field.
    """
    return {_KEY: parts}


def told(section: Any) -> dict[str, Any]:
    """A config, or a section of one, for bundle.json: where things lay says nothing to others.

    A kind in front of a path, as in "clip:/home/me/clip", stays.
    """
    found = {}
    for field in dataclasses.fields(section):
        value, parts = getattr(section, field.name), field.metadata.get(_KEY)
        if dataclasses.is_dataclass(value):
            found[field.name] = told(value)
        elif parts != 0:
            found[field.name] = value if parts is None else _shortened(value, parts)
    return found


def _shortened(value: Any, parts: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_shortened(one, parts) for one in value)
    if not isinstance(value, str):
        return value
    kind = re.match(r"[\w-]+:(?!//)", value)
    start = kind.end() if kind else 0
    return value[:start] + "/".join(Path(value[start:]).parts[-parts:])
