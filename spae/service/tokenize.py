"""POST /v1/tokenize: images to words."""

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
from fastapi import APIRouter, Request, Response
from jaxtyping import UInt8
from pydantic_core import to_json

from spae.pyramid import Pyramid
from spae.service import schemas
from spae.service.batching import MOST_RIVALS
from spae.service.clients import until_gone
from spae.service.errors import ApiError
from spae.service.images_in import from_data_url, open_square, read_form, too_many
from spae.service.json_body import media_type
from spae.service.limits import Share
from spae.service.running import Service, service_of
from spae.service.schemas import EXAMPLE_IMAGE, TokenizeRequest, check_layers, described

router = APIRouter(tags=["tokenizer"])

_FILES = ("image", "images")
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
    service = service_of(request)
    batcher, telemetry, shape = service.batcher, service.telemetry, service.tokenizer.shape
    # A place is taken before anything is read: a full service says so at once.
    with batcher.places() as held, service.memory.share() as share:
        with telemetry.timed("read"):
            images, layers, rivals = await _images_of(request, share)
        request.state.log["images"] = len(images)
        check_layers(layers, shape)
        batcher.grow(held, len(images))
        with telemetry.timed("open"):
            squares = await asyncio.gather(
                *(service.in_thread(_open, service, image, name) for name, image in images)
            )
        if rivals is None:
            pyramids = await until_gone(request, batcher.encode(squares, held))
            others: Sequence[np.ndarray] = ()
        else:
            pyramid, others = await until_gone(request, batcher.rivals(squares[0], held))
            pyramids = [pyramid]
        telemetry.encoded(len(images), len(images) * shape.tokens(layers))
        # Thousands of words: enough work to keep others waiting.
        body = await service.in_thread(_written, service.settings.model, pyramids, layers, others, rivals)
        return Response(body, media_type="application/json")


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
    settings = service_of(request).settings
    if media_type(request) == "multipart/form-data":
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
    wanted = await schemas.read(request, TokenizeRequest, share, "multipart/form-data")
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


def _number(fields: Mapping[str, str], name: str, most: int) -> int | None:
    text = fields.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= most):
        message = f"{name}: wanted a whole number from 1 to {most}"
        raise ApiError(422, message, code="invalid_value", param=name)
    return int(text)


def _open(service: Service, image: bytes | str, param: str) -> UInt8[np.ndarray, "s s 3"]:
    """The square that the tokenizer looks at; `param`: the image's place.

    Raises:
        ApiError: what is wrong with the image, with its place.
    """
    settings = service.settings
    try:
        data = from_data_url(image, settings) if isinstance(image, str) else image
        return open_square(data, settings, service.tokenizer)
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
    data = [{"object": "pyramid"} | described(one, index, layers) for index, one in enumerate(pyramids)]
    words = pyramids[0].vocabulary.words if pyramids[0].vocabulary is not None else ()
    for entry, ids in zip(data[0]["layers"], others, strict=False):
        entry["rivals"] = [
            [words[i] for i in few[:rivals]] for few in ids.reshape(-1, ids.shape[-1]).tolist()
        ]
    return to_json({"object": "list", "model": model, "data": data})
