"""`spae demo`: the page of photographs, their words and reconstructions."""

import argparse
from pathlib import Path
from typing import Any

from spae.commands.options import add_bundle, add_command, model_name, tokenizer_of


def add(commands: Any) -> None:
    demo = add_command(
        commands,
        "demo",
        "photographs, their words and every reconstruction on one HTML page",
        "spae demo --output demo",
        _demo,
    )
    demo.add_argument(
        "--output", type=Path, default=Path("demo"), metavar="DIR", help="where to write (./demo)"
    )
    add_bundle(demo)


def _demo(options: argparse.Namespace) -> int:
    from spae.demo import write_demo
    from spae.sources.clips import refuse_clips

    tokenizer = tokenizer_of(options)
    refuse_clips(tokenizer, "spae demo")
    write_demo(tokenizer, model_name(options), options.output)
    return 0
