"""Errors on the wire: OpenAI's shape on every route, and what was wanted, what came and what to do in the message."""

import json
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

from starlette.responses import Response

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An answer other than success.

    `status`: of HTTP, 400 or above; `code`: a short stable name a program can look at; `param`: the part of the
    request it is about; `retry_after_s`: seconds after which to try again, sent as Retry-After.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            # Whole seconds are all that the header takes.
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))

    def at(self, place: str) -> "ApiError":
        """This error, about that part of the request."""
        message = f"{place}: {self.message}"
        return ApiError(self.status, message, code=self.code, param=place, headers=self.headers)

    def body(self) -> dict[str, dict[str, str | None]]:
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        # In ASCII, since an upstream's error may hold half a surrogate pair.
        return Response(json.dumps(self.body()), self.status, self.headers, "application/json")


def short(value: Any) -> str:
    """A value for a message: its type and a little of it, without what a user's image may be in."""
    if isinstance(value, Mapping):
        return f"an object with {', '.join(sorted(map(str, islice(value, 10))))[:60] or 'nothing'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None:
        return "null"
    kind = {str: "string", bool: "boolean"}.get(type(value), "number")
    return f"the {kind} {json.dumps(value[:40] if isinstance(value, str) else value)[:60]}"
