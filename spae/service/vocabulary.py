"""GET /v1/vocabulary: which words there are."""

from itertools import islice

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from spae.service import schemas
from spae.service.errors import ApiError
from spae.service.running import service_of
from spae.service.schemas import query_parameter

router = APIRouter(tags=["tokenizer"])

_LONGEST_PREFIX = 100
_MOST = 1000


@router.get(
    "/v1/vocabulary",
    summary="Words of the vocabulary",
    response_model=schemas.VocabularyResponse,
    openapi_extra={
        "parameters": [
            query_parameter(
                "prefix", "Only words that begin so", {"type": "string", "maxLength": _LONGEST_PREFIX}
            ),
            query_parameter(
                "limit", "At most so many", {"type": "integer", "minimum": 1, "maximum": _MOST, "default": 20}
            ),
        ]
    },
)
async def vocabulary(request: Request) -> Response:
    """The words that begin with `prefix`, in the order of the vocabulary: what a form can suggest."""
    service = service_of(request)
    prefix = request.query_params.get("prefix", "").casefold()
    if len(prefix) > _LONGEST_PREFIX:
        message = f"prefix: wanted at most {_LONGEST_PREFIX} characters, got {len(prefix)}"
        raise ApiError(422, message, code="invalid_value", param="prefix")
    limit = request.query_params.get("limit", "20")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= _MOST):
        message = f"limit: wanted a whole number from 1 to {_MOST}"
        raise ApiError(422, message, code="invalid_value", param="limit")
    found = (word for word in service.tokenizer.vocabulary.words if word.casefold().startswith(prefix))
    return JSONResponse(
        {"object": "list", "model": service.settings.model, "data": list(islice(found, int(limit)))}
    )
