"""`POST /v1/chat/completions`: OpenAI's chat interface, for a language model that knows only text."""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from jaxtyping import UInt8

from spae.errors import InputError
from spae.service.boxes import MOST_REGIONS, Box
from spae.service.chat import answers
from spae.service.chat.messages import (
    Options,
    Regions,
    check_messages,
    for_upstream,
    image_places,
    images_size,
    preamble,
    read_options,
    region_places,
    to_text,
    with_preamble,
)
from spae.service.chat.pictures import PictureDecoder
from spae.service.clients import until_gone
from spae.service.errors import ApiError
from spae.service.events import streamed, to_json
from spae.service.images_in import from_data_url, is_inline, open_square, too_many
from spae.service.json_body import LARGE, check_text_size, read_object
from spae.service.models.upstream import PictureFormat
from spae.service.regions import open_image_of
from spae.service.running import Service, service_of
from spae.service.schemas import EXAMPLE_IMAGE

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
    hosts that the operator allows) become words, and so do the regions that an image part names beside its image
    (`"spae": {"regions": [[x, y, width, height], ..]}`, in pixels); words that the model writes between <image> and
    </image> become a picture, in `images` of the message beside its text."""
    service = service_of(request)
    shape = service.tokenizer.shape
    with service.memory.share() as share:
        with service.telemetry.timed("read"):
            body, size = await read_object(request, service.settings, share)
            read = partial(_read, service, body, size)
            options, places, regions = await asyncio.to_thread(read) if size > LARGE else read()
        # The same image again, as in few-shot conversations, has the same words.
        words, of_regions = await _words(request, places, regions, options)
    messages = to_text(body["messages"], words, of_regions)
    told = preamble(shape, options, bool(regions))
    sent = for_upstream(body) | {"messages": with_preamble(messages, told)}
    wanted = PictureFormat(shape.tokens(options.layers), must=options.draw, text=options.text)
    del body, messages, places, regions, read  # the images; the answer may take minutes
    request.state.log["images"] = len(words)
    pictures = PictureDecoder(
        service.tokenizer, service.batcher, service.telemetry, service.settings.max_images
    )
    try:
        if sent.get("stream"):
            chunks = service.upstream.stream(sent, request.headers, wanted)
            return await streamed(request, chunks, partial(answers.relay, draw=pictures.decode))
        start = time.perf_counter()
        reply = await until_gone(request, service.upstream.chat(sent, request.headers, wanted))
        service.telemetry.stage("upstream", time.perf_counter() - start)
    except ApiError as error:
        service.telemetry.upstream_errors.labels(error.status).inc()
        raise
    return Response(to_json(await answers.complete(reply, pictures.decode)), media_type="application/json")


def _read(
    service: Service, body: dict[str, Any], size: int
) -> tuple[Options, dict[str, str], dict[Regions, str]]:
    """What a request of `size` bytes asks for, its images with their places, and their regions with theirs; all that
    can be refused at once.

    Raises:
        InputError: a field is wrong.
        ApiError: 413 too much text or too many images, and what the language model does not take.
    """
    settings = service.settings
    options = read_options(body, service.tokenizer.shape, settings.preamble)
    messages = check_messages(body.get("messages"))
    places = image_places(messages)
    check_text_size(size - images_size(messages), settings, "messages")
    if len(places) > settings.max_images:
        raise too_many(settings.max_images, "messages")
    regions = region_places(messages)
    if sum(len(boxes) for _, boxes in regions) > MOST_REGIONS:
        raise InputError(
            f"messages: wanted at most {MOST_REGIONS} regions in a request, got more: ask for fewer"
        )
    service.upstream.check(body)
    return options, places, regions


async def _words(
    request: Request, places: Mapping[str, str], regions: Mapping[Regions, str], options: Options
) -> tuple[dict[str, str], dict[Regions, list[list[str]]]]:
    """The words of the image at every address, and of its regions; `places` and `regions`: where they stand in the
    request."""
    if not places:
        return {}, {}
    service, urls = service_of(request), list(places)
    with service.batcher.places(len(urls)) as held:
        with service.telemetry.timed("open"):
            of_urls = {url: [(one, at) for one, at in regions.items() if one[0] == url] for url in urls}
            opened = _together([_open(service, url, places[url], of_urls[url]) for url in urls])
            images = await until_gone(request, opened)
        pyramids = await until_gone(request, service.batcher.encode([square for square, _ in images], held))
        found = {}
        for url, (_, looked) in zip(urls, images, strict=True):
            for (key, _), (image, boxes) in zip(of_urls[url], looked, strict=True):
                found[key] = await until_gone(request, service.batcher.regions(image, boxes, held))
    words = {url: pyramid.text(options.layers) for url, pyramid in zip(urls, pyramids, strict=True)}
    service.telemetry.encoded(len(urls), len(urls) * service.tokenizer.shape.tokens(options.layers))
    return words, found


async def _together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; when one fails, the others are given up."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except* Exception as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def _open(
    service: Service, url: str, place: str, regions: Sequence[tuple[Regions, str]]
) -> tuple[UInt8[np.ndarray, "s s 3"], list[tuple[UInt8[np.ndarray, "h w 3"], list[Box]]]]:
    """An image as the square that is tokenized; and with each of the `regions` (and where they stand) as they are
    looked at."""
    try:
        if is_inline(url):
            data = await asyncio.to_thread(from_data_url, url, service.settings)
        else:
            data = await service.remote_images.fetch(url)
        square = await asyncio.to_thread(open_square, data, service.settings, service.tokenizer)
    except ApiError as error:
        raise error.at(place) from error
    return square, [
        await asyncio.to_thread(open_image_of, data, boxes, service, at) for (_, boxes), at in regions
    ]
