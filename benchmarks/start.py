"""From the shell to the words of one photograph: `spae encode` as a fresh process."""

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.timing import Result, interleaved, result
from spae.demo import PHOTOGRAPHS

PHOTOGRAPH = PHOTOGRAPHS / "cat.jpg"


def cold_and_warm(bundle: str, repeats: int) -> dict[str, Result]:
    """Cold: each run has an empty compile cache. Warm: the cache of an earlier run. The program's own files have
    been read before in both (the first run of each is not counted)."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept"
        calls = {"cold": partial(_cold, bundle, Path(folder)), "warm": partial(_encode, bundle, kept)}
        seconds = interleaved(calls, repeats)
    facts: dict[str, Any] = {"photograph": PHOTOGRAPH.name, "batch": 1, "dtype": "float32"}
    return {name: result(seconds[name], compile_cache=name, **facts) for name in calls}


def _cold(bundle: str, folder: Path) -> None:
    _encode(bundle, Path(tempfile.mkdtemp(dir=folder)))


def _encode(bundle: str, cache: Path) -> None:
    command = [sys.executable, "-c", "import sys; from spae.cli import main; sys.exit(main())"]
    # A cache that JAX was given by the caller would replace ours.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [*command, "encode", str(PHOTOGRAPH), "--bundle", bundle],
        env=environment | {"SPAE_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"spae encode failed: {done.stderr.strip()}")
