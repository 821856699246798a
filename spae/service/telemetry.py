"""What the operator sees: Prometheus metrics, and logs of one JSON object a line.

Nothing of what users send gets in: no image, word, key, address or path, and of an exception its type and place, never
its message.
"""

import datetime
import json
import logging
import re
import sys
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spae.service.errors import ApiError
from spae.text import Parsed

LOG = logging.getLogger("spae.service")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Telemetry:
    """The metrics of one service, in a registry of its own.

    `stage(name, seconds)`: "read", "open", "queue", "encode", "regions", "decode", "parse", "write", "upstream".
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "spae_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "spae_request_seconds",
            "From request to answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "spae_stage_seconds", "Of one stage", ["stage"], buckets=_SECONDS, registry=self.registry
        )
        self.batches = Histogram(
            "spae_batch_images",
            "Images in a batch",
            ["work"],
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self.queue = Gauge("spae_queue_images", "Images in the service, a place each", registry=self.registry)
        self.images = Counter("spae_images", "Images read and made", ["direction"], registry=self.registry)
        self.words = Counter("spae_words", "Words made and read", ["direction"], registry=self.registry)
        self.repairs = Counter("spae_repairs", "Repairs to words read", ["kind"], registry=self.registry)
        self.upstream_errors = Counter(
            "spae_upstream_errors", "Failures of the upstream model", ["status"], registry=self.registry
        )
        self.crashes = Counter("spae_tokenizer_crashes", "Crashes of the tokenizer", registry=self.registry)

    def stage(self, name: str, seconds: float) -> None:
        self.stages.labels(name).observe(seconds)

    def encoded(self, images: int, words: int) -> None:
        """So many images became words."""
        self.images.labels("in").inc(images)
        self.words.labels("out").inc(words)

    def decoded(self, parsed: Sequence[Parsed]) -> None:
        """Words became images."""
        self.images.labels("out").inc(len(parsed))
        for one in parsed:
            self.words.labels("in").inc(one.pyramid.shape.tokens(one.pyramid.layers))
            for repair in one.repairs:
                self.repairs.labels(repair.kind).inc()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measures a stage that does not fail."""
        start = time.perf_counter()
        yield
        self.stage(name, time.perf_counter() - start)


class Observed:
    """ASGI middleware around everything: a request id in and out, one log line and the counts of each request (with
    the status 499 where the client left before it was answered), and an answer to exceptions that nobody else knew."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry):
        self.app = app
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        identifier = _request_id(scope)
        # Handlers add what there is to say about a request: how many images, say.
        facts: dict[str, Any] = {}
        scope.setdefault("state", {})["log"] = facts
        scope["state"]["request_id"] = identifier
        status = None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", identifier.encode())]
            await send(message)

        try:
            await self.app(scope, receive, answer)
        except ClientDisconnect:
            pass  # it gave up, and nothing went wrong here: 499 below, or a stream that broke off
        except Exception as error:
            log_error(LOG, "a request failed", error, request_id=identifier)
            if status is None:
                message = "the service failed at this request; its log says more under the request id"
                await ApiError(500, message, code="internal_error").response()(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            # 499: nobody was there any more to answer.
            code = 499 if status is None else status
            self.telemetry.requests.labels(method, route, code).inc()
            self.telemetry.seconds.labels(route).observe(seconds)
            LOG.info(
                "request",
                extra={
                    "facts": {
                        "request_id": identifier,
                        "method": method,
                        "route": route,
                        "status": code,
                        "seconds": round(seconds, 4),
                        **facts,
                    }
                },
            )


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


_OURS = ("spae.", "uvicorn")


class JsonLines(logging.Formatter):
    """One JSON object for each record: time, level, event, and the record's `facts`. What other libraries say may hold
    what a user sent, so of theirs only the place is told."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(
                "T", "milliseconds"
            ),
            "level": record.levelname.lower(),
            "event": record.getMessage() if record.name.startswith(_OURS) else "a library's message",
        }
        if not record.name.startswith(_OURS):
            line["at"] = [f"{record.pathname}:{record.lineno} {record.funcName}"]
        if record.exc_info and record.exc_info[1] is not None:
            line |= _described(record.exc_info[1])
        return json.dumps(line | getattr(record, "facts", {}))


def log_to_stderr() -> None:
    """Sends the service's and the server's logs, and the warnings of others, to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("spae.service", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)
    # Python's warnings too (Pillow's of broken metadata): one JSON line each, and nothing between the lines.
    logging.captureWarnings(True)
    # It warns of every form that is damaged; the client is told.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


def log_error(logger: logging.Logger, event: str, error: BaseException, **facts: Any) -> None:
    """The error's type and where it was raised; its message may hold what a user sent."""
    logger.error(event, extra={"facts": _described(error) | facts})


def _described(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__name__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]],
    }


def _request_id(scope: Scope) -> str:
    """The caller's own, if it is short and plain, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return given
    return uuid.uuid4().hex
