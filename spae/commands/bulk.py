"""`spae bulk`: a data set of images to words."""

import argparse
import json
import signal
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from spae.commands.options import add_bundle, add_command, add_json, add_layers, positive
from spae.errors import InputError


def add(commands: Any) -> None:
    bulk = add_command(
        commands,
        "bulk",
        "a data set of images to words, in parts; the same command again goes on where it was stopped",
        "spae bulk 'train-*.tar' words --format parquet",
        _bulk,
    )
    bulk.add_argument(
        "input", metavar="INPUT", help="a folder of images, tar shards, parquet files or a TFDS directory"
    )
    bulk.add_argument("output", type=Path, metavar="OUTPUT", help="the folder to write")
    bulk.add_argument("--split", metavar="NAME", help="of a TFDS directory (train)")
    bulk.add_argument(
        "--format", choices=("jsonl", "parquet"), default="jsonl", help="of the part files (jsonl)"
    )
    bulk.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="on Ray: of a cluster (auto: the one this machine is in), or on this machine alone",
    )
    bulk.add_argument(
        "--cores", type=positive, default=4, metavar="N", help="of each of Ray's workers without a GPU (4)"
    )
    add_layers(bulk)
    add_json(bulk, "print what was done as JSON")
    add_bundle(bulk)


def _bulk(options: argparse.Namespace) -> int:
    from spae.bulk import local
    from spae.bulk.job import open_job
    from spae.bulk.run import run

    job = open_job(
        options.input, options.bundle, layers=options.layers, format=options.format, split=options.split
    )
    engine: Any = local.parts
    if options.ray:
        from spae.bulk import on_ray

        on_ray.check_installed()
        engine = partial(on_ray.parts, address=options.ray, cores=options.cores)
    # What stops a process stops it like the keyboard does: the part that is being made is dropped.
    kept = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Ray prints there what it has to say of lost workers, and standard output is for results.
        with redirect_stdout(sys.stderr):
            done = run(job, options.output, engine)
    except KeyboardInterrupt:
        raise InputError("stopped; the same command goes on where this one was") from None
    finally:
        signal.signal(signal.SIGTERM, kept)
    bad = options.output / "bad.jsonl"
    if options.json:
        print(json.dumps({"output": str(options.output), **asdict(done)}))
    else:
        images = f"{done.images:,} image{'' if done.images == 1 else 's'}"
        parts = f"{done.parts:,} part{'' if done.parts == 1 else 's'}"
        print(f"{options.output}: {images} in {parts}, {done.parts_written:,} written now")
    skipped = f"{done.bad:,} image{'' if done.bad == 1 else 's'}"
    if done.images == 0:
        raise InputError(f"none of {skipped} could be read: see {bad}")
    if done.bad:
        print(f"spae: skipped {skipped} that could not be read: see {bad}", file=sys.stderr)
    return 0
