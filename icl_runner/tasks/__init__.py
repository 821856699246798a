"""The tasks, a file each: whatever lies in this folder is a task of `spae-icl run` (see `icl_runner.task`)."""

from importlib import import_module
from pkgutil import iter_modules

from icl_runner.task import REGISTERED, Task
from spae.errors import InputError

# In help and reports; others follow by name.
_ORDER = (
    "classify",
    "caption",
    "vqa",
    "regions",
    "corners",
    "detect",
    "propose",
    "interpret",
    "generate",
    "transform",
)


def names() -> list[str]:
    """Of all tasks, in the order in which they are shown."""
    found = sorted(module.name for module in iter_modules(__path__))
    return sorted(found, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


def find(name: str) -> type[Task]:
    """The task of this name.

    Raises:
        InputError: there is none.
    """
    if name not in names():
        raise InputError(f"wanted a task of {', '.join(names())}; got {name!r}")
    import_module(f"{__name__}.{name}")
    return REGISTERED[name]
