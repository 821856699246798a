"""A local endpoint that does to its callers what real ones do, in the order that a test asks for."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Behaviour = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    """One request as it came in; `at`: seconds of a monotonic clock."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float


@dataclass
class MisbehavingServer:
    """Answers every request by the next behaviour of `script`, and by `usual` when that is used up.

    `script_of(body)` may give another script for some requests; `url` ends in /v1.
    """

    url: str
    usual: Behaviour
    script: list[Behaviour] = field(default_factory=list)
    scripts: dict[str, list[Behaviour]] = field(default_factory=dict)  # by a part of the prompt
    asked: list[Asked] = field(default_factory=list)

    def next(self, body: dict[str, Any]) -> Behaviour:
        prompt = json.dumps(body)
        for part, script in self.scripts.items():
            if part in prompt and script:
                return script.pop(0)
        return self.script.pop(0) if self.script else self.usual

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [asked.body for asked in self.asked]

    def waits(self) -> list[float]:
        """Seconds between one request and the next."""
        return [later.at - earlier.at for earlier, later in zip(self.asked, self.asked[1:], strict=False)]


def completion(text: str, finish_reason: str = "stop", **fields: Any) -> Behaviour:
    """A text completion."""
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    choice = {"index": 0, "text": text, "finish_reason": finish_reason}
    return reply({"id": "1", "model": "m", "choices": [choice | fields], "usage": usage})


def reply(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Behaviour:
    async def behave(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(document, status=status, headers=headers)

    return behave


def refuse(status: int, message: str = "no", code: str | None = None, **headers: str) -> Behaviour:
    """An error as OpenAI's API writes it; headers by their names with _ for -."""
    error = {"message": message, "type": "error", "code": code}
    return reply({"error": error}, status, {name.replace("_", "-"): value for name, value in headers.items()})


def raw(content: bytes, status: int = 200, content_type: str = "application/json") -> Behaviour:
    async def behave(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(body=content, status=status, content_type=content_type)

    return behave


def echo_headers(status: int) -> Behaviour:
    """Repeats what it was sent, key and all, as some debugging proxies do."""

    async def behave(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"error": {"message": f"bad key: {dict(request.headers)}"}}, status=status)

    return behave


async def hang(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(3600)  # until the server ends
    return web.Response()


async def cut_before_answering(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    request.transport.abort()
    return web.Response()


async def cut_half_way(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"text": " do')
    request.transport.close()
    return response


@contextmanager
def serve(usual: Behaviour) -> Iterator[MisbehavingServer]:
    """The server in a thread of its own, until the block is left."""
    loop = asyncio.new_event_loop()
    server = MisbehavingServer("", usual)

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        server.asked.append(Asked(request.path, dict(request.headers), body, time.monotonic()))
        return await server.next(body)(request, body)

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)  # 0 would be for ever
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
