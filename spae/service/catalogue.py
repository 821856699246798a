"""GET /v1/models and /v1/models/{name}: the tokenizer, and the language models behind the chat."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter

from spae.service import schemas
from spae.service.chat.messages import short
from spae.service.errors import ApiError
from spae.service.events import to_json

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
        raise _unknown(name, [str(one.get("id")) for one in data], failure)
    return _json(found)


def check_model(model: Any, known: Sequence[str]) -> None:
    """Raises ApiError: 404 a model that is not there, 400 what is no name. None at all is the one there is."""
    if model is None or model in known:
        return
    if not isinstance(model, str):
        raise ApiError(
            400, f"model: wanted a string; got {short(model)}", code="invalid_value", param="model"
        )
    raise _unknown(model, known)


def _unknown(name: str, known: Sequence[str], failure: str | None = None) -> ApiError:
    """404 for a model that is not there, in OpenAI's words; `failure`: why not all could be asked."""
    there = f"there {'is' if len(known) == 1 else 'are'} {', '.join(known)}"
    message = f"model: wanted one of those behind this service; got {name[:100]!r}; {there}"
    if failure is not None:
        message += f" ({failure})"
    return ApiError(404, message, code="model_not_found", param="model")


async def _listed(request: Request) -> tuple[list[dict[str, Any]], str | None]:
    """The models, and why the language models are not among them, or None."""
    state = request.app.state
    tokenizer = state.tokenizer
    described = {
        "image_size": tokenizer.image_size,
        "layers": [list(grid) for grid in tokenizer.shape.layers],
        "words_per_image": tokenizer.shape.tokens(),
        "meaning_layers": tokenizer.config.meaning_layers,
        "vocabulary": len(tokenizer.vocabulary),
        "fingerprint": state.fingerprint,
    }
    data = [_entry(state.model) | {"tokenizer": described}]
    data += [_entry(name) for name in state.settings.names if name != state.model]
    try:
        return data + await state.upstream.models(request.headers), None
    except ApiError as error:
        # The tokenizer is there all the same.
        state.telemetry.upstream_errors.labels(error.status).inc()
        return data, error.message


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")


def _entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "spae"}
