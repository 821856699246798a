"""The service as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from spae.demo import PHOTOGRAPHS
from spae.errors import BundleError, InputError
from spae.service import catalogue, completions, detokenize, prompt, regions, schemas, tokenize, vocabulary
from spae.service.auth import Guard, Keys
from spae.service.batching import Overloaded, Unavailable
from spae.service.chat import route as chat
from spae.service.errors import ApiError
from spae.service.head import HeadAsGet
from spae.service.limits import TimeLimit
from spae.service.running import service_of, start
from spae.service.settings import Settings
from spae.service.telemetry import Observed, Telemetry

PAGE = Path(__file__).parent / "page"
_ERRORS = {
    400: "The body is not what its Content-Type says",
    401: "No key, or an unknown one",
    404: "No such route, or no such model",
    406: "Several images do not go into one PNG",
    408: "The body did not arrive in time",
    413: "Too many bytes or images",
    415: "A Content-Type or an image format that is not taken",
    421: "A local service was called by another name",
    422: "A field or an image is wrong",
    429: "Full: try again after the seconds of Retry-After",
    502: "The upstream model failed",
    503: "Not running, or not in time: try again after the seconds of Retry-After",
    504: "The upstream model did not answer in time",
}
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}


def create_app(settings: Settings) -> FastAPI:
    """The application. Before it takes requests it loads the bundle and compiles what one image takes, which starting
    it (its lifespan) waits for.

    `app.state.service` is what its routes work with, once it has started; `app.state.failure` why it did not, or None.

    Raises:
        InputError: the file of keys cannot be read or has none.
    """
    keys = Keys.read(settings.api_keys_file) if settings.api_keys_file is not None else None
    telemetry = Telemetry()
    app = FastAPI(
        title="spae",
        version=version("spae"),
        description="Images as words of a frozen language model's vocabulary, and back.",
        lifespan=partial(_lifespan, settings, telemetry),
        docs_url=None,
        redoc_url=None,
        responses={status: _error(status, text) for status, text in _ERRORS.items()},
        exception_handlers={
            ApiError: _answer,
            InputError: _answer,
            Overloaded: _answer,
            Unavailable: _answer,
            HTTPException: _answer,
        },
    )
    app.state.failure = None  # why it did not start
    # The last one added is the outermost.
    app.add_middleware(HeadAsGet)
    app.add_middleware(Guard, settings=settings, keys=keys)
    app.add_middleware(TimeLimit, seconds=settings.timeout_s)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            # Clients add their own, such as X-Stainless-Lang; a key in Authorization is what decides.
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "X-Spae-Repairs", "Retry-After"],
        )
    app.add_middleware(Observed, telemetry=telemetry)
    app.include_router(tokenize.router)
    app.include_router(regions.router)
    app.include_router(detokenize.router)
    app.include_router(vocabulary.router)
    app.include_router(prompt.router)
    app.include_router(chat.router)
    app.include_router(completions.router)
    app.include_router(catalogue.router)
    app.add_api_route("/health", _health, response_model=schemas.HealthResponse, tags=["service"])
    app.add_api_route("/health/live", _alive, tags=["service"])
    app.add_api_route("/metrics", _metrics, response_class=Response, tags=["service"])
    # Not mounted at "/" as a whole: that would answer 404 to a wrong method of every other route.
    app.add_route("/", _index)
    app.add_route("/docs", _docs)
    app.mount("/page", _Page(directory=PAGE))
    app.mount("/photographs", _Page(directory=PHOTOGRAPHS))
    app.openapi = lambda: _openapi(app, guarded=keys is not None)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(settings: Settings, telemetry: Telemetry, app: FastAPI) -> AsyncIterator[None]:
    try:
        async with start(settings, telemetry) as service:
            app.state.service = service
            yield
    except (InputError, BundleError) as error:
        app.state.failure = error
        raise


class _Page(StaticFiles):
    """The page, which loads nothing from elsewhere and is shown in no frame."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = (
            "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


async def _index(request: Request) -> Response:
    return await _Page(directory=PAGE).get_response("index.html", request.scope)


async def _docs(request: Request) -> Response:
    return await _Page(directory=PAGE).get_response("docs.html", request.scope)


async def _answer(request: Request, error: Exception) -> Response:
    """An error on the wire."""
    if isinstance(error, Overloaded):
        error = ApiError(429, str(error), code="overloaded", retry_after_s=error.retry_after_s)
    elif isinstance(error, Unavailable):
        error = ApiError(503, str(error), code="unavailable", retry_after_s=5)
    elif isinstance(error, InputError):
        error = ApiError(422, str(error), code="invalid_value")
    elif isinstance(error, HTTPException):
        message = f"{error.detail}: see /docs for what there is"
        headers = dict(error.headers or {})
        error = ApiError(error.status_code, message, code="no_such_route", headers=headers)
    assert isinstance(error, ApiError)
    request.state.log["code"] = error.code
    return error.response()


async def _health(request: Request) -> Response:
    """200 when the service takes requests, 503 while it recovers or ends: what a load balancer asks."""
    service = service_of(request)
    ready = service.batcher.ready
    status = "ready" if ready else "unavailable"
    body = {"status": status, "model": service.settings.model, "version": version("spae")}
    return JSONResponse(body, 200 if ready else 503)


async def _alive() -> dict[str, str]:
    """200 as long as the process answers: what a supervisor asks."""
    return {"status": "alive"}


async def _metrics(request: Request) -> Response:
    """Counters and histograms for Prometheus."""
    return Response(generate_latest(service_of(request).telemetry.registry), media_type=CONTENT_TYPE_LATEST)


def _error(status: int, text: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"model": schemas.ErrorResponse, "description": text}
    if status in (429, 503):
        entry["headers"] = _RETRY_AFTER
    return entry


def _openapi(app: FastAPI, guarded: bool) -> dict[str, Any]:
    """The document, with the bodies that routes read by themselves."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        document["components"]["schemas"] |= schemas.components(
            schemas.TokenizeRequest, schemas.RegionsRequest, schemas.DetokenizeRequest
        )
        if guarded:
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
        app.openapi_schema = document
    return app.openapi_schema
