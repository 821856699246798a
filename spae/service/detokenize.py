"""POST /v1/detokenize: words to images."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from spae.errors import InputError
from spae.images import data_url, to_png
from spae.pyramid import Pyramid
from spae.service import schemas
from spae.service.batching import Batcher, Places
from spae.service.clients import until_gone
from spae.service.errors import ApiError
from spae.service.images_in import too_many
from spae.service.running import service_of
from spae.service.schemas import DetokenizeRequest, WrittenPyramid, check_layers, described
from spae.text import Parsed
from spae.tokenizer import Tokenizer

router = APIRouter(tags=["tokenizer"])


@router.post(
    "/v1/detokenize",
    summary="Words to images",
    response_model=schemas.DetokenizeResponse,
    responses={
        200: {
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
            "description": "JSON with the repairs made, or the image alone where Accept prefers image/png",
        }
    },
    openapi_extra=schemas.json_body(DetokenizeRequest, {"text": "dog park grass animal brown", "layers": 2}),
)
async def detokenize(request: Request) -> Response:
    """A pyramid of words as `text`, `words` or `ids`, or several as `inputs`, to images. Text and words are read as
    people and language models write them: what was not as it should be is repaired, and told in `repairs`."""
    service = service_of(request)
    tokenizer, telemetry = service.tokenizer, service.telemetry
    with service.batcher.places() as held, service.memory.share() as share:
        with telemetry.timed("read"):
            wanted = await schemas.read(request, DetokenizeRequest, share)
        inputs = _inputs(wanted, service.settings.max_images)
        as_png = _prefers_png(request)
        if as_png and len(inputs) > 1:
            raise ApiError(
                406,
                f"wanted one input for an answer in image/png, got {len(inputs)}: accept application/json",
                code="several_images",
            )
        check_layers(wanted.layers, tokenizer.shape)
        request.state.log["images"] = len(inputs)
        service.batcher.grow(held, len(inputs))
        with telemetry.timed("parse"):
            parsed = await asyncio.gather(
                *(service.in_thread(_parse, one, tokenizer, wanted.layers, name) for name, one in inputs)
            )
        pyramids = [one.pyramid for one in parsed]
        images = await until_gone(request, _decode(service.batcher, pyramids, held))
        with telemetry.timed("write"):
            pngs = await asyncio.gather(*(service.in_thread(to_png, image) for image in images))
        telemetry.decoded(parsed)
        if as_png:
            count = str(len(parsed[0].repairs))
            return Response(pngs[0], media_type="image/png", headers={"X-Spae-Repairs": count})
        body = await service.in_thread(_made, service.settings.model, parsed, pngs)
        return Response(body, media_type="application/json")


def _made(model: str, parsed: Sequence[Parsed], pngs: Sequence[bytes]) -> bytes:
    """The JSON of a DetokenizeResponse."""
    data = [
        {"object": "image"}
        | described(one.pyramid, index, None)
        | {"url": data_url(png, "png"), "repairs": [asdict(repair) for repair in one.repairs]}
        for index, (one, png) in enumerate(zip(parsed, pngs, strict=True))
    ]
    return to_json({"object": "list", "model": model, "data": data})


def _inputs(wanted: DetokenizeRequest, most: int) -> list[tuple[str, WrittenPyramid]]:
    """The pyramids of a request, each with its name in errors; every one is written in exactly one way."""
    if wanted.inputs is None:
        inputs: list[tuple[str, WrittenPyramid]] = [("", wanted)]
    elif any(one is not None for one in (wanted.text, wanted.words, wanted.ids)):
        raise ApiError(
            422, "wanted text, words, ids or inputs, got several", code="invalid_value", param="inputs"
        )
    else:
        inputs = [(f"inputs.{i}.", one) for i, one in enumerate(wanted.inputs)]
    if len(inputs) > most:
        raise too_many(most, "inputs")
    for name, one in inputs:
        given = [key for key in ("text", "words", "ids") if getattr(one, key) is not None]
        if len(given) != 1:
            raise ApiError(
                422,
                f"wanted one of text, words and ids, got {' and '.join(given) or 'none'}",
                code="invalid_value",
                param=f"{name}text",
            )
    return inputs


def _parse(one: WrittenPyramid, tokenizer: Tokenizer, layers: int | None, name: str) -> Parsed:
    """A written pyramid as one of the tokenizer's, cut to `layers`.

    Raises:
        ApiError: 422, it cannot be one.
    """
    key = next(key for key in ("text", "words", "ids") if getattr(one, key) is not None)
    try:
        if one.ids is not None:
            pyramid = Pyramid.from_ids(_flat(one.ids), tokenizer.shape, tokenizer.vocabulary)
            return Parsed(pyramid if layers is None else pyramid.prefix(layers), ())
        return tokenizer.parse(one.text if one.text is not None else " ".join(_flat(one.words)), layers)
    except InputError as error:
        raise ApiError(422, str(error), code="invalid_value", param=f"{name}{key}") from error


def _flat(values: Sequence[Any] | None) -> list[Any]:
    flat: list[Any] = []
    for value in values or ():
        flat += value if isinstance(value, list) else [value]
    return flat


async def _decode(batcher: Batcher, pyramids: Sequence[Pyramid], held: Places) -> list[np.ndarray]:
    """Images in the order of the pyramids; those with the same number of layers go together."""
    images: list[Any] = [None] * len(pyramids)
    for layers in sorted({one.layers for one in pyramids}):
        places = [i for i, one in enumerate(pyramids) if one.layers == layers]
        for place, image in zip(
            places, await batcher.decode([pyramids[i] for i in places], layers, held), strict=True
        ):
            images[place] = image
    return images


def _prefers_png(request: Request) -> bool:
    """Whether Accept names image/png, and not JSON with more weight."""
    weights: dict[str, float] = {}
    for entry in request.headers.get("accept", "").split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            weights[kind] = float(weight)
        except ValueError:
            weights[kind] = 0.0
    png = weights.get("image/png", weights.get("image/*", 0.0))
    return png > weights.get("application/json", 0.0)
