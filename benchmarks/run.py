"""Measure everything and write it as JSON: `python -m benchmarks.run --output bench.json`.

Where `limits` is among what is measured, every stage that tells its work also has its share of the machine's limit.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

import spae
from benchmarks.bulk import bulk_engines
from benchmarks.limits import beside_limits, limits
from benchmarks.parts import parts
from benchmarks.peer import Peer
from benchmarks.quantizer import quantize_words
from benchmarks.search import kernels, log_sum_exp_words, nearest_word, widths
from benchmarks.service import under_load
from benchmarks.start import cold_and_warm
from benchmarks.timing import Result, table
from benchmarks.tokenizer import encode_and_decode, torch_peer
from benchmarks.training import train_step
from spae.bundle import SHIPPED
from spae.errors import BundleError, InputError
from spae.files import write_file
from tokenizer_train.config_file import load_config

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "default64.py"

# The words of the default pyramid for one image, a large vocabulary, the width of a language model's table; then one
# larger yet, and a batch of 32 images and a smaller one in the default's narrow view.
SEARCHES = ((597, 65_536, 512), (597, 262_144, 640), (19_104, 16_384, 16), (8_192, 16_384, 12))
BATCHES = (1, 32)
# Of the service, every load has so many turns of so many seconds; of bulk, every engine so many.
ROUNDS, LOAD_S = 3, 8.0


def pieces(bundle: str, peer: Peer | None = None) -> dict[str, Callable[[int], dict[str, Result]]]:
    """Name -> what measures it, given the number of repeats."""
    return {
        "limits": limits,
        "start": lambda repeats: cold_and_warm(bundle, min(repeats, 5)),
        "tokenizer": lambda repeats: encode_and_decode(spae.load(bundle), BATCHES, repeats, peer),
        "parts": lambda repeats: parts(spae.load(bundle), BATCHES, repeats),
        "quantizer": lambda repeats: quantize_words(spae.load(bundle), BATCHES, repeats, peer),
        "service": lambda repeats: under_load(spae.load(bundle), bundle, min(repeats, ROUNDS), LOAD_S),
        "bulk": lambda repeats: bulk_engines(bundle, min(repeats, ROUNDS)),
        "training": lambda repeats: train_step(
            load_config(CONFIG, "cpu"), spae.load(bundle).vocabulary, repeats, peer
        ),
        "nearest": lambda repeats: searches(repeats, peer),
        "widths": widths,
        "kernels": lambda repeats: kernels(_platform(), SEARCHES, repeats),
        "log_sum_exp": lambda repeats: log_sum_exp_words(*SEARCHES[0], repeats=repeats),
    }


def searches(repeats: int, peer: Peer | None) -> dict[str, Result]:
    """The nearest word at all sizes."""
    return {
        f"{n:,} x {v:,} x {c}, {name}": entry
        for n, v, c in SEARCHES
        for name, entry in nearest_word(n, v, c, repeats, peer).items()
    }


def _platform() -> str:
    """Of the devices that JAX computes on, by the name it has for compiling: it calls all GPUs gpu otherwise."""
    platform = jax.default_backend()
    return "cuda" if platform == "gpu" else platform


def machine() -> dict[str, Any]:
    """What the figures were measured on and with."""
    device = jax.local_devices()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device.device_kind,
        "platform": device.platform,
        "devices": len(jax.local_devices()),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "flax", "numpy", "spae")},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit status."""
    options = _parser().parse_args(arguments)
    # Compile times are of a fresh compilation; `start` measures what the cache saves, in processes of its own.
    jax.config.update("jax_enable_compilation_cache", False)
    results: dict[str, dict[str, Result]] = {}
    try:
        with ExitStack() as stack:
            peer = None
            if options.torch:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                made = torch_peer(options.torch, spae.load(options.bundle), _folder(options.bundle), folder)
                peer = stack.enter_context(closing(made))
            for name, measure in pieces(options.bundle, peer).items():
                if options.only is None or name in options.only:
                    print(f"measuring {name} ..", file=sys.stderr, flush=True)
                    results[name] = measure(options.repeats)
        if "limits" in results:
            results = beside_limits(results, results["limits"])
        print(table(results))
        document = {"machine": machine(), "bundle": options.bundle, "results": results}
        write_file(options.output, (json.dumps(document, indent=1) + "\n").encode())
    except (BundleError, InputError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    print(f"written to {options.output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="JSON", help="where to write")
    parser.add_argument(
        "--only", action="append", choices=list(pieces("")), help="this piece; may be repeated"
    )
    parser.add_argument(
        "--repeats",
        type=_positive,
        default=11,
        metavar="N",
        help="timed calls of each (11; starts: at most 5)",
    )
    parser.add_argument(
        "--torch",
        metavar="PYTHON",
        help="beside the same tokenizer in PyTorch, run by this interpreter; see benchmarks/torch_peer.py",
    )
    parser.add_argument("--bundle", default="default", metavar="NAME_OR_PATH", help="the tokenizer (default)")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"wanted a number from 1, got {text}")
    return value


def _folder(bundle: str) -> Path:
    """Where a bundle's files are: one shipped under this name, else the folder."""
    return SHIPPED / bundle if (SHIPPED / bundle).is_dir() else Path(bundle)


def _processor() -> str:
    """The processor's name where the system says it (Linux), else its family."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
