"""Bounds at the fields of a config."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from spae.bounds import Positive, Range, check, check_fields
from spae.errors import InputError


@dataclass
class Config:
    count: Positive = 1
    share: Annotated[float, Range(0, 1)] = 1.0
    kind: Literal["one", "two"] = "one"
    sides: tuple[Positive, ...] = (1, 2)
    width: Positive | None = None
    decays: tuple[Annotated[float, Range(0, 1, open="high")], Annotated[float, Range(0, 1, open="high")]] = (
        0,
        0.9,
    )
    rate: Annotated[float, Range(0, open="low")] = 1e-4
    name: str = ""


def test_what_is_within():
    check_fields(Config())
    check_fields(Config(count=10**9, share=0.0, kind="two", sides=(), width=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "wanted count of at least 1, got 0"),
        ({"share": 1.1}, "wanted share from 0 to 1, got 1.1"),
        ({"share": float("nan")}, "wanted share from 0 to 1, got nan"),
        ({"kind": "three"}, "kind is one of one, two, not 'three'"),
        ({"sides": (1, 0)}, "wanted sides of at least 1, got 0"),
        ({"width": 0}, "wanted width of at least 1, got 0"),
        ({"decays": (0.5, 1.0)}, "wanted decays from 0 to 1, 1 left out, got 1.0"),
        ({"rate": 0.0}, "wanted rate above 0, got 0.0"),
        ({"rate": float("inf")}, "wanted rate above 0, got inf"),
    ],
)
def test_what_is_not(changes, message):
    with pytest.raises(InputError, match=message):
        check_fields(Config(**changes))


def test_a_rule_across_fields():
    check(True, "width", "left out", None)
    with pytest.raises(
        InputError, match=r"^width must be left out, got 3; change it in the config or on the"
    ):
        check(False, "width", "left out", 3)
