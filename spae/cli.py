"""`spae`: images to words and back, from the command line.

Exit status: 0 done, 1 failed (one line on stderr), 2 bad usage, 130 interrupted.
"""

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from spae.commands import bulk, demo, pictures, prompt, serve, vocab
from spae.errors import BundleError, InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    return run_command(_parser(), arguments)


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Run the command that `parser` leaves in `run`; the exit status."""

    def run() -> int:
        options = parser.parse_args(arguments)
        return options.run(options)

    return exit_status(parser.prog, run)


def exit_status(program: str, run: Callable[[], int]) -> int:
    """What `run` returns; 1 after an error, told in one line behind the program's name; 130 interrupted.

    If the reader of standard output leaves (`spae encode .. | head`), quietly 1, as Python's documentation has it.
    """
    # Tracing makes millions of small objects, and Python's collector would look through them after every 700: that is a
    # tenth of the time until something is compiled.
    gc.set_threshold(50_000, 10, 10)
    # What is there at the end goes with the process; Python would look through all of it once more.
    atexit.register(gc.freeze)
    told = False
    try:
        try:
            return run()
        except BrokenPipeError:
            raise
        except (InputError, BundleError, OSError) as error:
            told = True
            print(f"{program}: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            # Here, because what fails when Python flushes at its end is a traceback and another status; by print, which
            # takes a standard output that was closed from the start.
            print(end="", flush=True)
    except OSError as error:
        if not (told or isinstance(error, BrokenPipeError)):
            print(f"{program}: cannot write to standard output: {error.strerror}", file=sys.stderr)
        # What is still buffered has nowhere to go, and would be tried again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spae",
        description="Images as pyramids of words of a frozen language model, and back.",
        epilog="example: spae encode cat.jpg --layers 2",
    )
    parser.add_argument("--version", action="version", version=f"spae {version('spae')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (pictures, prompt, bulk, vocab, serve, demo):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
