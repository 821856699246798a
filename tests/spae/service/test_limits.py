"""Time and memory of requests, on an application of a few lines."""

import asyncio
import selectors

import pytest

from spae.service.batching import Overloaded
from spae.service.limits import Memory, TimeLimit

SCOPE = {"type": "http", "method": "GET", "headers": [], "path": "/"}


class Clock(selectors.DefaultSelector):
    """Time passes where an event loop would wait for it, and nowhere else: however long the machine takes."""

    now = 0.0

    def select(self, timeout=None):
        self.now += timeout or 0
        return super().select(0)


def loop() -> asyncio.AbstractEventLoop:
    clock = Clock()
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now
    return loop


def answered(app, received) -> list[dict]:
    """What an application under a limit of a twentieth of a second sends; `received`: its messages, then silence."""
    sent = []
    messages = iter(received)

    async def receive():
        message = next(messages, None)
        if message is None:
            await asyncio.Event().wait()
        return message

    async def send(message):
        sent.append(message)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(TimeLimit(app, 0.05)(SCOPE, receive, send), 20))
    return sent


async def reads(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await asyncio.Event().wait()


def part(more: bool) -> dict:
    return {"type": "http.request", "body": b"a", "more_body": more}


def test_a_body_that_does_not_come_is_the_clients_fault():
    start, body = answered(reads, [part(True), part(True)])
    assert start["status"] == 408
    assert b"did not arrive within 0.05 s" in body["body"]


def test_an_answer_that_does_not_come_is_ours():
    start, body = answered(reads, [part(True), part(False)])
    assert start["status"] == 503
    assert (b"retry-after", b"1") in start["headers"]
    assert b"no answer within" in body["body"]


def test_every_part_of_an_answer_begins_the_time_anew():
    async def streams(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(5):
            await asyncio.sleep(0.03)
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    assert len(answered(streams, [part(False)])) == 7


def test_an_answer_that_stops_half_way_breaks_off():
    async def stops(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        answered(stops, [part(False)])


def test_a_timeout_of_the_application_itself_is_not_taken_for_the_limit():
    async def fails(scope, receive, send):
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        answered(fails, [part(False)])


def test_memory_is_shared_and_given_back():
    memory = Memory(10)
    with memory.share() as one, memory.share() as other:
        one.take(4)
        other.take(6)
        with pytest.raises(Overloaded):
            one.take(1)
        assert memory.held == 10
    assert memory.held == 0
