"""Bodies in JSON: how much is in them is looked at while they come, and text that is none is named by its place."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request

from spae.errors import InputError
from spae.service.errors import ApiError
from spae.service.images_in import chunks, too_large
from spae.service.limits import Share
from spae.service.settings import Settings
from spae.unicode import check_unicode

LARGE = 1 << 16  # bytes of JSON that are read in a thread
# Values of all kinds: a million empty objects take 64 MB and a tenth of a second, in which nothing else runs. Text
# beside them is cheap, but its commas and brackets count, since nothing is parsed yet.
_MOST_VALUES = 1_000_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_body(request: Request, settings: Settings, share: Share, instead: str = "") -> bytearray:
    """The whole body of Content-Type application/json, never more than the limit of it in memory.

    `instead`: another type that the route takes, for the message.

    Raises:
        ApiError: 413 too large, or too many values; 415 of another type, or compressed.
        Overloaded: the bodies of all requests are too large together.
    """
    if media_type(request) != "application/json":
        wanted = "wanted a body of Content-Type application/json" + (f" or {instead}" if instead else "")
        raise ApiError(415, wanted, code="unsupported_media_type")
    body, values = bytearray(), 0
    async for chunk in chunks(request, settings, share):
        body += chunk
        values += sum(map(chunk.count, (b",", b"[", b"{")))
        if values > _MOST_VALUES:
            message = f"wanted a body with at most {_MOST_VALUES:,} values (commas and brackets), got more: send less"
            raise ApiError(413, message, code="too_large")
    return body


async def read_object(request: Request, settings: Settings, share: Share) -> tuple[dict[str, Any], int]:
    """The JSON object of a body, and its size in bytes.

    Raises:
        ApiError: 400 not JSON in UTF-8, or text with half a surrogate pair, named by its place; 413 and 415 as
            `read_body`.
        InputError: other JSON.
    """
    data = await read_body(request, settings, share)
    body = await asyncio.to_thread(_parsed, data) if len(data) > LARGE else _parsed(data)
    if not isinstance(body, dict):
        raise InputError(f"wanted a JSON object as body; got {type(body).__name__}")
    return body, len(data)


def media_type(request: Request) -> str:
    """Of the body, without its parameters, in small letters; "" if the request names none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_text_size(size: int, settings: Settings, param: str) -> None:
    """Refuse too much text, in bytes of JSON.

    Raises:
        ApiError: 413 more than a request may have beside its images.
    """
    if size > settings.max_text_bytes:
        raise too_large("text", settings.max_text_bytes, param)


def _parsed(data: bytearray) -> Any:
    if data.startswith(_BYTE_ORDER_MARK):
        del data[: len(_BYTE_ORDER_MARK)]
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        reason = str(error)
    name_half_pair(data)
    message = f"wanted a JSON object in UTF-8 as body; got none: {reason}"
    raise ApiError(400, message, code="invalid_json")


def name_half_pair(data: bytes | bytearray) -> None:
    """Refuse half a surrogate pair; a body that is no JSON anyway passes.

    Raises:
        ApiError: 400 a text of the body holds one, named by its place.
    """
    if not _SURROGATE.search(data):
        return
    try:
        body = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return
    for place, text in _texts(body):
        try:
            check_unicode(text, place[:200])
        except InputError as error:
            raise ApiError(400, str(error), code="invalid_text", param=place[:200]) from None


def _texts(body: Any) -> Iterator[tuple[str, str]]:
    """Every text of a JSON value with its place, such as messages[0].content; keys with that of what they lead to."""
    left = [("", body)]
    while left:
        place, value = left.pop()
        if isinstance(value, str):
            yield place or "the body", value
        elif isinstance(value, dict):
            yield from ((place or "the body", key) for key in value)
            left += [(f"{place}.{key}" if place else key, one) for key, one in reversed(value.items())]
        elif isinstance(value, list):
            left += [(f"{place}[{i}]", one) for i, one in reversed(list(enumerate(value)))]
