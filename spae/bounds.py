"""Bounds of a config's fields: declared at the field, checked in one place."""

import math
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from spae.errors import InputError


@dataclass(frozen=True)
class Range:
    """What a number may be, ends included unless `open`: `Annotated[int, Range(1)]`. Never NaN or infinite."""

    low: float
    high: float = math.inf
    open: Literal["", "low", "high"] = ""  # the end that is left out

    def holds(self, value: float) -> bool:
        if isinstance(value, float) and not math.isfinite(value):
            return False
        inside = self.low <= value <= self.high
        return inside and not (self.open and value == getattr(self, self.open))

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"above {self.low}" if self.open == "low" else f"of at least {self.low}"
        return f"from {self.low} to {self.high}" + (f", {self.high} left out" if self.open == "high" else "")


Count = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
Share = Annotated[float, Range(0, 1)]


def check_fields(config: Any, section: str = "") -> None:
    """Check every field of a dataclass against its annotation: a `Range`, the choices of a `Literal`, the same of every
    item of a tuple; None passes where `| None` says so. Rules across fields are the config's own, told to `check`.

    Args:
        section: stands before the fields' names in messages, such as "data.".

    Raises:
        InputError: a value out of its range, or none of the choices; it names the field.
    """
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        _check(f"{section}{name}", getattr(config, name), hint)


def check(condition: bool, name: str, wanted: str, value: object) -> None:
    """Hold a config to one of its own rules.

    Raises:
        InputError: the condition does not hold; it names the field, what it must be and what it is.
    """
    if not condition:
        raise InputError(
            f"{name} must be {wanted}, got {value!r}; change it in the config or on the command line"
        )


def _check(name: str, value: Any, hint: Any) -> None:
    kind, arguments = get_origin(hint), get_args(hint)
    if kind is Annotated:
        for bound in arguments[1:]:
            if isinstance(bound, Range) and not bound.holds(value):
                raise InputError(f"wanted {name} {bound}, got {value}")
    elif kind is Literal:
        if value not in arguments:
            raise InputError(f"{name} is one of {', '.join(map(str, arguments))}, not {value!r}")
    elif kind is tuple:
        hints = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        for item, one in zip(value, hints, strict=True):
            _check(name, item, one)
    elif kind in (Union, UnionType) and value is not None and len(arguments) == 2 and type(None) in arguments:
        _check(name, value, next(one for one in arguments if one is not type(None)))
