"""GET /v1/models and /v1/models/{name}: the tokenizer, and the language models behind the chat."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter

from spae.service import schemas
from spae.service.errors import ApiError
from spae.service.events import to_json
from spae.service.models.names import unknown_model
from spae.service.running import service_of

router = APIRouter(tags=["service"])


@router.get("/v1/models", response_model=schemas.ModelsResponse)
async def models(request: Request) -> Response:
    """The tokenizer, and the language models behind the chat."""
    data, failure = await _listed(request)
    return _json({"object": "list", "data": data, "chat_error": failure})


@router.get("/v1/models/{name:path}", response_model=schemas.ModelOut)
async def model(request: Request, name: Annotated[str, PathParameter(examples=["default"])]) -> Response:
    """One of them, by its name."""
    data, failure = await _listed(request)
    found = next((one for one in data if one.get("id") == name), None)
    if found is None:
        raise unknown_model(name, [str(one.get("id")) for one in data], failure)
    return _json(found)


async def _listed(request: Request) -> tuple[list[dict[str, Any]], str | None]:
    """The models, and why the language models are not among them, or None."""
    service = service_of(request)
    tokenizer, name = service.tokenizer, service.settings.model
    described = {
        "image_size": tokenizer.image_size,
        "layers": [list(grid) for grid in tokenizer.shape.layers],
        "words_per_image": tokenizer.shape.tokens(),
        "meaning_layers": tokenizer.config.meaning_layers,
        "vocabulary": len(tokenizer.vocabulary),
        "fingerprint": service.fingerprint,
    }
    data = [_entry(name) | {"tokenizer": described}]
    data += [_entry(other) for other in service.settings.names if other != name]
    try:
        return data + await service.upstream.models(request.headers), None
    except ApiError as error:
        # The tokenizer is there all the same.
        service.telemetry.upstream_errors.labels(error.status).inc()
        return data, error.message


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")


def _entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "spae"}
