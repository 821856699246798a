"""Which model a request names."""

from collections.abc import Sequence
from typing import Any

from spae.service.errors import ApiError, short


def check_model(model: Any, known: Sequence[str]) -> None:
    """Refuse another model than there is; none at all stands for the one there is.

    Raises:
        ApiError: 404 a model that is not there, 400 what is no name.
    """
    if model is None or model in known:
        return
    if not isinstance(model, str):
        raise ApiError(
            400, f"model: wanted a string; got {short(model)}", code="invalid_value", param="model"
        )
    raise unknown_model(model, known)


def unknown_model(name: str, known: Sequence[str], failure: str | None = None) -> ApiError:
    """404 for a model that is not there, in OpenAI's words; `failure`: why not all could be asked."""
    there = f"there {'is' if len(known) == 1 else 'are'} {', '.join(known)}"
    message = f"model: wanted one of those behind this service; got {name[:100]!r}; {there}"
    if failure is not None:
        message += f" ({failure})"
    return ApiError(404, message, code="model_not_found", param="model")
