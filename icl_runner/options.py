"""Fields of settings as the command line reads them, for tyro: each is refused with one sentence that says what was
wanted.

tyro reads everything else from the dataclasses themselves: the name of an option from its field, its help from the
comment beside it.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

# An option that is given or not, without a counterpart.
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]

NameOrPath = Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")]


def option(metavar: str) -> object:
    """How the value of an option is called."""
    return tyro.conf.arg(metavar=metavar)


def optional(metavar: str, *, name: str | None = None) -> object:
    """The same, where a default of None is explained by the help. `name`: of the option, if it is not the field's."""
    return tyro.conf.arg(name=name, metavar=metavar, help_behavior_hint="")


def whole(least: int) -> PrimitiveConstructorSpec[int]:
    """A whole number from `least`."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="N",
        instance_from_str=lambda texts: _whole(texts[0], least),
        is_instance=lambda value: value is None or isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    )


def wholes(least: int) -> PrimitiveConstructorSpec[tuple[int, ...]]:
    """One whole number from `least`, or several."""

    def read(texts: list[str]) -> tuple[int, ...]:
        if not texts:
            raise ValueError(f"wanted a whole number from {least}, or several; got none")
        return tuple(_whole(text, least) for text in texts)

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="N [N ..]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda values: list(map(str, values)),
    )


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise ValueError(f"wanted a whole number from {least}; got {text!r}")
    return value


# How many are asked about, of a field that is called `count`.
Count = Annotated[int, whole(1), tyro.conf.arg(name="examples")]


def choice(*names: str) -> PrimitiveConstructorSpec[str]:
    """One of these names."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(names) + "}",
        instance_from_str=lambda texts: texts[0],
        is_instance=lambda value: value in names,
        str_from_instance=lambda value: [value],
        choices=names,
    )


def some(metavar: str) -> PrimitiveConstructorSpec[tuple[str, ...]]:
    """At least one text."""

    def read(texts: list[str]) -> tuple[str, ...]:
        if not texts:
            raise ValueError("wanted at least one; got none")
        return tuple(texts)

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=list,
    )


def _model_name(texts: list[str]) -> str:
    provider, slash, name = texts[0].partition("/")
    if not (provider and slash and name):
        raise ValueError(
            f"wanted PROVIDER/NAME, such as spae-lm/default, completions/llama or openai/gpt-4o; got {texts[0]!r}"
        )
    return texts[0]


ModelName = Annotated[
    str,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PROVIDER/NAME",
        instance_from_str=_model_name,
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
    ),
]


def _pair(texts: list[str]) -> tuple[str, Any]:
    """key=value; a value that is JSON (a number, true, ..) is read as such."""
    key, equals, value = texts[0].partition("=")
    if not (key and equals):
        raise ValueError(f"wanted KEY=VALUE, such as dialect=vllm; got {texts[0]!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


_Pair = Annotated[
    tuple[str, Any],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="KEY=VALUE",
        instance_from_str=_pair,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda pair: [f"{pair[0]}={json.dumps(pair[1])}"],
    ),
]


def _mapping(
    pairs: Annotated[
        tuple[_Pair, ...],
        tyro.conf.arg(
            name="model-args",
            aliases=["-M"],
            metavar="KEY=VALUE",
            help="an argument of the provider, such as dialect=vllm",
        ),
        tyro.conf.UseAppendAction,
    ] = (),
) -> dict[str, Any]:
    return dict(pairs)


# -M KEY=VALUE, any number of them.
ModelArguments = Annotated[Mapping[str, Any], tyro.conf.arg(name="", constructor=_mapping)]
