"""The service under load, beside the tokenizer in this process: `spae serve` and its clients are processes apart."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import Result, interleaved, rates, result, spread
from spae.demo import PHOTOGRAPHS
from spae.images import open_image
from spae.tokenizer import Tokenizer

BATCHES = (8, 16, 32)  # the service is compared with the fastest
PROGRAM = "import sys; from spae.cli import main; sys.exit(main())"
CLIENTS = (1, 8, 64)
# The largest of them is taken for saturation: two batches, one in work and one that waits.
SATURATION = CLIENTS[-1]


def under_load(
    tokenizer: Tokenizer, bundle: str, rounds: int, seconds: float, options: Sequence[str] = ()
) -> dict[str, Result]:
    """Images/s, median and 99th percentile with 1, 8 and 64 clients, and at twice the requests/s that the service
    answers with 64; each a JPEG file of 256 x 256 pixels to all of its words. In process: batches of arrays.

    Args:
        rounds: how often all of it takes its turn; the spread is theirs.
        seconds: of each kind of load in a round.
        options: more options of `spae serve`.
    """
    squares = [tokenizer.square(open_image(path)) for path in sorted(PHOTOGRAPHS.glob("*.jpg"))]
    largest_bhwc = np.stack([squares[i % len(squares)] for i in range(BATCHES[-1])])
    calls = {
        f"in process, batch {batch}": partial(tokenizer.encode, largest_bhwc[:batch]) for batch in BATCHES
    }
    in_process: dict[str, list[float]] = {name: [] for name in calls}
    loads: dict[str, list[dict[str, Any]]] = {}
    with _service(bundle, options) as url:
        _load(url, "--clients", SATURATION, 1.0)  # the first requests are slower
        for _ in range(rounds):
            _in_turn(calls, in_process)
            for clients in CLIENTS:
                load = _load(url, "--clients", clients, seconds)
                loads.setdefault(_named(clients), []).append(load)
            rate = 2 * len(load["answers"]) / load["seconds"]
            loads.setdefault("twice saturation", []).append(
                _load(url, "--rate", rate, seconds) | {"rate": rate}
            )
            _in_turn(calls, in_process)
    return _results(in_process, loads)


def _in_turn(calls: dict[str, Callable[[], Any]], seconds: dict[str, list[float]]) -> None:
    for name, times in interleaved(calls, repeats=4).items():
        seconds[name] += times


def _results(in_process: dict[str, list[float]], loads: dict[str, list[dict[str, Any]]]) -> dict[str, Result]:
    facts: dict[str, Any] = {"photographs": "JPEG, 256 x 256", "dtype": "float32"}
    results = {
        name: rates(result(in_process[name], dtype="float32", batch=batch), batch, "images_per_s")
        for name, batch in zip(in_process, BATCHES, strict=True)
    }
    whole = max(entry["images_per_s"]["median"] for entry in results.values())
    for name, turns in loads.items():
        served = [one["seconds"] for turn in turns for one in turn["answers"] if one["status"] == 200]
        per_s = [sum(one["status"] == 200 for one in turn["answers"]) / turn["seconds"] for turn in turns]
        results[name] = result(served, warmup=0, **facts) | {
            "images_per_s": spread(per_s),
            "part_of_in_process": statistics.median(per_s) / whole,
            "p99_s": float(np.percentile(served, 99)),
            "statuses": _counted(turns),
        }
    refused = [one for turn in loads["twice saturation"] for one in turn["answers"] if one["status"] == 429]
    overload = results["twice saturation"]
    overload["requests_per_s"] = statistics.median(turn["rate"] for turn in loads["twice saturation"])
    overload["p99_of_saturation"] = overload["p99_s"] / results[_named(SATURATION)]["p99_s"]
    overload["refused"] = {
        "seconds": spread([one["seconds"] for one in refused]) if refused else None,
        "p99_s": float(np.percentile([one["seconds"] for one in refused], 99)) if refused else None,
        "within_50_ms": statistics.fmean(one["seconds"] <= 0.05 for one in refused) if refused else None,
        "with_retry_after": sum(one["retry_after"] is not None for one in refused),
    }
    return results


def _named(clients: int) -> str:
    return f"{clients} client{'s' if clients > 1 else ''}"


def _counted(turns: Sequence[dict[str, Any]]) -> dict[str, int]:
    statuses = [str(one["status"]) for turn in turns for one in turn["answers"]]
    return {status: statuses.count(status) for status in sorted(set(statuses))}


@contextmanager
def _service(bundle: str, options: Sequence[str]) -> Iterator[str]:
    """`spae serve`, when everything is compiled, until the end of the block; gives its address."""
    # The upstream is never asked; without one, a language model would be loaded.
    fixed = ["serve", "--port", "0", "--bundle", bundle, "--upstream", "http://127.0.0.1:9/v1"]
    command = [sys.executable, "-c", PROGRAM, *fixed, *options]
    with (
        tempfile.NamedTemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "ready at" not in line:
                raise RuntimeError(f"spae serve did not start: exit status {process.wait()}")
            while b"warmed up" not in Path(log.name).read_bytes():
                if process.poll() is not None:
                    raise RuntimeError(
                        f"spae serve ended before all was compiled: status {process.returncode}"
                    )
                time.sleep(0.1)
            yield line.split()[3]
        finally:
            process.terminate()


def _load(url: str, kind: str, size: float, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.load", url, kind, str(size), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the clients failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)
