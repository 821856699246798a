"""The language model behind the service: any server with OpenAI's chat interface, or the embedded model."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2

from spae.service.errors import ApiError
from spae.service.models.names import check_model
from spae.service.settings import Settings
from spae.vocabulary import Vocabulary

KEY_VARIABLE = "SPAE_UPSTREAM_API_KEY"
_LONGEST_EVENT = 16 << 20  # bytes of one part of a stream
_LONGEST_MESSAGE = 500  # letters of an upstream's error that is no JSON
_PASSED = ("retry-after",)


@dataclass(frozen=True)
class PictureFormat:
    """How a picture in an answer is written, for a model that can be held to it."""

    words: int  # of a picture; as many as the preamble asks for
    must: bool = False  # the answer must end with one
    text: bool = True  # it may have text before


class Upstream(Protocol):
    """A model that holds conversations of text; bodies, replies and chunks are OpenAI's JSON objects.

    `headers` are those of the client's request, of which only Authorization may go on.
    All raise ApiError, with the upstream's own status and error where there is one.
    """

    def check(self, body: Mapping[str, Any]) -> None:
        """Refuses a client's request, its messages checked and before its images are read, for what can be seen at
        once: a model, field or part that is not there, or more text than the context may hold."""
        ...

    async def chat(
        self, body: Mapping[str, Any], headers: Mapping[str, str], pictures: PictureFormat
    ) -> dict[str, Any]:
        """The reply to a request that asks for no stream."""
        ...

    def stream(
        self, body: Mapping[str, Any], headers: Mapping[str, str], pictures: PictureFormat
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        """The chunks of a reply. What refuses the request does so on entering; leaving ends the reply."""
        ...

    def check_completion(self, body: Mapping[str, Any]) -> None:
        """Refuses a request to go on with a text, as `check` does."""
        ...

    async def complete(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        """The reply to a request of POST /completions that asks for no stream."""
        ...

    def stream_completion(
        self, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        """Its chunks, as `stream` has them."""
        ...

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """What GET /models lists."""
        ...

    async def close(self) -> None: ...


class UpstreamError(ApiError):
    """An error that the upstream answered, passed on as it is."""

    def __init__(self, status: int, content: Mapping[str, Any], headers: Mapping[str, str]):
        super().__init__(status, "the upstream refused", code="upstream_error", headers=dict(headers))
        self._content = dict(content)

    def body(self) -> dict[str, Any]:
        return self._content


class RemoteModel:
    """A server with OpenAI's chat interface: vLLM, llama.cpp, SGLang, Ollama, OpenAI, Gemini's compatible door.

    The key for it is the operator's, in the environment variable SPAE_UPSTREAM_API_KEY; without one, and when this
    service asks for no keys itself, the client's Authorization is passed on.
    """

    def __init__(self, settings: Settings, transport: httpx2.AsyncBaseTransport | None = None):
        assert settings.upstream is not None
        self._url = settings.upstream.rstrip("/")
        self._model = settings.upstream_model
        self._names: tuple[str, ...] = ()
        if settings.served_model_names:
            self._names = (str(self._model), *settings.names)
        # Sooner than the whole request's time is up, so that the client hears what was late.
        self._timeout_s = 0.9 * settings.timeout_s
        self._key = os.environ.get(KEY_VARIABLE)
        self._passes_keys = settings.api_keys_file is None
        # One request of ours is one of theirs, however many there are: they are bounded where they come in.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx2.AsyncClient(timeout=self._timeout_s, limits=limits, transport=transport)

    def check(self, body: Mapping[str, Any]) -> None:
        # What it takes is the upstream's business, and which models it has, unless the operator named some.
        if self._names:
            check_model(body.get("model"), self._names)

    check_completion = check

    async def chat(
        self, body: Mapping[str, Any], headers: Mapping[str, str], pictures: PictureFormat
    ) -> dict[str, Any]:
        return await self._asked("chat/completions", body, headers)

    async def complete(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        return await self._asked("completions", body, headers)

    def stream(
        self, body: Mapping[str, Any], headers: Mapping[str, str], pictures: PictureFormat
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        return self._streamed("chat/completions", body, headers)

    def stream_completion(
        self, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        return self._streamed("completions", body, headers)

    async def _asked(self, route: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        with self._failures():
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.post(
                    f"{self._url}/{route}", content=self._body(body), headers=self._headers(headers)
                )
        _check(response)
        return _object(response.text)

    @asynccontextmanager
    async def _streamed(
        self, route: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        with self._failures():
            request = self._client.build_request(
                "POST", f"{self._url}/{route}", content=self._body(body), headers=self._headers(headers)
            )
            response = await self._client.send(request, stream=True)
        try:
            if not response.is_success:
                with self._failures():
                    async with asyncio.timeout(self._timeout_s):
                        await response.aread()
                _check(response)
            yield self._chunks(response)
        finally:
            await response.aclose()

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        with self._failures():
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.get(f"{self._url}/models", headers=self._headers(headers or {}))
        _check(response)
        listed = _object(response.text).get("data")
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise _broken("a list of models")
        return listed

    async def close(self) -> None:
        await self._client.aclose()

    def _body(self, body: Mapping[str, Any]) -> bytes:
        sent = dict(body)
        if self._model is not None:
            sent["model"] = self._model
        try:
            return json.dumps(sent, allow_nan=False).encode("ascii")
        except ValueError:
            message = "wanted numbers that JSON has; got one that is too large (1e999)"
            raise ApiError(400, message, code="invalid_value") from None

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        sent = {"Content-Type": "application/json"}
        key = f"Bearer {self._key}" if self._key else None
        if key is None and self._passes_keys:
            key = headers.get("authorization")
        return {**sent, "Authorization": key} if key else sent

    async def _chunks(self, response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
        with self._failures():
            async for event in httpx2.EventSource(response, _LONGEST_EVENT):
                if event.data.strip() == "[DONE]":
                    return
                if event.data:
                    yield _object(event.data)

    @contextmanager
    def _failures(self):
        """Failures of the connection as errors of the service. Their messages hold addresses, so they stay here."""
        try:
            yield
        except (TimeoutError, httpx2.TimeoutException):
            message = (
                f"wanted an answer of the language model within {self._timeout_s:g} s; none came; try again"
            )
            raise ApiError(504, message, code="upstream_timeout") from None
        except httpx2.ConnectError:
            message = "the language model behind this service cannot be reached; try again later"
            raise ApiError(502, message, code="upstream_unreachable") from None
        except (httpx2.HTTPError, httpx2.InvalidURL):
            raise _broken("a whole answer") from None


def open_upstream(settings: Settings, vocabulary: Vocabulary) -> Upstream:
    """The model that the settings name; `vocabulary`: the words of pictures. It may take seconds.

    Raises:
        InputError: the embedded model is not there, or is none that chats.
    """
    if settings.upstream is not None:
        return RemoteModel(settings)
    from spae.service.models.embedded import EmbeddedModel

    return EmbeddedModel.load(settings, vocabulary)


def _check(response: httpx2.Response) -> None:
    """Pass on the upstream's error, if its answer is one.

    Raises:
        ApiError: what the upstream says, with its status.
    """
    if response.is_success:
        return
    if response.status_code < 400:
        raise _broken("an answer under its own address, no redirect")
    headers = {name: response.headers[name] for name in _PASSED if name in response.headers}
    try:
        content = json.loads(response.text)
    except (ValueError, RecursionError):
        content = response.text.strip()[:_LONGEST_MESSAGE]
    if isinstance(content, dict) and "error" in content:
        raise UpstreamError(response.status_code, content, headers)
    # FastAPI's servers say "detail", others plain text.
    said = content if isinstance(content, str) else json.dumps(content)[:_LONGEST_MESSAGE]
    error = ApiError(response.status_code, f"the language model answered: {said}", code="upstream_error")
    raise UpstreamError(response.status_code, error.body(), headers)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _broken("a JSON object")
    return value


def _broken(wanted: str) -> ApiError:
    message = f"wanted {wanted} of the language model behind this service; got something else"
    return ApiError(502, message, code="upstream_broken")
