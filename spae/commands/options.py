"""What the commands of `spae` have in common: how they are added, and the options that several of them take."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

# JAX takes a second to import: whatever needs it is imported where it is used, so that --help is instant.
if TYPE_CHECKING:
    from spae.tokenizer import Tokenizer


def add_command(commands: Any, name: str, purpose: str, example: str, run: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".", epilog=f"example: {example}"
    )
    command.set_defaults(run=run)
    return command


def add_layers(command: argparse.ArgumentParser) -> None:
    command.add_argument("--layers", type=positive, metavar="N", help="only the first N layers")


def add_json(command: argparse.ArgumentParser, purpose: str) -> None:
    command.add_argument("--json", action="store_true", help=purpose)


def add_output(command: argparse.ArgumentParser, metavar: str, purpose: str) -> None:
    command.add_argument("-o", "--output", type=Path, required=True, metavar=metavar, help=purpose)


def add_bundle(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--bundle", default="default", metavar="NAME_OR_PATH", help="the trained tokenizer (default)"
    )


def tokenizer_of(options: argparse.Namespace) -> "Tokenizer":
    import spae

    return spae.load(options.bundle)


def model_name(options: argparse.Namespace) -> str:
    return options.bundle.rstrip("/").rpartition("/")[2]


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


positive.__name__ = "whole number from 1"  # argparse: "invalid whole number from 1 value: '0'"
