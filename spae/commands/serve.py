"""`spae serve`: the HTTP service."""

import argparse
from dataclasses import Field, fields
from typing import Any

from spae.bounds import Positive
from spae.commands.options import add_command, positive
from spae.errors import InputError
from spae.service.settings import Settings


def add(commands: Any) -> None:
    serve = add_command(
        commands,
        "serve",
        "the HTTP service: images to words and back, and chat with images for text-only models",
        "spae serve --port 8000 --upstream http://localhost:8080/v1",
        _serve,
    )
    for field in fields(Settings):
        if "help" in field.metadata:
            _add_option(serve, field)


def _add_option(command: argparse.ArgumentParser, field: Field) -> None:
    flag = field.metadata["flag"] or "--" + field.name.replace("_", "-")
    more: dict[str, Any] = {"default": field.default, "metavar": field.metadata["metavar"]}
    if isinstance(field.default, bool):
        more = {"action": "store_true"}
    elif isinstance(field.default, tuple):
        more |= {"action": "append", "default": []}
    elif field.default is not None:
        more["type"] = positive if field.type == Positive else type(field.default)
    command.add_argument(flag, dest=field.name, help=field.metadata["help"], **more)


def _serve(options: argparse.Namespace) -> int:
    try:
        from spae.service.serve import serve
    except ModuleNotFoundError as error:
        raise InputError(f"no module {error.name}: the service needs pip install 'spae[serve]'") from error
    given: dict[str, Any] = {}
    for field in fields(Settings):
        if "help" in field.metadata:
            value = getattr(options, field.name)
            given[field.name] = tuple(value) if isinstance(value, list) else value
    serve(Settings(**given))
    return 0
