"""Micro-batches: one thread owns the tokenizer, and requests that come at the same time share its calls.

By hand: what serves models in batches elsewhere is a server of its own (Triton, Ray Serve), with another protocol and
processes to run.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from spae.compiled import BUCKETS
from spae.errors import InputError
from spae.pyramid import Pyramid
from spae.region import check
from spae.service.telemetry import Telemetry, log_error
from spae.tokenizer import Tokenizer

LOG = logging.getLogger("spae.service")

# What can be done in one call: ("encode", side in pixels), ("rivals", None), ("regions", words), ("decode", layers).
Kind = tuple[str, int | None]
# What Tokenizer.rivals gives: a pyramid, and of every layer the ids of each place's rivals.
Ranked = tuple[Pyramid, tuple[Int[np.ndarray, "*grid count"], ...]]
MOST_RIVALS = 8
REGION_WORDS = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0  # after a crash, doubled by every further one
_TRIALS, _WORTH_IT = 2, 0.95  # a batch size is worth it with this part of the best size's images/s
_STOPPED = "the tokenizer is not running: it is being started again; try in a few seconds"


class Overloaded(Exception):
    """There is no place for more images; try again after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: float):
        super().__init__(f"the service is full; try again in {max(1, round(retry_after_s))} s")
        self.retry_after_s = retry_after_s


class Unavailable(Exception):
    """The tokenizer failed and is being started again, or the service is closing."""


@dataclass
class Places:
    """The places a request holds, one an image, from its arrival to its end."""

    count: int


@dataclass
class _Job:
    kind: Kind
    value: Any
    done: asyncio.Future
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """Gathers images into batches of the sizes that are compiled, and gives each its result.

    Args:
        tokenizer: what encodes and decodes; only the batcher's thread calls it after `start`.
        queue: places, one an image.
        max_wait_s: that an image waits for others to fill its batch.
        sizes: of batches, ascending from 1.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        telemetry: Telemetry,
        *,
        queue: int,
        max_wait_s: float,
        sizes: Sequence[int] = BUCKETS,
    ):
        self.tokenizer = tokenizer
        self.telemetry = telemetry
        self.queue = queue
        self.max_wait_s = max_wait_s
        self.sizes: tuple[int, ...] = ()
        self._tried = tuple(sizes)
        # Of the squares that the tokenizer looks at: of photographs, then of smaller images if those differ.
        self.sides = tuple(sorted({tokenizer.sight, tokenizer.image_size}, reverse=True))
        self.ready = False
        self.warm = False  # nothing is left to compile
        self._steps = self.warm_up()
        self._taken = 0
        self._rate = 1.0  # images/s, a running mean
        self._waiting: dict[Kind, deque[_Job]] = {}
        self._working: list[_Job] = []
        self._changed = threading.Condition()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="spae-batches", daemon=True)

    def warm_up(self) -> Iterator[None]:
        """Compile, a step at a time: batches of one; the search of rivals, and words of regions; larger batches, of
        encoding and of decoding from every prefix; the same of smaller squares. Of the sizes those are kept that are up
        to the largest that is worth it.

        Larger batches only wait longer where they are no faster for each image, as on CPUs, whose caches they leave.
        """
        rates: dict[int, float] = {}
        for batch in self._tried:
            images = [self._blank(self.sides[0])] * batch
            pyramids = self.tokenizer.encode(images)
            for layers in range(1, len(self.tokenizer.shape) + 1):
                self.tokenizer.decode(pyramids, layers)
            rates[batch] = batch / min(self._seconds(images) for _ in range(_TRIALS))
            largest = max(size for size in rates if rates[size] >= _WORTH_IT * max(rates.values()))
            self.sizes = tuple(size for size in rates if size <= largest)
            self._rate = rates[largest]
            yield
            if batch == 1:
                self._search(self.sides[0])
                yield
        for side in self.sides[1:]:
            for batch in self.sizes:
                self.tokenizer.encode([self._blank(side)] * batch)
                yield
            self._search(side)

    def _compile(self) -> None:
        """The next step. One that fails is the last: the sizes before it stay."""
        self.warm = bool(next(self._steps, True))
        if self.warm:
            facts = {"largest_batch": self.sizes[-1], "images_per_s": round(self._rate, 1)}
            LOG.info("warmed up", extra={"facts": facts})

    def _search(self, side: int) -> None:
        self._rivals(self._blank(side))
        if self.tokenizer.pursuit is not None:
            self.tokenizer.region_words(self._blank(side), (0, 0, side, side), self._region_words)

    def _seconds(self, images: Sequence[UInt8[np.ndarray, "s s 3"]]) -> float:
        start = time.perf_counter()
        self.tokenizer.encode(images)
        return time.perf_counter() - start

    async def start(self) -> None:
        """Compile batches of one, then begin; ready afterwards, and the rest is compiled between requests.

        Raises:
            Whatever the tokenizer raises.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(next, self._steps)
        self.ready = True
        self._thread.start()

    async def close(self) -> None:
        """Finish what has been taken, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        self.ready = False

    @contextmanager
    def places(self, count: int = 1) -> Iterator[Places]:
        """Places for a request, before anything is spent on it; `grow` when it turns out to have more images.

        Raises:
            Overloaded: so many are not free.
            Unavailable: the tokenizer is not running.
        """
        held = Places(0)
        self.grow(held, count)
        try:
            yield held
        finally:
            self._taken -= held.count
            self.telemetry.queue.set(self._taken)

    def grow(self, held: Places, count: int) -> None:
        """Make `held` at least `count` places.

        Raises:
            Overloaded, Unavailable: as `places`.
        """
        if not self.ready or self._closing:
            raise Unavailable(_STOPPED)
        more = max(0, count - held.count)
        if self._taken + more > self.queue:
            raise Overloaded(self._taken / self._rate)
        self._taken += more
        held.count += more
        self.telemetry.queue.set(self._taken)

    async def encode(
        self, images: Sequence[UInt8[np.ndarray, "s s 3"]], held: Places | None = None
    ) -> list[Pyramid]:
        """Squares that the tokenizer looks at (`Tokenizer.square`) to their pyramids, all layers. Those of one size
        share a batch.

        `held`: the request's places, if it has taken any.

        Raises:
            InputError: another size or dtype.
            Overloaded, Unavailable: as `places`.
        """
        self._check_images(images)
        kinds: list[Kind] = [("encode", len(image)) for image in images]
        return await self._submit(kinds, images, held)

    async def rivals(self, image: UInt8[np.ndarray, "s s 3"], held: Places | None = None) -> Ranked:
        """An image's pyramid, and of every place the next nearest words, `MOST_RIVALS` if there are so many; see
        `Tokenizer.rivals`.

        Raises:
            InputError, Overloaded, Unavailable: as `encode`.
        """
        self._check_images([image])
        return (await self._submit([("rivals", None)], [image], held))[0]

    async def regions(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        boxes: Sequence[Sequence[float]],
        held: Places | None = None,
    ) -> list[list[str]]:
        """Of each box (x, y, width, height) of an image REGION_WORDS words, or as many as there are at most; see
        `Tokenizer.region_words`. One after the other, so that other requests come between, in the places of an image.

        Raises:
            InputError: a box that is not on the image, or a tokenizer without words of regions.
            Overloaded, Unavailable: as `encode`.
        """
        if self.tokenizer.pursuit is None:
            raise InputError(
                "this service's tokenizer has no words of regions: ask for those of the whole image"
            )
        for box in boxes:
            check(box, *image.shape[:2])
        kind: Kind = ("regions", self._region_words)
        return [(await self._submit([kind], [(image, box)], held))[0] for box in boxes]

    async def decode(
        self, pyramids: Sequence[Pyramid], layers: int, held: Places | None = None
    ) -> list[UInt8[np.ndarray, "s s 3"]]:
        """The images that the first `layers` layers of this tokenizer's pyramids decode to.

        Raises:
            InputError: a pyramid has fewer layers or is another tokenizer's.
            Overloaded, Unavailable: as `places`.
        """
        for pyramid in pyramids:
            if pyramid.shape != self.tokenizer.shape or pyramid.vocabulary is not self.tokenizer.vocabulary:
                raise InputError("the pyramid is of another tokenizer: pass its text through parse")
        kinds: list[Kind] = [("decode", layers)] * len(pyramids)
        return await self._submit(kinds, [one.prefix(layers) for one in pyramids], held)

    async def _submit(self, kinds: Sequence[Kind], values: Sequence[Any], held: Places | None) -> list[Any]:
        if held is None:
            with self.places(len(values)) as held:
                return await self._submit(kinds, values, held)
        self.grow(held, len(values))
        loop = asyncio.get_running_loop()
        jobs = [_Job(kind, value, loop.create_future()) for kind, value in zip(kinds, values, strict=True)]
        with self._changed:
            for job in jobs:
                self._waiting.setdefault(job.kind, deque()).append(job)
            self._changed.notify()
        try:
            return list(await asyncio.gather(*(job.done for job in jobs)))
        finally:
            # When the request was given up, or one of its images failed, the thread passes over the rest.
            for job in jobs:
                job.done.cancel()

    def _run(self) -> None:
        """The thread: batches until the end; after a crash a pause, a trial of one image, and on."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                if not self.ready:
                    self.tokenizer.encode([self._blank(self.sides[0])])
                    self.ready = True
                    LOG.info("recovered")
                    pause = _FIRST_PAUSE_S
                while (batch := self._next()) is not None:
                    if batch:
                        self._work(batch)
                    else:
                        self._compile()
                return
            except BaseException as error:  # whatever it is: those who wait must hear of it
                self.ready = False
                self.telemetry.crashes.inc()
                log_error(LOG, "the tokenizer failed", error)
                self._fail()
                with self._changed:
                    if self._closing:
                        return
                    self._changed.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _next(self) -> list[_Job] | None:
        """The next batch: what has waited longest and others of its kind; None at the end. [] while there is something
        to compile and nobody waits, or more than the largest batch holds: larger ones will be done sooner."""
        with self._changed:
            while True:
                self._forget_cancelled()
                if self._waiting:
                    jobs = min(self._waiting.values(), key=lambda jobs: jobs[0].since)
                    if not (self.warm or self._closing) and len(jobs) > self.sizes[-1]:
                        return []
                    left = jobs[0].since + self.max_wait_s - time.perf_counter()
                    if len(jobs) >= self.sizes[-1] or left <= 0 or self._closing:
                        # Never padded: what is over the largest size that can be filled goes next.
                        count = max(size for size in self.sizes if size <= len(jobs))
                        self._working = [jobs.popleft() for _ in range(count)]
                        return self._working
                    self._changed.wait(left)
                elif self._closing:
                    return None
                elif not self.warm:
                    return []
                else:
                    self._changed.wait()

    def _forget_cancelled(self) -> None:
        kept = {
            kind: deque(job for job in jobs if not job.done.cancelled())
            for kind, jobs in self._waiting.items()
        }
        self._waiting = {kind: jobs for kind, jobs in kept.items() if jobs}

    def _work(self, batch: list[_Job]) -> None:
        what, layers = batch[0].kind
        start = time.perf_counter()
        for job in batch:
            self.telemetry.stage("queue", start - job.since)
        values = [job.value for job in batch]
        results: Any
        if what == "encode":
            results = self.tokenizer.encode(values)
        elif what == "decode":
            results = self.tokenizer.decode(values, layers)
        elif what == "regions":
            results = [self.tokenizer.region_words(image, box, self._region_words) for image, box in values]
        else:
            results = [self._rivals(value) for value in values]
        seconds = time.perf_counter() - start
        self.telemetry.stage(what, seconds)
        self.telemetry.batches.labels(what).observe(len(batch))
        self._rate = 0.8 * self._rate + 0.2 * len(batch) / seconds
        self._later(_give, list(zip(batch, results, strict=True)))
        self._working = []

    def _fail(self) -> None:
        """Everybody who waits gets Unavailable."""
        with self._changed:
            failed = self._working + [job for jobs in self._waiting.values() for job in jobs]
            self._waiting, self._working = {}, []
        self._later(_refuse, failed)

    def _later(self, function: Callable[[Any], None], argument: Any) -> None:
        # Futures belong to the event loop's thread.
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function, argument)

    def _rivals(self, image: UInt8[np.ndarray, "s s 3"]) -> Ranked:
        return self.tokenizer.rivals(image, min(MOST_RIVALS, len(self.tokenizer.vocabulary) - 1))

    @property
    def _region_words(self) -> int:
        return min(REGION_WORDS, self.tokenizer.pursuit.kinds) if self.tokenizer.pursuit is not None else 0

    def _check_images(self, images: Sequence[Any]) -> None:
        shapes = [(side, side, 3) for side in self.sides]
        for image in images:
            if image.dtype != np.uint8 or image.shape not in shapes:
                wanted = " or ".join(map(str, shapes))
                raise InputError(f"wanted uint8 images of shape {wanted}, got {image.dtype} {image.shape}")

    def _blank(self, side: int) -> UInt8[np.ndarray, "side side 3"]:
        return np.zeros((side, side, 3), np.uint8)


def _give(finished: Sequence[tuple[_Job, Any]]) -> None:
    for job, result in finished:
        if not job.done.done():
            job.done.set_result(result)


def _refuse(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if not job.done.done():
            job.done.set_exception(Unavailable(_STOPPED))
