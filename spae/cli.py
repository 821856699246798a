"""`spae`: images to words and back, from the command line.

Exit status: 0 done, 1 failed (one line on stderr), 2 bad usage, 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from spae.commands import bulk, demo, pictures, serve, vocab
from spae.errors import BundleError, InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    return run_command(_parser(), arguments)


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Run the command that `parser` leaves in `run`; errors in one line behind the program's name. The exit status."""
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (InputError, BundleError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            # The reader left (`spae encode .. | head`); what is still buffered has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spae",
        description="Images as pyramids of words of a frozen language model, and back.",
        epilog="example: spae encode cat.jpg --layers 2",
    )
    parser.add_argument("--version", action="version", version=f"spae {version('spae')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (pictures, bulk, vocab, serve, demo):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
