"""`POST /v1/chat/completions`: OpenAI's chat interface, for a language model that knows only text."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from spae.errors import InputError
from spae.service import answers
from spae.service.chat_text import (
    Options,
    check_messages,
    for_upstream,
    image_urls,
    preamble,
    read_options,
    to_text,
    with_preamble,
)
from spae.service.errors import ApiError
from spae.service.images_in import from_data_url, open_square, read_body, too_many
from spae.service.pencil import Pencil
from spae.service.tokens import EXAMPLE_IMAGE, until_gone

T = TypeVar("T")

router = APIRouter(tags=["chat"])

_IMAGE = {"type": "image_url", "image_url": {"url": EXAMPLE_IMAGE}}
_EXAMPLE = {
    "model": "default",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "What colour is this?"}, _IMAGE]}],
    "max_tokens": 32,
    "spae": {"layers": 2},
}
_BODY = {
    "type": "object",
    "description": "As OpenAI documents it; what is not named here goes on to the language model",
    "properties": {
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "properties": {"role": {"type": "string"}}, "required": ["role"]},
        },
        "stream": {"type": ["boolean", "null"]},
        "modalities": {
            "type": ["array", "null"],
            "items": {"type": "string"},
            "description": 'With "image" the answer is to have a picture',
        },
        "spae": {
            "type": ["object", "null"],
            "properties": {
                "layers": {
                    "type": ["integer", "null"],
                    "minimum": 1,
                    "description": "Of every image; 2 by default",
                },
                "preamble": {
                    "type": ["string", "null"],
                    "description": "In place of the one that explains the words",
                },
            },
            "additionalProperties": False,
        },
    },
    "required": ["messages"],
}


@router.post(
    "/v1/chat/completions",
    summary="Conversations with images",
    responses={
        200: {
            "description": "OpenAI's reply, pictures in `images` beside the text of a message; a stream if asked for",
            "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}},
        }
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _BODY, "example": _EXAMPLE}},
        }
    },
)
async def chat(request: Request) -> Response:
    """OpenAI's chat interface in front of a language model that knows only text. Images (data URLs, or addresses at
    hosts that the operator allows) become words; words that the model writes between <image> and </image> become a
    picture, in `images` of the message beside its text."""
    state = request.app.state
    with state.memory.share() as share:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            message = "wanted a body of Content-Type application/json"
            raise ApiError(415, message, code="unsupported_media_type")
        with state.telemetry.timed("read"):
            body = _object(await read_body(request, state.settings, share))
        options = read_options(body, state.tokenizer.shape, state.settings.preamble)
        messages = check_messages(body.get("messages"))
        # The same image again, as in few-shot conversations, has the same words.
        urls = list(dict.fromkeys(image_urls(messages)))
        words = await _words(request, urls, options)
    text = preamble(state.tokenizer.shape, options)
    sent = for_upstream(body) | {
        "messages": with_preamble(to_text(messages, words), text),
        "spae": {
            "words": state.tokenizer.shape.tokens(options.layers),
            "draw": options.draw,
            "text": options.text,
        },
    }
    del body, messages, urls  # the images; the answer may take minutes
    request.state.log["images"] = len(words)
    pencil = Pencil(state.tokenizer, state.batcher, state.telemetry, state.settings.max_images)
    try:
        if sent.get("stream"):
            return await _streamed(request, sent, pencil)
        start = time.perf_counter()
        reply = await until_gone(request, state.upstream.chat(sent, request.headers))
        state.telemetry.stage("upstream", time.perf_counter() - start)
    except ApiError as error:
        state.telemetry.upstream_errors.labels(error.status).inc()
        raise
    return Response(_json(await answers.complete(reply, pencil.draw)), media_type="application/json")


async def _words(request: Request, urls: list[str], options: Options) -> dict[str, str]:
    """The words of the image at every address."""
    if not urls:
        return {}
    state = request.app.state
    settings, telemetry = state.settings, state.telemetry
    if len(urls) > settings.max_images:
        raise too_many(settings.max_images, "messages")
    with state.batcher.places(len(urls)) as held:
        with telemetry.timed("open"):
            images = await until_gone(request, _together([_open(state, url) for url in urls]))
        pyramids = await until_gone(request, state.batcher.encode(images, held))
    words = {url: pyramid.text(options.layers) for url, pyramid in zip(urls, pyramids, strict=True)}
    telemetry.images.labels("in").inc(len(urls))
    telemetry.words.labels("out").inc(len(urls) * state.tokenizer.shape.tokens(options.layers))
    return words


async def _together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; when one fails, the others are given up."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except* Exception as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def _open(state: Any, url: str) -> Any:
    if url[:5].lower() == "data:":
        data = await asyncio.to_thread(from_data_url, url, state.settings, "messages")
    else:
        data = await state.remote_images.fetch(url)
    return await asyncio.to_thread(open_square, data, state.settings, state.tokenizer.image_size, "messages")


class _Streamed(StreamingResponse):
    """Lets go of the upstream at the end, however it came."""

    def __init__(self, content: AsyncIterator[bytes], stack: AsyncExitStack):
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._stack = stack

    async def __call__(self, scope, receive, send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


async def _streamed(request: Request, sent: Mapping[str, Any], pencil: Pencil) -> Response:
    """The upstream's answer as server-sent events. Raises ApiError if it refuses before the first."""
    async with AsyncExitStack() as stack:
        chunks = await stack.enter_async_context(request.app.state.upstream.stream(sent, request.headers))
        events = await stack.enter_async_context(aclosing(_events(request, chunks, pencil)))
        return _Streamed(events, stack.pop_all())


async def _events(
    request: Request, chunks: AsyncIterator[dict[str, Any]], pencil: Pencil
) -> AsyncGenerator[bytes]:
    try:
        async for chunk in answers.relay(chunks, pencil.draw):
            yield b"data: " + _json(chunk) + b"\n\n"
    except ApiError as error:
        # The status is sent; clients know an error in its place.
        request.app.state.telemetry.upstream_errors.labels(error.status).inc()
        yield b"data: " + _json(error.body()) + b"\n\n"
        return
    yield b"data: [DONE]\n\n"


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ApiError(400, "wanted a JSON object as body; got no JSON", code="invalid_json") from None
    if not isinstance(body, dict):
        raise InputError(f"wanted a JSON object as body; got {type(body).__name__}")
    return body


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# ASCII: what a model writes may hold half a surrogate pair.
_dumps = partial(json.dumps, separators=(",", ":"))


def _json(value: Any) -> bytes:
    return _dumps(value).encode("ascii")
