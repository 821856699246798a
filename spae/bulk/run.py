"""A job from its first missing part to its last."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spae.bulk import local
from spae.bulk.folder import Folder
from spae.bulk.job import Job
from spae.bulk.part import Part
from spae.progress import Progress

# Makes these parts of a job, in any order, and tells how many images more have been dealt with.
Engine = Callable[[Job, Sequence[int], Callable[[int], object]], Iterator[Part]]


@dataclass(frozen=True)
class Done:
    """What is in the folder when all is done."""

    images: int  # with words
    bad: int  # that could not be read
    parts: int
    parts_written: int  # by this run
    images_per_s: float | None  # of this run, with its start; None: there was nothing left to do


def run(job: Job, output: str | Path, engine: Engine = local.parts) -> Done:
    """Do what is missing of the job in the folder `output`; its progress is told on stderr.

    Raises:
        InputError: the folder is another job's or in use, cannot be written, or the disk is full.
    """
    start = time.perf_counter()
    with Folder(output, job) as folder:
        missing = folder.missing
        left = sum(len(job.indices(number)) for number in missing)
        total = len(job.source)
        if missing:
            with Progress(total, "images", "image", total - left) as progress:
                for part in engine(job, missing, progress.update):
                    folder.write(part)
        folder.finish()
        seconds = time.perf_counter() - start
        return Done(
            total - folder.bad, folder.bad, len(job), len(missing), left / seconds if missing else None
        )
