"""What a bundle tells of the places in a config: every field that could hold one is filled with one."""

import copy
import dataclasses
import json
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from tokenizer_train.config import Config
from tokenizer_train.config_file import load_config
from tokenizer_train.identity import provenance
from tokenizer_train.places import told

PLACE = "/home/me/photographs/train/images"
NO_PLACES = ("train_split", "validation_split")  # names of TFDS's splits


def example(hint: Any) -> Any:
    """A value of a type that has text in it; None where it has none."""
    if hint is str:
        return PLACE
    if get_origin(hint) is Literal:
        return None
    parts = [example(one) for one in get_args(hint) if one is not Ellipsis]
    if all(one is None for one in parts):
        return None
    if get_origin(hint) is tuple:
        return tuple(1.0 if one is None else one for one in parts)
    return next(one for one in parts if one is not None)


def filled(section: Any, seen: list[str]) -> Any:
    """A copy with a place in every field that can hold text, past all checks."""
    section = copy.copy(section)
    hints = get_type_hints(type(section))
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            object.__setattr__(section, field.name, filled(value, seen))
        elif field.name not in NO_PLACES and (place := example(hints[field.name])) is not None:
            object.__setattr__(section, field.name, place)
            seen.append(field.name)
    return section


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("default64", "tiny")


def test_no_field_of_any_section_tells_where_things_lay(config) -> None:
    seen: list[str] = []
    everywhere = filled(config, seen)
    assert {"train", "mixture", "validation", "cache", "output", "initial", "guidance", "path"} <= set(seen)
    text = json.dumps(provenance(everywhere, 1, 1.0))
    assert "/home" not in text
    assert "photographs" not in text
    known = told(everywhere)
    assert known["data"]["train"] == "train/images"
    assert known["data"]["mixture"] == (("train/images", 1.0),)
    assert known["vocabulary"]["path"] == "images"
    assert known["mesh"] == {"data": -1, "fsdp": 1}


def test_what_is_no_place_stays(config) -> None:
    known = told(config)
    assert known["tokenizer"] == dataclasses.asdict(config.tokenizer)
    assert known["optimizer"] == dataclasses.asdict(config.optimizer)
    assert known["run"].keys() == {field.name for field in dataclasses.fields(config.run)} - {"output"}
    assert known["guidance"] == "conse"
    for name, short in (("clip:/a/b", "clip:b"), ("clip-jax:b", "clip-jax:b"), ("gs://a/b/c", "c")):
        other = copy.copy(config)
        object.__setattr__(other, "guidance", name)
        assert told(other)["guidance"] == short
