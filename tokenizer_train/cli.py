"""`spae-train CONFIG [--variant NAME] [--section.field value ..]`, and `spae-train finetune | new | eval`."""

import argparse
import dataclasses
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from spae.cli import exit_status
from spae.errors import InputError
from spae.files import write_file
from tokenizer_train.config import Config
from tokenizer_train.config_file import load_config, written
from tokenizer_train.connector.config import ConnectorExperiment

Experiment = Config | ConnectorExperiment

USAGE = """\
usage: spae-train CONFIG [--variant NAME] [--section.field value ..]
       spae-train CONFIG --dry-run [--device h100] [--devices 8] [--utilisation 0.4] [--json] [--section.field value ..]
       spae-train finetune IMAGES [--bundle NAME] [--dry-run ..] [--section.field value ..]
       spae-train new FILE [--from CONFIG] [--variant NAME] [--section.field value ..]
       spae-train eval BUNDLE DATA [--limit N] [--json] ..

Train a tokenizer, or a connector, as CONFIG says, a Python file or the name of one of configs/; a run that was stopped
goes on from its newest checkpoint. With --dry-run nothing is trained: it prints the parameters, the memory of each
device, the operations of a step, the time that so many devices of that kind take, and which files are missing.
`spae-train CONFIG --help` lists every field with its default, `spae-train eval --help` the options of the evaluation.

finetune goes on with the weights of a bundle (that which is shipped) on images of one's own: how the words of meaning
are chosen stays, encoder, decoder and the map of what words look like are trained; with --run.trains decoder (the
default where the encoder itself chooses the words of meaning) the decoder alone, and every word stays. new writes a
config of one's own, begun with another (default64).

examples: spae-train default64 --variant cpu --optimizer.steps 2000 --run.output build/short
          spae-train imagenet128 --dry-run --device h100 --devices 8
          spae-train finetune photographs
          spae-train new mine.py --variant cpu --vocabulary.path default --data.train photographs --data.validation None
          spae-train eval default 'photographs/*.tar' --json
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 done, 1 failed (one line on stderr), 2 bad usage, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_status("spae-train", lambda: _run(given))


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        return _usage(bool(arguments))
    command, *rest = arguments
    if command == "eval":
        return _evaluate(rest)
    if command in ("finetune", "new"):
        if not rest or rest[0].startswith("-"):
            return _usage(bool(rest) and rest[0] in ("-h", "--help"))
        return _finetune(*rest) if command == "finetune" else _new(*rest)
    return _train(command, lambda variant: load_config(command, variant), rest)


def _usage(asked: bool) -> int:
    print(USAGE, end="", file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _finetune(images: str, *arguments: str) -> int:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--bundle", default="default")
    options, rest = parser.parse_known_args(arguments)

    def config(variant: str | None) -> Config:
        from spae.sources import open_source
        from tokenizer_train.finetune import finetune_config

        if variant is not None:
            raise InputError(f"finetune has no variants, got --variant {variant}: leave it out")
        open_source(images)  # a name that is mistyped is told at once, in a dry run, too
        return finetune_config(images, options.bundle)

    return _train(f"finetune {images}", config, rest, device="cpu")


def _new(file: str, *arguments: str) -> int:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--from", dest="begun", default="default64")
    parser.add_argument("--variant")
    options, fields = parser.parse_known_args(arguments)
    path = Path(file)
    if path.suffix != ".py":
        raise InputError(f"wanted the name of a Python file to write, such as mine.py, got {file!r}")
    if path.exists():
        raise InputError(f"{path} is there already: choose another name, or remove it")
    base = load_config(options.begun, options.variant)
    run: Any = dataclasses.replace(base.run, output=f"build/{path.stem}")
    base = dataclasses.replace(base, run=run)
    config = _with_fields(base, f"new {file}", fields)
    begun = options.begun if options.variant is None else f"{options.begun} --variant {options.variant}"
    write_file(path, written(config, path, begun).encode())
    print(f"{path}: look through it, then spae-train {path} --dry-run --device cpu, and spae-train {path}")
    return 0


def _with_fields(default: Experiment, command: str, fields: Sequence[str]) -> Experiment:
    """The config with the fields that the command line gives."""
    return tyro.cli(
        type(default),
        default=default,
        args=fields,
        prog=f"spae-train {command}",
        description=f"Train as {command} says. Example: spae-train {command} --optimizer.steps 2000",
    )


def _train(
    command: str,
    config_of: Callable[[str | None], Experiment],
    arguments: Sequence[str],
    device: str = "h100",
) -> int:
    """Train, or tell what it would take.

    Args:
        command: what stands before the arguments.
        config_of: from the name of a variant, or None, to the config.
        device: whose time a dry run tells, unless it is asked for another's.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--variant")
    parser.add_argument("--dry-run", action="store_true")
    # Only with --dry-run; without it they are left to whoever parses the fields, and refused.
    if "--dry-run" in arguments:
        parser.add_argument("--device", default=device)
        parser.add_argument("--devices", type=int, default=1)
        parser.add_argument("--utilisation", type=float, default=None)
        parser.add_argument("--json", action="store_true")
    options, fields = parser.parse_known_args(arguments)
    config = _with_fields(config_of(options.variant), command, fields)
    if options.dry_run:
        return _dry_run(config, options)
    # Loaded late: the networks and the input pipeline take seconds, --help and a mistyped field should not.
    from spae.compiled import keep_compiled
    from tokenizer_train.processes.mesh import start
    from tokenizer_train.processes.peers import together

    # Orbax logs pages of tracebacks for a disk that is full; the run says it in a line.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    keep_compiled()
    start(config.mesh)
    status = 1
    with together():
        status = _to_the_end(config)
    return status


def _to_the_end(config: Experiment) -> int:
    """Train; the exit status."""
    from jax.errors import JaxRuntimeError

    from tokenizer_train.loop import train
    from tokenizer_train.processes.mesh import is_main
    from tokenizer_train.processes.peers import leave
    from tokenizer_train.processes.preemption import Stopped
    from tokenizer_train.reporter import Diverged

    try:
        folder = train(config)
        if is_main():
            print(f"bundle: {folder}")
    except Stopped as stopped:
        # A scheduler that takes the machine back wants to see success; whoever presses Ctrl-C, that it is not done.
        status = 0 if stopped.signal == signal.SIGTERM else 1
        if stopped.step == 0:
            leave(str(stopped), status)
        if is_main():
            print(stopped, flush=True)
        return status
    except KeyboardInterrupt:
        raise InputError("stopped; the same command goes on from the newest checkpoint") from None
    except Diverged as error:
        raise InputError(str(error)) from error
    except JaxRuntimeError as error:
        # Of a device or of the way to another process: too little memory, a process that died.
        reason = str(error).splitlines()[0]
        raise OSError(f"{reason}; see docs/operations.md, What to do when it fails") from error
    return 0


def _dry_run(config: Experiment, options: argparse.Namespace) -> int:
    import jax

    # As many devices as asked for, made of this machine's processor; nothing is computed on them.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(options.devices, 1))
    from tokenizer_train.dry_run import UTILISATION, estimate, table

    utilisation = UTILISATION if options.utilisation is None else options.utilisation
    result = estimate(config, options.devices, options.device, utilisation)
    print(json.dumps(result, indent=2) if options.json else table(result))
    return 0


def _evaluate(arguments: Sequence[str]) -> int:
    from tokenizer_train.evaluation.evaluate import Options, run

    run(
        tyro.cli(
            Options,
            args=arguments,
            prog="spae-train eval",
            description="Measure a bundle on images. Example: spae-train eval default 'novel-*.tar'",
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
