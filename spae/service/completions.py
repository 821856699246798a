"""`POST /v1/completions`: text that the language model goes on with; and what stands in for `/v1/responses`."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from spae.errors import InputError
from spae.service.clients import until_gone
from spae.service.errors import ApiError, short
from spae.service.events import streamed, to_json
from spae.service.json_body import check_text_size, read_object
from spae.service.running import service_of

router = APIRouter(tags=["chat"])

_BODY = {
    "type": "object",
    "description": "As OpenAI documents it; an upstream gets all of it",
    "properties": {
        "prompt": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "stream": {"type": ["boolean", "null"]},
    },
    "required": ["prompt"],
}
_EXAMPLE = {"model": "default", "prompt": "The capital of France is", "max_tokens": 4}


@router.post(
    "/v1/completions",
    summary="Text that goes on",
    responses={
        200: {
            "description": "OpenAI's reply, or a stream if asked for",
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
async def completions(request: Request) -> Response:
    """OpenAI's older interface: the language model goes on with a text, without turns, images or pictures."""
    service = service_of(request)
    with service.memory.share() as share:
        with service.telemetry.timed("read"):
            body, size = await read_object(request, service.settings, share)
        check_text_size(size, service.settings, "prompt")
        _check(body)
        service.upstream.check_completion(body)
    try:
        if body.get("stream"):
            return await streamed(request, service.upstream.stream_completion(body, request.headers))
        reply = await until_gone(request, service.upstream.complete(body, request.headers))
    except ApiError as error:
        service.telemetry.upstream_errors.labels(error.status).inc()
        raise
    return Response(to_json(reply), media_type="application/json")


@router.api_route("/v1/responses", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/v1/responses/{rest:path}", methods=["GET", "POST", "DELETE"], include_in_schema=False)
async def responses(request: Request) -> Response:
    """OpenAI's newer interface is not here."""
    raise ApiError(
        404,
        "this service has no /v1/responses: send the same parts as messages to /v1/chat/completions "
        "(client.chat.completions.create), which takes input_text and input_image, too",
        code="no_such_route",
    )


def _check(body: dict[str, Any]) -> None:
    """Refuse what no model takes.

    Raises:
        InputError: no prompt, or a stream that is neither wanted nor not.
    """
    if body.get("prompt") is None:
        raise InputError(f"prompt: wanted a text or a list of texts; got {short(body.get('prompt'))}")
    if not isinstance(body.get("stream"), bool | None):
        raise InputError(f"stream: wanted true or false; got {short(body['stream'])}")
