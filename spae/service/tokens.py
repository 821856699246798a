"""POST /v1/tokenize and POST /v1/detokenize: images to words, and back."""

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request, Response
from jaxtyping import UInt8
from PIL import Image
from pydantic_core import to_json
from starlette.requests import ClientDisconnect

from spae.errors import InputError
from spae.pyramid import Pyramid
from spae.service import schemas
from spae.service.batching import MOST_RIVALS
from spae.service.errors import ApiError
from spae.service.images_in import from_data_url, open_square, read_form, too_many
from spae.service.json_body import LARGE, read_body
from spae.service.limits import Share
from spae.service.schemas import DetokenizeRequest, TokenizeRequest, WrittenPyramid
from spae.text import Parsed, Repair
from spae.tokenizer import Tokenizer

T = TypeVar("T")

router = APIRouter(tags=["tokenizer"])

_FILES = ("image", "images")

# A red square of 8 x 8 pixels, so that the example runs as it stands.
EXAMPLE_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAA"
    "AElFTkSuQmCC"
)
_FORM = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "image": {
                    "type": "array",
                    "items": {"type": "string", "format": "binary"},
                    "minItems": 1,
                    "description": "One file or several",
                },
                "layers": {"type": "integer", "minimum": 1, "maximum": 64},
                "rivals": {"type": "integer", "minimum": 1, "maximum": MOST_RIVALS},
            },
            "required": ["image"],
            "additionalProperties": False,
        }
    }
}


@router.post(
    "/v1/tokenize",
    summary="Images to words",
    response_model=schemas.TokenizeResponse,
    openapi_extra=schemas.json_body(TokenizeRequest, {"image": EXAMPLE_IMAGE, "layers": 2}, _FORM),
)
async def tokenize(request: Request) -> Response:
    """JPEG, PNG or WebP images, as files of a form (`image`, once or more often) or as data URLs in JSON (`image`, or
    `images`), to their pyramids of words. Each image is cropped to its central square. With `rivals`, every place of
    one image also tells which words would have stood there if the chosen one were not in the vocabulary."""
    state = request.app.state
    tokenizer: Tokenizer = state.tokenizer
    # A place is taken before anything is read: a full service says so at once.
    with state.batcher.places() as held, state.memory.share() as share:
        with state.telemetry.timed("read"):
            images, layers, rivals = await _images_of(request, share)
        request.state.log["images"] = len(images)
        _check_layers(tokenizer, layers)
        state.batcher.grow(held, len(images))
        with state.telemetry.timed("open"):
            squares = await asyncio.gather(
                *(in_thread(request, _open, image, request, name) for name, image in images)
            )
        if rivals is None:
            pyramids = await until_gone(request, state.batcher.encode(squares, held))
            others: Sequence[np.ndarray] = ()
        else:
            pyramid, others = await until_gone(request, state.batcher.rivals(squares[0], held))
            pyramids = [pyramid]
        state.telemetry.images.labels("in").inc(len(images))
        count = tokenizer.shape.tokens(layers)
        state.telemetry.words.labels("out").inc(len(images) * count)
        # Thousands of words: enough work to keep others waiting.
        body = await in_thread(request, _written, state.model, pyramids, layers, others, rivals)
        return Response(body, media_type="application/json")


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
    state = request.app.state
    tokenizer: Tokenizer = state.tokenizer
    with state.batcher.places() as held, state.memory.share() as share:
        with state.telemetry.timed("read"):
            wanted = await _json(request, DetokenizeRequest, share)
        inputs = _inputs(wanted, state.settings.max_images)
        as_png = _prefers_png(request)
        if as_png and len(inputs) > 1:
            raise ApiError(
                406,
                f"wanted one input for an answer in image/png, got {len(inputs)}: accept application/json",
                code="several_images",
            )
        _check_layers(tokenizer, wanted.layers)
        request.state.log["images"] = len(inputs)
        state.batcher.grow(held, len(inputs))
        with state.telemetry.timed("parse"):
            parsed = await asyncio.gather(
                *(in_thread(request, _parse, one, tokenizer, wanted.layers, name) for name, one in inputs)
            )
        pyramids = [one.pyramid for one in parsed]
        images = await until_gone(request, _decode(state.batcher, pyramids, held))
        with state.telemetry.timed("write"):
            pngs = await asyncio.gather(*(in_thread(request, to_png, image) for image in images))
        state.telemetry.images.labels("out").inc(len(pngs))
        state.telemetry.words.labels("in").inc(sum(one.shape.tokens(one.layers) for one in pyramids))
        for one in parsed:
            for repair in one.repairs:
                state.telemetry.repairs.labels(repair.kind).inc()
        if as_png:
            count = str(len(parsed[0].repairs))
            return Response(pngs[0], media_type="image/png", headers={"X-Spae-Repairs": count})
        body = await in_thread(request, _made, state.model, parsed, pngs)
        return Response(body, media_type="application/json")


async def until_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of work that is given up when the client goes away; its body must have been read.

    Raises what the work raises, and ClientDisconnect.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


def to_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """An image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def png_url(png: bytes) -> str:
    """A PNG file as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def repair_json(repair: Repair) -> dict[str, Any]:
    return {"kind": repair.kind, "position": repair.position, "found": repair.found, "used": repair.used}


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def in_thread(request: Request, function: Callable[..., T], *arguments: Any) -> T:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(request.app.state.threads, function, *arguments)


async def _images_of(
    request: Request, share: Share
) -> tuple[Sequence[tuple[str, bytes | str]], int | None, int | None]:
    """The images of a request (bytes or data URLs) with their names in errors, the number of layers, and of rivals."""
    images, layers, rivals = await _sent(request, share)
    if rivals is not None and len(images) > 1:
        raise ApiError(
            422,
            f"wanted one image where rivals are asked for, got {len(images)}: send them one by one",
            code="several_images",
            param="rivals",
        )
    return images, layers, rivals


async def _sent(
    request: Request, share: Share
) -> tuple[Sequence[tuple[str, bytes | str]], int | None, int | None]:
    settings = request.app.state.settings
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        form = await read_form(request, settings, share, _FILES)
        unknown = sorted(form.fields.keys() - {"layers", "rivals"})
        if unknown:
            raise ApiError(
                422,
                "wanted the fields image, layers and rivals, got another",
                code="invalid_value",
                param="form",
            )
        if not form.files:
            raise ApiError(
                422, "wanted a file under the name image, got none", code="no_image", param="image"
            )
        files = [(f"images.{i}", data) for i, data in enumerate(form.files)]
        return files, _number(form.fields, "layers", 64), _number(form.fields, "rivals", MOST_RIVALS)
    wanted = await _json(request, TokenizeRequest, share)
    if (wanted.image is None) == (wanted.images is None):
        raise ApiError(
            422, "wanted either image or images, got both or neither", code="no_image", param="image"
        )
    if wanted.image is not None:
        return [("image", wanted.image)], wanted.layers, wanted.rivals
    images = wanted.images or []
    if len(images) > settings.max_images:
        raise too_many(settings.max_images, "images")
    return [(f"images.{i}", url) for i, url in enumerate(images)], wanted.layers, wanted.rivals


async def _json(request: Request, model: type[schemas.Model], share: Share) -> schemas.Model:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        message = "wanted a body of Content-Type application/json"
        if model is TokenizeRequest:
            message += " or multipart/form-data"
        raise ApiError(415, message, code="unsupported_media_type")
    body = await read_body(request, request.app.state.settings, share)
    if len(body) > LARGE:
        return await in_thread(request, schemas.check, model, body)
    return schemas.check(model, body)


def _number(fields: Mapping[str, str], name: str, most: int) -> int | None:
    text = fields.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= most):
        message = f"{name}: wanted a whole number from 1 to {most}"
        raise ApiError(422, message, code="invalid_value", param=name)
    return int(text)


def _check_layers(tokenizer: Tokenizer, layers: int | None) -> None:
    try:
        tokenizer.shape.check_layers(layers)
    except InputError as error:
        raise ApiError(422, str(error), code="invalid_value", param="layers") from error


def _open(image: bytes | str, request: Request, param: str) -> UInt8[np.ndarray, "s s 3"]:
    """Raises ApiError with the image's place, `param`."""
    state = request.app.state
    try:
        data = from_data_url(image, state.settings) if isinstance(image, str) else image
        return open_square(data, state.settings, state.tokenizer)
    except ApiError as error:
        raise error.at(param) from error


def _written(
    model: str,
    pyramids: Sequence[Pyramid],
    layers: int | None,
    others: Sequence[np.ndarray],
    rivals: int | None,
) -> bytes:
    """The JSON of a TokenizeResponse; `others`: of each layer of the only pyramid the ids of every place's rivals."""
    data = [{"object": "pyramid"} | _described(one, index, layers) for index, one in enumerate(pyramids)]
    words = pyramids[0].vocabulary.words if pyramids[0].vocabulary is not None else ()
    for entry, ids in zip(data[0]["layers"], others, strict=False):
        entry["rivals"] = [
            [words[i] for i in few[:rivals]] for few in ids.reshape(-1, ids.shape[-1]).tolist()
        ]
    return to_json({"object": "list", "model": model, "data": data})


def _made(model: str, parsed: Sequence[Parsed], pngs: Sequence[bytes]) -> bytes:
    """The JSON of a DetokenizeResponse."""
    data = [
        {"object": "image"}
        | _described(one.pyramid, index, None)
        | {"url": png_url(png), "repairs": [repair_json(repair) for repair in one.repairs]}
        for index, (one, png) in enumerate(zip(parsed, pngs, strict=True))
    ]
    return to_json({"object": "list", "model": model, "data": data})


def _described(pyramid: Pyramid, index: int, layers: int | None) -> dict[str, Any]:
    entries = pyramid.json(layers)
    words = [word for entry in entries for word in entry["words"]]
    return {"index": index, "count": len(words), "text": " ".join(words), "layers": entries}


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
    """A written pyramid as one of the tokenizer's, cut to `layers`. Raises ApiError 422: it cannot be one."""
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


async def _decode(batcher: Any, pyramids: Sequence[Pyramid], held: Any) -> list[np.ndarray]:
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
