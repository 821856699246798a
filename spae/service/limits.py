"""How long a request may take, and how much memory the bodies of all requests."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spae.service.batching import Overloaded
from spae.service.errors import ApiError


class TimeLimit:
    """ASGI middleware: a request that has got nothing for `seconds` ends; every part of a streamed answer begins the
    time anew. 408 if the request's body was still coming, 503 otherwise; an answer that has begun breaks off."""

    def __init__(self, app: ASGIApp, seconds: float):
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        whole = begun = False
        loop = asyncio.get_running_loop()

        async def read() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)
            return message

        async def write(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)
            limit.reschedule(loop.time() + self.seconds)

        try:
            async with asyncio.timeout(self.seconds) as limit:
                await self.app(scope, read, write)
        except TimeoutError:
            if not limit.expired() or begun:
                raise
            await self._late(whole).response()(scope, receive, send)

    def _late(self, whole: bool) -> ApiError:
        if whole:
            message = f"no answer within {self.seconds:g} s: try again later, or with fewer images"
            return ApiError(503, message, code="timeout", retry_after_s=self.seconds)
        message = f"the request did not arrive within {self.seconds:g} s: send it faster, or send less"
        return ApiError(408, message, code="request_timeout", headers={"Connection": "close"})


class Memory:
    """Bytes that the bodies of requests hold, all together."""

    def __init__(self, limit: int):
        self.limit = limit
        self.held = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """One request's part of it, given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.held -= share.held


class Share:
    """What one request holds."""

    def __init__(self, memory: Memory):
        self.memory = memory
        self.held = 0

    def take(self, count: int) -> None:
        """Hold so many bytes more.

        Raises:
            Overloaded: the bodies of all requests are too large together.
        """
        if self.memory.held + count > self.memory.limit:
            raise Overloaded(1)
        self.memory.held += count
        self.held += count
