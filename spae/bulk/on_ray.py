"""A job's parts on Ray Data: actors that hold the tokenizer get numbers of parts and give back their bytes.

Images are read where the actor is, so every machine must see them under the same path; part files are written by the
process that started it all, and by no other.
"""

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from spae import bundle
from spae.bulk.job import Job
from spae.bulk.part import Bad, Part, encode_part, read_ahead
from spae.errors import BundleError, InputError

if TYPE_CHECKING:
    from spae.tokenizer import Tokenizer

LOCAL = "local"


def check_installed() -> None:
    """That Ray Data is there.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise InputError("no Ray Data here: pip install 'spae[ray]', or leave --ray out")


def parts(
    job: Job,
    numbers: Sequence[int],
    advance: Callable[[int], object],
    *,
    address: str = LOCAL,
    cores: int = 4,
) -> Iterator[Part]:
    """These parts, as they get ready.

    One actor for each GPU; where there is none, as many actors with `cores` cores each as there is room for. A part
    whose actor is lost is done again by another.

    Args:
        advance: told how many images more have been dealt with.
        address: of a running cluster ("auto": the one that this machine is in); "local": one on this machine, for
            as long as this lasts.
        cores: of an actor without a GPU; no more than the smallest machine has.

    Raises:
        InputError: Ray is not installed, no cluster is there, or an actor failed.
    """
    check_installed()
    with _connected(address) as ray:
        count, resources, threads = actors(ray.nodes(), cores)
        count = min(count, len(numbers))
        # By reference: a list of a million files is sent once to a machine, not with every actor.
        shared = ray.put(job)
        dataset = ray.data.from_items(list(numbers), override_num_blocks=len(numbers)).map_batches(
            Worker,
            fn_constructor_args=([shared], threads),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count),
            **resources,
        )
        try:
            # Not by rows, of which Ray holds one back until the next is there.
            for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in table.to_pylist():
                    bad = tuple(Bad(**one) for one in json.loads(row["bad"]))
                    part = Part(row["number"], row["data"], row["images"], bad)
                    advance(part.images + len(bad))
                    yield part
        except ray.exceptions.RayError as error:
            # What the actor raised, else what Ray says of its end.
            cause = getattr(error, "cause", None) or error
            reason = str(cause).strip() or type(cause).__name__
            raise InputError(f"a worker on Ray failed: {reason.splitlines()[0]}") from error


class Worker:
    """One actor: a tokenizer, and the threads that read for it.

    Args:
        job: a list of one reference to the Job; bare, Ray would resolve it before it got here.
        threads: that read, and that XLA computes with on a CPU.
    """

    def __init__(self, job: list[Any], threads: int) -> None:
        # Read when JAX is first used: XLA knows nothing of what Ray has set aside for this actor, and would start as
        # many threads as the machine has cores.
        os.environ["NPROC"] = str(threads)
        self._shared = job
        self._readers = ThreadPoolExecutor(threads)

    # Not made in the constructor: what fails there Ray reports late, and at length.
    @cached_property
    def _job(self) -> Job:
        import ray

        return ray.get(self._shared[0])

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        import spae

        if bundle.sha256(self._job.bundle) != self._job.bundle_sha256:
            raise BundleError(f"the bundle {self._job.bundle} is another one on this machine: copy it there")
        return spae.load(self._job.bundle)

    def __call__(self, batch: dict[str, np.ndarray]) -> Any:
        """The part whose number is in `batch`, as a table of one row."""
        import pyarrow as pa

        number = int(batch["item"][0])
        job, tokenizer = self._job, self._tokenizer
        images = read_ahead(job.source, job.indices(number), tokenizer.square, self._readers)
        with closing(images) as records:
            part = encode_part(tokenizer, job, number, records)
        return pa.table(
            {
                "number": pa.array([number], pa.int64()),
                "data": pa.array([part.data], pa.large_binary()),
                "images": pa.array([part.images], pa.int64()),
                "bad": pa.array([json.dumps([bad.note for bad in part.bad])]),
            }
        )


def actors(nodes: Sequence[dict[str, Any]], cores: int) -> tuple[int, dict[str, Any], int]:
    """How many actors, what each of them asks Ray for, and the threads it reads with."""
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpu = [one for one in machines if one.get("GPU", 0) >= 1]
    if with_gpu:
        threads = min(int(one.get("CPU", 1) // one["GPU"]) for one in with_gpu)
        return sum(int(one["GPU"]) for one in with_gpu), {"num_gpus": 1}, max(threads, 1)
    with_cpu = [int(one["CPU"]) for one in machines if one.get("CPU", 0) >= 1]
    if not with_cpu:
        raise InputError("the Ray cluster has no cores and no GPUs: start its workers first")
    cores = min(cores, *with_cpu)
    return sum(one // cores for one in with_cpu), {"num_cpus": cores}, cores


def _check_reachable(address: str) -> None:
    """Ray itself tries for ten minutes, and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise InputError(f"cannot reach the Ray cluster {address}: {error.strerror or error}") from error


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, quiet: no dashboard, no usage statistics, no progress bars and logs beside ours."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.data

    _check_reachable(address)
    new: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **new)
    except ConnectionError as error:
        raise InputError(
            f"cannot reach the Ray cluster {address}: is it there (ray start --head), and has this process its token "
            "(RAY_AUTH_MODE=token)?"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise InputError(f"cannot start Ray: {str(error).strip().splitlines()[0]}") from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.raise_original_map_exception = True
        # Errors are raised here, too.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        yield ray
    finally:
        ray.shutdown()
