"""Micro-batches: sizes, order, places, crashes, the end. No test judges how long something takes."""

import asyncio
import threading
from collections import deque

import numpy as np
import pytest
from fake_tokenizer import FakeTokenizer

from spae.compiled import BUCKETS
from spae.errors import InputError
from spae.service.batching import Batcher, Overloaded, Unavailable, _Job
from spae.service.telemetry import Telemetry

PATIENCE_S = 60


class Watched(FakeTokenizer):
    """Notes every batch; waits at the gate before it works; breaks on demand, and shuts the gate."""

    def __init__(self):
        super().__init__()
        self.batches = []
        self.squares = []  # of every call of encode, the sides
        self.entered = 0  # calls, also those that wait
        self.gate = threading.Event()
        self.gate.set()
        self.broken = 0  # how many calls fail
        self.threads = set()

    def _enter(self, what, count):
        self.entered += 1
        assert self.gate.wait(PATIENCE_S)
        self.batches.append((what, count))
        self.threads.add(threading.current_thread().name)
        if self.broken:
            self.gate.clear()
            self.broken -= 1
            raise RuntimeError("out of memory while at Ada's holiday photograph")

    def encode(self, images):
        self.squares.append([len(image) for image in images])
        self._enter("encode", len(images))
        return super().encode(images)

    def decode(self, pyramids, layers=None):
        if isinstance(pyramids, list):
            self._enter(("decode", layers), len(pyramids))
        return super().decode(pyramids, layers)


def square(level: int) -> np.ndarray:
    return np.full((16, 16, 3), level, np.uint8)


def running(test, **options):
    """Runs a coroutine function with a batcher that has been warmed up and whose notes are empty."""

    async def run():
        tokenizer = Watched()
        options.setdefault("queue", 64)
        options.setdefault("max_wait_s", 0.02)
        batcher = Batcher(tokenizer, Telemetry(), **options)
        await batcher.start()
        await until(lambda: batcher.warm)
        batcher.sizes = options.get("sizes", BUCKETS)  # whichever of them was the fastest
        warm = list(tokenizer.batches)
        tokenizer.batches.clear()
        tokenizer.entered = 0
        tokenizer.threads.clear()
        try:
            await asyncio.wait_for(test(batcher, tokenizer), PATIENCE_S)
        finally:
            tokenizer.gate.set()
            await batcher.close()
        return warm

    return asyncio.run(run())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.002)


def test_every_shape_is_compiled():
    async def nothing(batcher, tokenizer):
        assert batcher.ready

    warm = running(nothing, sizes=(1, 2, 4))
    assert set(warm) == {
        (what, n) for n in (1, 2, 4) for what in ("encode", *(("decode", l) for l in (1, 2, 3)))
    }


class FarSighted(Watched):
    """Looks at photographs at a larger size than is encoded."""

    sight = 32


def test_squares_of_both_sizes_are_compiled_and_batched_apart():
    tokenizer = FarSighted()

    async def run():
        batcher = Batcher(tokenizer, Telemetry(), queue=64, max_wait_s=0.02, sizes=(1, 2))
        await batcher.start()
        await until(lambda: batcher.warm)
        kept = batcher.sizes
        assert {(len(one), one[0]) for one in tokenizer.squares} >= {
            (n, side) for n in kept for side in (16, 32)
        }
        batcher.sizes = (1, 2)
        tokenizer.squares.clear()
        try:
            large = square(200).repeat(2, axis=0).repeat(2, axis=1)
            images = [square(40), large, square(90), large, large]
            found = await asyncio.wait_for(batcher.encode(images), PATIENCE_S)
            assert [p.ids[0].item() for p in found] == [1, 6, 2, 6, 6]
            assert sorted(map(tuple, tokenizer.squares)) == [(16, 16), (32,), (32, 32)]
            with pytest.raises(InputError, match=r"\(32, 32, 3\) or \(16, 16, 3\), got uint8 \(24, 24, 3\)"):
                await batcher.encode([np.zeros((24, 24, 3), np.uint8)])
        finally:
            await batcher.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [
        ({1: 1, 2: 1, 4: 1, 8: 1}, (1, 2, 4, 8)),  # an accelerator: larger is faster for each image
        ({1: 1, 2: 1.9, 4: 3.9, 8: 9}, (1, 2, 4)),  # 8 leaves the caches
        ({1: 1, 2: 2.5, 4: 5, 8: 10}, (1,)),
    ],
)
def test_batches_only_as_large_as_is_worth_it(monkeypatch, seconds, kept):
    monkeypatch.setattr(Batcher, "_seconds", lambda self, images: seconds[len(images)])
    batcher = Batcher(Watched(), Telemetry(), queue=8, max_wait_s=0, sizes=(1, 2, 4, 8))
    sizes = [batcher.sizes for _ in batcher.warm_up()]
    assert sizes[0] == (1,)  # which it begins with
    assert batcher.sizes == kept


def test_larger_batches_are_compiled_while_nobody_waits_or_more_than_a_batch_holds():
    async def run():
        batcher = Batcher(Watched(), Telemetry(), queue=8, max_wait_s=0, sizes=(1, 2))
        next(batcher.warm_up())
        jobs = [
            _Job(("encode", 16), square(level), asyncio.get_running_loop().create_future())
            for level in (0, 1)
        ]
        assert batcher._next() == []
        batcher._waiting = {jobs[0].kind: deque(jobs[:1])}
        assert batcher._next() == jobs[:1]
        batcher._waiting = {jobs[0].kind: deque(jobs)}
        assert batcher._next() == []
        batcher._closing = True  # then nobody else comes
        assert [batcher._next(), batcher._next(), batcher._next()] == [jobs[:1], jobs[1:], None]
        batcher._closing = False
        batcher._waiting = {jobs[0].kind: deque(jobs)}
        batcher.warm = True
        assert [batcher._next(), batcher._next()] == [jobs[:1], jobs[1:]]

    asyncio.run(run())


def test_what_fails_while_it_is_compiled_ends_no_service(caplog):
    async def run():
        tokenizer = Watched()
        batcher = Batcher(tokenizer, Telemetry(), queue=8, max_wait_s=0, sizes=(1, 2, 4))
        encode = tokenizer.encode

        def too_large(images):
            if len(images) == 4:
                raise RuntimeError("out of memory")
            return encode(images)

        tokenizer.encode = too_large
        await batcher.start()
        await until(lambda: batcher.warm and batcher.ready)
        assert 4 not in batcher.sizes
        assert len(await asyncio.wait_for(batcher.encode([square(1)] * 5), PATIENCE_S)) == 5
        await batcher.close()

    with caplog.at_level("INFO", "spae.service"):
        asyncio.run(run())
    told = [record.getMessage() for record in caplog.records]
    assert told == ["the tokenizer failed", "recovered", "warmed up"]


def test_each_gets_its_own_result_and_one_thread_works():
    async def test(batcher, tokenizer):
        levels = [0, 255, 40, 130, 90]
        found = await asyncio.gather(*(batcher.encode([square(level)]) for level in levels))
        assert [p.ids[0].item() for (p,) in found] == [level // 32 for level in levels]
        several = await batcher.encode([square(200), square(10)])
        assert [p.ids[0].item() for p in several] == [6, 0]
        (image,) = await batcher.decode([several[0]], 2)
        np.testing.assert_array_equal(image, square(6 * 32 + 16))
        assert tokenizer.threads == {"spae-batches"}

    running(test)


def test_what_waits_goes_together_in_compiled_sizes():
    async def test(batcher, tokenizer):
        tokenizer.gate.clear()
        first = asyncio.ensure_future(batcher.encode([square(1)]))
        await until(lambda: tokenizer.entered)
        rest = [asyncio.ensure_future(batcher.encode([square(2)])) for _ in range(11)]
        await until(lambda: batcher._taken == 12)
        tokenizer.gate.set()
        await asyncio.gather(first, *rest)
        assert [n for _, n in tokenizer.batches] == [1, 8, 2, 1]

    running(test)


def test_a_full_batch_does_not_wait_and_an_only_image_waits_only_so_long():
    async def test(batcher, tokenizer):
        await asyncio.gather(*(batcher.encode([square(1)]) for _ in range(4)))
        assert tokenizer.batches == [("encode", 4)]

    # A wait that would fail the test.
    running(test, sizes=(1, 2, 4), max_wait_s=2 * PATIENCE_S)

    async def alone(batcher, tokenizer):
        await batcher.encode([square(1)])
        assert tokenizer.batches == [("encode", 1)]

    running(alone)


def test_kinds_are_not_mixed():
    async def test(batcher, tokenizer):
        (pyramid,) = await batcher.encode([square(100)])
        tokenizer.batches.clear()
        tokenizer.entered = 0
        tokenizer.gate.clear()
        first = asyncio.ensure_future(batcher.encode([square(1)]))
        await until(lambda: tokenizer.entered)
        rest = [
            asyncio.ensure_future(one)
            for one in (
                batcher.decode([pyramid], 1),
                batcher.decode([pyramid], 3),
                batcher.encode([square(3)]),
                batcher.decode([pyramid] * 3, 1),
            )
        ]
        await until(lambda: batcher._taken == 7)
        tokenizer.gate.set()
        await asyncio.gather(first, *rest)
        assert sorted(map(str, tokenizer.batches)) == sorted(
            map(str, [("encode", 1), (("decode", 1), 4), (("decode", 3), 1), ("encode", 1)])
        )

    running(test)


def test_places_are_bounded_and_come_back():
    async def test(batcher, tokenizer):
        tokenizer.gate.clear()
        running = [asyncio.ensure_future(batcher.encode([square(1)] * 2)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await batcher.encode([square(1)])
        assert refused.value.retry_after_s > 0
        tokenizer.gate.set()
        await asyncio.gather(*running)
        assert len(await batcher.encode([square(1)] * 4)) == 4
        with pytest.raises(Overloaded):
            await batcher.encode([square(1)] * 5)
        with batcher.places(3) as held:
            batcher.grow(held, 2)  # fewer than are held: nothing to take
            with pytest.raises(Overloaded):
                batcher.grow(held, 5)
            assert len(await batcher.encode([square(1)] * 4, held)) == 4
        assert batcher._taken == 0

    running(test, queue=4)


def test_a_request_that_was_given_up_is_passed_over():
    async def test(batcher, tokenizer):
        tokenizer.gate.clear()
        first = asyncio.ensure_future(batcher.encode([square(1)]))
        await until(lambda: tokenizer.entered)
        given_up = asyncio.ensure_future(batcher.encode([square(2)] * 5))
        kept = asyncio.ensure_future(batcher.encode([square(255)] * 2))
        await asyncio.sleep(0.01)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        tokenizer.gate.set()
        assert [p.ids[0].item() for p in await kept] == [7, 7]
        await first
        assert [n for _, n in tokenizer.batches] == [1, 2]
        assert batcher._taken == 0

    running(test)


def test_after_a_crash_all_who_wait_hear_of_it_and_it_recovers(caplog):
    async def test(batcher, tokenizer):
        tokenizer.gate.clear()
        tokenizer.broken = 2  # the batch, and the first trial after it
        working = asyncio.ensure_future(batcher.encode([square(1)]))
        await until(lambda: tokenizer.entered)
        waiting = asyncio.ensure_future(batcher.encode([square(1)] * 3))
        await asyncio.sleep(0.01)
        tokenizer.gate.set()
        for request in (working, waiting):
            with pytest.raises(Unavailable):
                await request
        assert not batcher.ready
        with pytest.raises(Unavailable):
            await batcher.encode([square(1)])
        tokenizer.gate.set()
        await until(lambda: tokenizer.broken == 0)
        tokenizer.gate.set()
        await until(lambda: batcher.ready)
        assert len(await batcher.encode([square(1)])) == 1
        assert batcher.telemetry.registry.get_sample_value("spae_tokenizer_crashes_total") == 2

    with caplog.at_level("INFO", "spae.service"):
        running(test)
    failures = [record for record in caplog.records if record.getMessage() == "the tokenizer failed"]
    assert failures[0].facts["error"] == "RuntimeError"
    assert "Ada" not in str([vars(record) for record in caplog.records])


def test_what_cannot_be_batched_is_refused_before_it_harms_others():
    async def test(batcher, tokenizer):
        with pytest.raises(InputError, match="wanted uint8 images of shape"):
            await batcher.encode([np.zeros((8, 8, 3), np.uint8)])
        (pyramid,) = await batcher.encode([square(1)])
        with pytest.raises(InputError, match="holds the first 1 of 3"):
            await batcher.decode([pyramid.prefix(1)], 2)
        with pytest.raises(InputError, match="another tokenizer"):
            await batcher.decode(FakeTokenizer().encode([square(1)]), 1)
        assert batcher.ready
        assert batcher._taken == 0

    running(test)


def test_closing_finishes_what_was_taken():
    async def run():
        tokenizer = Watched()
        batcher = Batcher(tokenizer, Telemetry(), queue=8, max_wait_s=PATIENCE_S)
        await batcher.start()
        requests = [asyncio.ensure_future(batcher.encode([square(level)])) for level in (0, 255, 100)]
        await asyncio.sleep(0.01)
        await batcher.close()
        assert [p.ids[0].item() for (p,) in await asyncio.gather(*requests)] == [0, 7, 3]
        with pytest.raises(Unavailable):
            await batcher.encode([square(1)])

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_a_tokenizer_that_does_not_start_is_told():
    async def run():
        tokenizer = Watched()
        tokenizer.broken = 1
        batcher = Batcher(tokenizer, Telemetry(), queue=8, max_wait_s=0)
        with pytest.raises(RuntimeError, match="out of memory"):
            await batcher.start()
        assert not batcher.ready
        await batcher.close()

    asyncio.run(run())
