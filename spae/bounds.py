"""Bounds of a config's fields: declared at the field, checked in one place."""

import math
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from spae.errors import InputError


@dataclass(frozen=True)
class Range:
    """What a number may be, ends included: `Annotated[int, Range(1)]`."""

    low: float
    high: float = math.inf


Positive = Annotated[int, Range(1)]


def check_fields(config: Any) -> None:
    """Check every field of a dataclass against its annotation: a `Range`, the choices of a `Literal`, the same of every
    item of a `tuple[.., ...]`; None passes where `| None` says so. Rules across fields are the config's own.

    Raises InputError: a value out of its range, or none of the choices; it names the field.
    """
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        _check(name, getattr(config, name), hint)


def _check(name: str, value: Any, hint: Any) -> None:
    kind, arguments = get_origin(hint), get_args(hint)
    if kind is Annotated:
        for bound in arguments[1:]:
            if isinstance(bound, Range) and not bound.low <= value <= bound.high:
                wanted = (
                    f"of at least {bound.low}"
                    if bound.high == math.inf
                    else f"from {bound.low} to {bound.high}"
                )
                raise InputError(f"wanted {name} {wanted}, got {value}")
    elif kind is Literal:
        if value not in arguments:
            raise InputError(f"{name} is one of {', '.join(map(str, arguments))}, not {value!r}")
    elif kind is tuple and arguments[-1] is ...:
        for item in value:
            _check(name, item, arguments[0])
    elif kind in (Union, UnionType) and value is not None and len(arguments) == 2 and type(None) in arguments:
        _check(name, value, next(one for one in arguments if one is not type(None)))
