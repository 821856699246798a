"""Whether anything has become slower: `python -m benchmarks.check`, half a minute.

Measures shares and ratios, each of two things that took turns in one run, and compares them with check.json: status 1
where one has fallen by more than a quarter. `--write` writes that table anew, after a change that is meant.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spae
from benchmarks.limits import work
from benchmarks.parts import programs
from benchmarks.search import two_minima
from benchmarks.timing import interleaved
from spae import frozen_lm
from spae.files import write_file
from spae.nearest import nearest

TABLE = Path(__file__).with_name("check.json")
FALLEN = 0.75  # of the table's ratio
SIDE = 2_048  # of the product that networks are shares of
BATCH, TOKENS = 8, 256
SEARCHES = {"narrow": (2_048, 16_384, 16), "wide": (576, 16_384, 512)}


def ratios(repeats: int) -> dict[str, float]:
    """Name -> ratio, the higher the better; of the least of all repeats, because other work only ever adds to them."""
    a = jnp.ones((SIDE, SIDE), jnp.float32)
    product = jax.jit(partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST))
    calls: dict[str, Callable[[], Any]] = {"product": partial(product, a, a)}
    flops: dict[str, float] = {}
    for name, sizes in SEARCHES.items():
        calls |= {f"{name} {form}": call for form, call in _searches(*sizes).items()}
    tokenizer = spae.load("default")
    looked_at = np.random.default_rng(0).integers(0, 256, (BATCH, *2 * [tokenizer.sight], 3), dtype=np.uint8)
    calls["encode"] = partial(tokenizer.encode, looked_at)
    for name, (program, arguments) in programs(tokenizer, BATCH).items():
        calls[name] = partial(program, *arguments)
        flops[name] = work(program.trace(*arguments))["flops"]
    lm = frozen_lm.load()
    generator = np.random.default_rng(0)  # every prompt is a new one: of those known, the cache is kept
    calls["prefill"] = lambda: lm.generate(
        generator.integers(100, lm.config.vocabulary, (1, TOKENS)).tolist(), 1
    )
    parameters = sum(one.size for one in jax.tree.leaves(lm.split()[1]))
    # The table of embeddings is looked up, and multiplied by for the last token alone.
    flops["prefill"] = 2.0 * TOKENS * (parameters - lm.config.vocabulary * lm.config.width)

    least = {name: min(seconds) for name, seconds in interleaved(calls, repeats).items()}
    peak = 2 * SIDE**3 / least["product"]
    return {
        "narrow search: full matrix / ours": least["narrow full"] / least["narrow ours"],
        "wide search: full matrix / ours": least["wide full"] / least["wide ours"],
        "encode: its programs / all of it": (least["look"] + least["words"]) / least["encode"],
        **{f"{name}: share of the product's FLOP/s": flops[name] / least[name] / peak for name in flops},
    }


def _searches(positions: int, words: int, width: int) -> dict[str, Callable[[], Any]]:
    generator = np.random.default_rng(0)
    z_nc, e_vc = (
        jax.device_put(generator.normal(size=(rows, width)).astype(np.float32)) for rows in (positions, words)
    )
    return {"ours": partial(jax.jit(nearest), z_nc, e_vc), "full": partial(jax.jit(two_minima), z_nc, e_vc)}


def fallen(measured: dict[str, float], table: dict[str, float]) -> list[str]:
    """What is below `FALLEN` of the table's, one line each; what the table has and was not measured, too."""
    lines = []
    for name, ratio in table.items():
        if name not in measured:
            lines.append(f"{name}: wanted about {ratio:.3g}, it was not measured")
        elif measured[name] < FALLEN * ratio:
            lines.append(f"{name}: wanted about {ratio:.3g}, got {measured[name]:.3g}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, compare; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__)
    parser.add_argument("--repeats", type=int, default=11, metavar="N", help="timed calls of each (11)")
    parser.add_argument("--write", action="store_true", help="write the table anew")
    options = parser.parse_args(arguments)
    table = {} if options.write else json.loads(TABLE.read_text())
    measured = ratios(options.repeats)
    for name, ratio in measured.items():
        print(f"{name:48}{ratio:8.3f}{table.get(name, float('nan')):8.3f}")
    if options.write:
        rounded = {name: round(ratio, 3) for name, ratio in measured.items()}
        write_file(TABLE, (json.dumps(rounded, indent=1) + "\n").encode())
        print(f"written to {TABLE}")
        return 0
    lines = fallen(measured, table)
    print(
        "\n".join(lines or ["nothing fell by more than a quarter"]), file=sys.stderr if lines else sys.stdout
    )
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
