"""How time and memory grow: `python -m benchmarks.growth --output growth.json --plot growth.png`.

The nearest word over the vocabulary, `encode` over the batch, the encoder over the side of the images. Of each the
exponent p of the power law seconds = a * size^p that fits best, least squares of the logarithms: 1 is in proportion.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

import spae
from benchmarks.run import machine
from benchmarks.timing import Result, interleaved, result
from spae.files import write_file
from spae.nearest import nearest
from spae.tokenizer import Tokenizer

POSITIONS, WIDTHS = 597, (16, 512)
WORDS = (8_192, 16_384, 32_768, 65_536, 131_072, 262_144)
BATCHES = (1, 8, 32, 128)
SIDES, IMAGES = (32, 64, 128, 256), 4


def growth(tokenizer: Tokenizer, repeats: int) -> dict[str, dict[str, Any]]:
    """Name -> "of" what, "exponent", and "sizes": size -> times and temporary bytes."""
    curves = {
        f"nearest word, {width} wide": _curve(
            "words", {words: _search(words, width) for words in WORDS}, repeats
        )
        for width in WIDTHS
    }
    generator = np.random.default_rng(0)
    squares = generator.integers(0, 256, (max(BATCHES), *2 * [tokenizer.sight], 3), dtype=np.uint8)
    encodes = {batch: (partial(tokenizer.encode, squares[:batch]), None) for batch in BATCHES}
    encoders = {side: _encoder(tokenizer, side) for side in SIDES}
    return curves | {
        "encode": _curve("images", encodes, repeats),
        "encoder": _curve("pixels a side", encoders, repeats),
    }


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """p of the power law that fits best."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _curve(
    of: str, calls: Mapping[int, tuple[Callable[[], Any], int | None]], repeats: int
) -> dict[str, Any]:
    """`calls`: size -> what is timed, and its temporary bytes where they are known."""
    seconds = interleaved({str(size): call for size, (call, _) in calls.items()}, repeats)
    sizes: dict[str, Result] = {
        str(size): result(seconds[str(size)], temporary_bytes=memory) for size, (_, memory) in calls.items()
    }
    medians = [entry["seconds"]["median"] for entry in sizes.values()]
    return {"of": of, "exponent": exponent(list(calls), medians), "sizes": sizes}


def _search(words: int, width: int) -> tuple[Callable[[], Any], int | None]:
    draw = np.random.default_rng(0).standard_normal
    return _compiled(nearest, draw((POSITIONS, width), np.float32), draw((words, width), np.float32))


def _encoder(tokenizer: Tokenizer, side: int) -> tuple[Callable[[], Any], int | None]:
    images = np.random.default_rng(0).random((IMAGES, side, side, 3), np.float32)
    graph = tokenizer._graph
    return _compiled(lambda params, x: nnx.merge(graph, params).encoder(x), tokenizer.parameters, images)


def _compiled(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[[], Any], int | None]:
    arguments = jax.device_put(arguments)
    compiled = jax.jit(function).lower(*arguments).compile()
    memory = compiled.memory_analysis()  # None where the platform does not say
    return partial(compiled, *arguments), memory and memory.temp_size_in_bytes


def plot(curves: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Seconds, and temporary memory where it is known, over size, both axes logarithmic: a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(curves), 4), layout="constrained")
    for axes, (name, curve) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        sizes = [int(size) for size in curve["sizes"]]
        entries = curve["sizes"].values()
        axes.loglog(sizes, [entry["seconds"]["median"] for entry in entries], "o-", label="seconds")
        memory = [entry["temporary_bytes"] for entry in entries]
        if None not in memory:
            axes.loglog(sizes, [each / 1e9 for each in memory], "s--", label="temporary memory in GB")
        axes.set(title=f"{name}: size^{curve['exponent']:.2f}", xlabel=curve["of"])
        axes.legend()
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, plot; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="JSON", help="where to write")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="where to plot")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="timed calls of each (5)")
    options = parser.parse_args(arguments)
    curves = growth(spae.load(), options.repeats)
    for name, curve in curves.items():
        print(f"{name}: seconds grow as {curve['of']}^{curve['exponent']:.2f}")
    document = {"machine": machine(), "curves": curves}
    write_file(options.output, (json.dumps(document, indent=1) + "\n").encode())
    if options.plot:
        plot(curves, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
