"""`spae-train CONFIG [--variant NAME] [--section.field value ..]` and `spae-train eval BUNDLE DATA`."""

import argparse
import json
import logging
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from spae.cli import exit_status
from spae.errors import InputError
from tokenizer_train.config import Config

USAGE = """\
usage: spae-train CONFIG [--variant NAME] [--section.field value ..]
       spae-train CONFIG --dry-run [--device h100] [--devices 8] [--utilisation 0.4] [--json] [--section.field value ..]
       spae-train eval BUNDLE DATA [--limit N] [--json] ..

Train a tokenizer as CONFIG (a Python file, see configs/) says; a run that was stopped goes on from its newest
checkpoint. With --dry-run nothing is trained: it prints the parameters, the memory of each device, the operations
of a step and the hours that so many devices of that kind take. `spae-train CONFIG --help` lists every field with
its default, `spae-train eval --help` the options of the evaluation.

examples: spae-train configs/default64.py --variant cpu --optimizer.steps 2000 --run.output build/short
          spae-train configs/imagenet128.py --dry-run --device h100 --devices 8
          spae-train eval default 'photographs/*.tar' --json
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 done, 1 failed (one line on stderr), 2 bad usage, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_status("spae-train", lambda: _run(given))


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "eval":
        return _evaluate(arguments[1:])
    return _train(arguments[0], arguments[1:])


def load_config(file: str | Path, variant: str | None = None) -> Config:
    """`config()` of a config file, or the named entry of its `VARIANTS`.

    Raises:
        InputError: No such file, no such variant, or the file gives no Config.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(
            f"wanted a config file such as configs/default64.py or the word eval, got {str(file)!r}"
        )
    names = runpy.run_path(str(path))
    if not callable(names.get("config")):
        raise InputError(f"{path} must define a function config() that returns a Config")
    variants = names.get("VARIANTS", {})
    if variant is not None and variant not in variants:
        raise InputError(f"--variant must be one of {', '.join(variants) or '(none here)'}, got {variant!r}")
    config = names["config"]() if variant is None else variants[variant]()
    if not isinstance(config, Config):
        raise InputError(f"{path} must give a tokenizer_train.config.Config, got {type(config).__name__}")
    return config


def _train(file: str, arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--variant")
    parser.add_argument("--dry-run", action="store_true")
    # Only with --dry-run; without it they are left to whoever parses the fields, and refused.
    if "--dry-run" in arguments:
        parser.add_argument("--device", default="h100")
        parser.add_argument("--devices", type=int, default=1)
        parser.add_argument("--utilisation", type=float, default=None)
        parser.add_argument("--json", action="store_true")
    options, fields = parser.parse_known_args(arguments)
    default = load_config(file, options.variant)
    config = tyro.cli(
        Config,
        default=default,
        args=fields,
        prog=f"spae-train {file}",
        description=f"Train as {file} says. Example: spae-train {file} --optimizer.steps 2000",
    )
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


def _to_the_end(config: Config) -> int:
    """Train; the exit status."""
    from jax.errors import JaxRuntimeError

    from tokenizer_train.loop import Diverged, train
    from tokenizer_train.processes.mesh import is_main
    from tokenizer_train.processes.peers import leave
    from tokenizer_train.processes.preemption import Stopped

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


def _dry_run(config: Config, options: argparse.Namespace) -> int:
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
