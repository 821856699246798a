"""Answers as server-sent events, as OpenAI's streams have them."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from functools import partial
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse

from spae.service.errors import ApiError
from spae.service.running import service_of


class _Streamed(StreamingResponse):
    """Lets go of the upstream at the end, however it came."""

    def __init__(self, content: AsyncIterator[bytes], stack: AsyncExitStack):
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._stack = stack

    async def __call__(self, scope, receive, send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


async def streamed(
    request: Request, upstream: AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]], relay=None
) -> StreamingResponse:
    """The chunks of an upstream, entered first: a refusal before the first chunk is an ApiError. `relay`: makes other
    chunks of them."""
    async with AsyncExitStack() as stack:
        chunks = await stack.enter_async_context(upstream)
        events = await stack.enter_async_context(
            aclosing(_events(request, chunks if relay is None else relay(chunks)))
        )
        return _Streamed(events, stack.pop_all())
    raise AssertionError  # no context above swallows an exception


async def _events(request: Request, chunks: AsyncIterator[Mapping[str, Any]]) -> AsyncGenerator[bytes]:
    try:
        async for chunk in chunks:
            yield b"data: " + to_json(chunk) + b"\n\n"
    except ApiError as error:
        # The status is sent; clients know an error in its place.
        service_of(request).telemetry.upstream_errors.labels(error.status).inc()
        yield b"data: " + to_json(error.body()) + b"\n\n"
        return
    yield b"data: [DONE]\n\n"


# ASCII: what a model writes may hold half a surrogate pair.
_dumps = partial(json.dumps, separators=(",", ":"))


def to_json(value: Any) -> bytes:
    return _dumps(value).encode("ascii")
