"""`spae prompt`: what to paste into a chat, so that a language model writes a picture in words."""

import argparse
from pathlib import Path
from typing import Any

from spae.commands.options import add_bundle, add_command, add_json, add_layers, tokenizer_of
from spae.commands.pictures import reader
from spae.errors import InputError


def add(commands: Any) -> None:
    prompt = add_command(
        commands,
        "prompt",
        "a text to paste into any chat, whose answer decode understands, as patches of colour",
        "spae prompt cat.jpg --layers 3",
        _prompt,
    )
    prompt.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="examples, told by their files' names (a photograph that comes with the project)",
    )
    add_layers(prompt)
    add_json(prompt, "ask for an answer in JSON")
    add_bundle(prompt)


def _prompt(options: argparse.Namespace) -> int:
    tokenizer = tokenizer_of(options)
    read = reader(tokenizer)
    examples: dict[str, Any] = {}
    for path in options.images:
        what = Path(path).stem.replace("_", " ").replace("-", " ")
        if what in examples:
            raise InputError(f"two examples are called {what!r}: name each file after what it shows")
        examples[what] = read(path)
    print(tokenizer.prompt(options.layers, examples or None, options.json), end="")
    return 0
