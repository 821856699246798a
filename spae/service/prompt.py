"""GET /v1/prompt: what to paste into a chat elsewhere, so that its language model writes a picture in words."""

import numpy as np
from fastapi import APIRouter, Request, Response
from jaxtyping import UInt8
from starlette.responses import JSONResponse

from spae.demo import PHOTOGRAPHS
from spae.images import open_image, to_array
from spae.prompt import EXAMPLE, EXAMPLE_FILE, write_prompt
from spae.service import schemas
from spae.service.clients import until_gone
from spae.service.errors import ApiError
from spae.service.running import service_of
from spae.service.schemas import query_parameter

router = APIRouter(tags=["tokenizer"])


@router.get(
    "/v1/prompt",
    summary="A prompt for any chat",
    response_model=schemas.PromptResponse,
    openapi_extra={
        "parameters": [
            query_parameter(
                "layers",
                "So many layers; by default those that say what is seen",
                {"type": "integer", "minimum": 1},
            ),
            query_parameter("format", "What to answer in", {"enum": ["words", "json"], "default": "words"}),
        ]
    },
)
async def prompt(request: Request) -> Response:
    """A text to paste into any chat: it asks for a picture in words, with an example. What comes back is understood by
    `/v1/detokenize`, as `text`."""
    service, asked = service_of(request), request.query_params
    form, written = asked.get("format", "words"), asked.get("layers")
    if form not in ("words", "json"):
        raise ApiError(422, "format: wanted words or json", code="invalid_value", param="format")
    most = len(service.tokenizer.shape)
    if written is not None and not (
        written.isascii() and written.isdigit() and 1 <= int(written[:9]) <= most
    ):
        message = f"layers: wanted a whole number from 1 to {most}"
        raise ApiError(422, message, code="invalid_value", param="layers")
    with service.batcher.places() as held:
        square = await service.in_thread(_example, service.tokenizer.image_size)
        (example,) = await until_gone(request, service.batcher.encode([square], held))
    layers = None if written is None else int(written)
    text = await service.in_thread(
        write_prompt, service.tokenizer, layers, {EXAMPLE: example}, form == "json"
    )
    return JSONResponse({"object": "prompt", "model": service.settings.model, "text": text})


def _example(size: int) -> UInt8[np.ndarray, "s s 3"]:
    return to_array(open_image(PHOTOGRAPHS / EXAMPLE_FILE), size)
