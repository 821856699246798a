"""`spae bulk` in one process and on Ray Data, beside the tokenizer on images that lie in memory: `bulk_engines`.

Each is measured in a process of its own, `python -m benchmarks.bulk ENGINE TAR BUNDLE`, which prints when it began and
when each part was there.
"""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.timing import Result, rates, result, spread
from spae.bulk import local, on_ray
from spae.bulk.job import Job, open_job
from spae.demo import PHOTOGRAPHS

SIDE = 256  # pixels of the JPEG files
PART, PARTS = 64, 6
ENGINES = ("in memory", "one process", "Ray Data")


def bulk_engines(
    bundle: str, repeats: int, part_size: int = PART, engines: Sequence[str] = ENGINES
) -> dict[str, Result]:
    """Images/s from the first part to the last, and the seconds from the start to the first part.

    The images are JPEG files of 256 x 256 pixels in one tar shard; every one becomes all of its words, as JSON. "in
    memory": uint8 squares of the tokenizer's size, in batches of 32; the engines add reading, decoding and writing.
    """
    times: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "photographs.tar"
        _write_shard(shard, part_size * PARTS)
        for _ in range(repeats):
            for engine in engines:
                if engine != "Ray Data" or find_spec("ray"):
                    times.setdefault(engine, []).append(_measured(engine, shard, bundle, part_size))
    results: dict[str, Result] = {
        engine: {"seconds": None, "reason": "Ray is not installed"} for engine in engines
    }
    for engine, runs in times.items():
        entry = result(
            [(last - first) / (PARTS - 1) for _, first, *_, last in runs],
            part_images=part_size,
            resolution=SIDE,
            dtype="float32",
            start_s=spread([first - start for start, first, *_ in runs]),
        )
        results[engine] = rates(entry, part_size, "images_per_s")
    return results


def _write_shard(file: Path, images: int) -> None:
    photographs = sorted(PHOTOGRAPHS.glob("*.jpg"))
    encoded = []
    for path in photographs:
        buffer = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").resize((SIDE, SIDE)).save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    with tarfile.open(file, "w") as archive:
        for number in range(images):
            member = tarfile.TarInfo(f"{number:05}.jpg")
            member.size = len(encoded[number % len(encoded)])
            archive.addfile(member, io.BytesIO(encoded[number % len(encoded)]))


def _measured(engine: str, shard: Path, bundle: str, part_size: int) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.bulk", engine, str(shard), bundle, str(part_size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{engine} failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def _in_memory(job: Job) -> Iterator[Any]:
    import spae

    tokenizer = spae.load(job.bundle)
    squares = [tokenizer.square(job.source[index].image) for index in job.indices(0)]
    for _ in range(len(job)):
        yield tokenizer.encode(squares)


def _parts(engine: str, job: Job) -> Iterator[Any]:
    numbers = range(len(job))
    if engine == "in memory":
        return _in_memory(job)
    return {"one process": local.parts, "Ray Data": on_ray.parts}[engine](job, numbers, lambda images: None)


def main() -> None:
    engine, shard, bundle, part_size = sys.argv[1:]
    times = [time.perf_counter()]
    for _ in _parts(engine, open_job(shard, bundle, part_size=int(part_size))):
        times.append(time.perf_counter())
    print(json.dumps(times))


if __name__ == "__main__":
    main()
