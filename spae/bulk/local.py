"""A job's parts in this process: threads read and decode images while JAX encodes those before."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice

from spae.bulk.job import Job
from spae.bulk.part import Part, encode_part, read_ahead


def parts(job: Job, numbers: Sequence[int], advance: Callable[[int], object]) -> Iterator[Part]:
    """These parts, in this order.

    Args:
        advance: told how many images more have been dealt with.
    """
    import spae

    tokenizer = spae.load(job.bundle)
    indices = (index for number in numbers for index in job.indices(number))
    with (
        ThreadPoolExecutor(cores()) as pool,
        closing(read_ahead(job.source, indices, tokenizer.square, pool)) as records,
    ):
        for number in numbers:
            yield encode_part(tokenizer, job, number, islice(records, len(job.indices(number))), advance)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
