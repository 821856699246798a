"""Times of repeated calls, their median and spread, and the table they are printed in."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

Result = dict[str, Any]


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call, until every JAX array that it returns has been computed."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def interleaved(
    calls: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of every repeat of every call; what slows the machine for a while then slows all of them.

    `warmup`: calls before those that count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            elapsed = timed(call)
            if turn >= warmup:
                seconds[name].append(elapsed)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least, largest, and interquartile range."""
    first, third = np.percentile(values, [25, 75])
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "iqr": float(third - first),
    }


def result(seconds: Sequence[float], *, warmup: int = 1, first: float | None = None, **facts: Any) -> Result:
    """One entry of the JSON.

    Args:
        seconds: of every repeat.
        warmup: calls before them.
        first: seconds of the very first call, which traced and compiled; what it took beyond a usual call is
            reported as `compile_s`.
        facts: what was measured: dtype, batch, resolution ..
    """
    entry: Result = {
        **facts,
        "warmup": warmup,
        "repeats": len(seconds),
        "seconds": spread(seconds),
    }
    if first is not None:
        entry["compile_s"] = max(0.0, first - entry["seconds"]["median"])
    return entry


def rates(entry: Result, count: int, name: str) -> Result:
    """The entry with `count` things per call as a rate, its spread included."""
    seconds = entry["seconds"]
    return {
        **entry,
        name: {
            "median": count / seconds["median"],
            "min": count / seconds["max"],
            "max": count / seconds["min"],
        },
    }


def table(results: Mapping[str, Mapping[str, Result]]) -> str:
    """All entries, one a line: median, range and what else there is to say."""
    lines = [f"{'':34}{'median':>12}{'min .. max':>22}   "]
    for group, entries in results.items():
        for name, entry in entries.items():
            label = f"{group}: {name}"
            if entry["seconds"] is None:
                lines.append(f"{label:34}{'-':>12}{'':>22}   {entry['reason']}")
                continue
            seconds = entry["seconds"]
            span = f"{_time(seconds['min'])} .. {_time(seconds['max'])}"
            lines.append(f"{label:34}{_time(seconds['median']):>12}{span:>22}   {_notes(entry)}")
    return "\n".join(lines)


def _notes(entry: Result) -> str:
    notes = []
    for key, unit in (("images_per_s", "images/s"), ("steps_per_s", "steps/s"), ("tokens_per_s", "tokens/s")):
        if key in entry:
            notes.append(f"{entry[key]['median']:.3g} {unit}")
    if entry.get("temporary_bytes") is not None:
        notes.append(f"{entry['temporary_bytes'] / 1e6:.1f} MB temporary")
    if "of_limit" in entry:
        notes.append(f"{entry['of_limit']:.0%} of the limit")
    if "compile_s" in entry:
        notes.append(f"compiled in {entry['compile_s']:.1f} s")
    return ", ".join(notes)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"
