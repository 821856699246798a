"""Text completions of an OpenAI-compatible endpoint (vLLM, llama.cpp, SGLang, hosted ones) for inspect-ai.

inspect's own `openai-api-completions` knows no constraint dialects, waits without regard to Retry-After, and retries
without end. Its client takes about a millisecond of processor time for a request; 64 callers of an endpoint that
answers in 50 ms want 1,280 requests a second, which then is more than one core has. aiohttp, which is kept as well,
takes an eighth of that (benchmarks/endpoint.py has both side by side).
"""

import asyncio
import base64
import json
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp
from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    RetryDecision,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from icl_runner import together
from icl_runner.cells import Call
from icl_runner.constraints import (
    KEY,
    LOG_PROBS,
    Choices,
    Constraint,
    Likelihoods,
    Words,
    from_extra_body,
    spaced,
)
from icl_runner.providers.dialects import DIALECTS, fields
from icl_runner.providers.raw_prompt import raw_prompt
from icl_runner.providers.replies import error_of, is_choice, output_of, text_of
from icl_runner.providers.retries import Attempts, EndpointError, RetryPolicy, retry_after
from icl_runner.spelling import SPELLINGS
from spae.errors import InputError

# Base URLs and the key that belongs to each: a key is sent to no other server than its own.
_BASE_URL, _API_KEY = "SPAE_COMPLETIONS_BASE_URL", "SPAE_COMPLETIONS_API_KEY"
_OPENAI_BASE_URL, _OPENAI_API_KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"

# inspect's name of a setting -> the endpoint's.
_SETTINGS = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "stop_seqs": "stop",
    "seed": "seed",
    "num_choices": "n",
}
_TRANSIENT = (408, 409, 425, 429)  # and everything from 500
_SHOWN = 300  # characters of an endpoint's message that go into ours

# The call that this task is in. inspect asks for the wait between attempts once, when a call begins.
_attempts: ContextVar[Attempts | None] = ContextVar("attempts", default=None)


class CompletionsAPI(ModelAPI):
    """`completions/<model>`: one user message goes out as a raw prompt, the text that continues it comes back.

    The base URL is inspect's `model_base_url` (with the key of SPAE_COMPLETIONS_API_KEY), else
    SPAE_COMPLETIONS_BASE_URL (the same key), else OPENAI_BASE_URL (with OPENAI_API_KEY); a server may need no
    key. User and password in the URL are taken from the environment only: inspect logs its argument.

    Args:
        dialect: how the endpoint takes constraints: "llama.cpp", "vllm" or "none"; outputs say whether they
            were constrained in `metadata["constrained"]`.
        timeout: seconds that one request may take in all.
        retry_base, retry_longest: seconds before the first retry, and at most before any (`RetryPolicy`).

    Raises:
        InputError: no base URL, or one that is none; an unknown dialect; bad numbers.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        *,
        dialect: str = "none",
        timeout: float = 600.0,
        retry_base: float = RetryPolicy.base,
        retry_longest: float = RetryPolicy.longest,
    ):
        if dialect not in DIALECTS:
            raise InputError(f"completions: wanted the dialect {', '.join(DIALECTS)}; got {dialect!r}")
        if (
            isinstance(timeout, bool)
            or not isinstance(timeout, int | float)
            or not 0 < timeout < float("inf")
        ):
            raise InputError(f"completions: wanted a timeout in seconds above 0; got {timeout!r}")
        url, key_variable, user = _endpoint(base_url)
        super().__init__(model_name, url, api_key, [key_variable], config or GenerateConfig())
        key = (self.api_key or os.environ.get(key_variable, "")).strip()
        if key and user:
            raise InputError(
                f"completions: wanted a key ({key_variable}) or user and password in the base URL; got both"
            )
        self._dialect = dialect
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 30))
        self._policy = RetryPolicy(base=retry_base, longest=retry_longest)
        self._authorization = f"Bearer {key}" if key else _basic(user) if user else None
        # What must not be shown when an endpoint repeats it to us.
        self._secrets = [key] if key else [user[1] or user[0], _basic(user)[6:]] if user else []
        self._sessions: dict[asyncio.AbstractEventLoop, _Session] = {}

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """One completion (or `num_choices`); of calls that came together (`icl_runner.together`) one for each.

        Raises:
            EndpointError: there is none.
            InputError: other messages than one text to continue; likelihoods of an endpoint of the dialect "none";
                words by contrast.
        """
        prompt = raw_prompt(input, tools, "completions")
        calls = together.calls_of(config.extra_body)
        if calls is not None:
            return together.joined([await self._patiently(call, config) for call in calls])
        attempts = _attempts.get() or Attempts(self._policy)
        try:
            return await self._answer(prompt, config, from_extra_body(config.extra_body))
        except EndpointError as error:
            # Without its cause: an exception of the HTTP client may hold the request, and so the key.
            raise attempts.failed(error, config.max_retries) from None

    def should_retry(self, ex: Exception) -> RetryDecision:
        if not isinstance(ex, EndpointError) or ex.final:
            return RetryDecision.no()
        if ex.kind == "rate_limit":
            return RetryDecision.rate_limit(ex.retry_after)
        return RetryDecision.transient(ex.retry_after)

    def retry_wait(self) -> Callable[[Any], float]:
        attempts = Attempts(self._policy)
        _attempts.set(attempts)
        return attempts.wait

    def connection_key(self) -> str:
        return str(self.base_url)

    def max_connections(self) -> int:
        return 64

    async def aclose(self) -> None:
        session = self._sessions.get(asyncio.get_running_loop())
        if session is not None:
            await session.aclose()

    async def _patiently(self, call: Call, config: GenerateConfig) -> ModelOutput:
        """One of several calls, tried again by itself as inspect tries a call again: those before it are answered."""
        settings = {"max_tokens": call.max_tokens, "stop_seqs": list(call.prompt.stop)}
        config = config.model_copy(update=settings)
        asked: Choices | Likelihoods | None = None
        if call.choices:
            asked = Likelihoods(call.choices) if call.likelihoods else Choices(call.choices)
        attempts = Attempts(self._policy)
        while True:
            try:
                return await self._answer(call.prompt.text, config, asked)
            except EndpointError as error:
                error = attempts.failed(error, config.max_retries)
                if error.final:
                    raise error from None
                wait = attempts.pause(error)
            await asyncio.sleep(wait)

    async def _answer(
        self, prompt: str, config: GenerateConfig, asked: Constraint | Likelihoods | None
    ) -> ModelOutput:
        if isinstance(asked, Likelihoods):
            return await self._likelihoods(asked.texts, prompt, config)
        if isinstance(asked, Words) and asked.against:
            raise InputError(
                "completions: wanted words without others to tell them apart from: no endpoint tells the probabilities "
                "of all words, which contrast takes; spae-lm/.. has them"
            )
        output = await self._complete(prompt, config, asked)
        if asked is not None:
            output.metadata = {"constrained": self._dialect != "none"}
        return output

    async def _complete(
        self, prompt: str, config: GenerateConfig, constraint: Constraint | None
    ) -> ModelOutput:
        return self._output(await self._post(self._request(prompt, config, constraint), config.extra_headers))

    async def _likelihoods(self, texts: Sequence[str], prompt: str, config: GenerateConfig) -> ModelOutput:
        """How likely each text is: what an endpoint tells of its tokens when nothing else may be written.

        One request after the other: so many connections are open as inspect thinks. As what was written stands the
        likeliest.
        """
        if self._dialect == "none":
            raise InputError(
                "completions: wanted -M dialect=llama.cpp or -M dialect=vllm to ask how likely a text is; it is none"
            )
        # The stop texts would end it before its end was written.
        config = config.model_copy(update={"logprobs": True, "stop_seqs": None})
        outputs = [await self._complete(prompt, config, Choices((f"{text}\n",))) for text in texts]
        log_probs = [
            self._log_prob(f"{spaced(prompt, text)}\n", one) for text, one in zip(texts, outputs, strict=True)
        ]
        best = outputs[log_probs.index(max(log_probs))]
        usages = [one.usage for one in outputs if one.usage is not None]
        best.usage = sum(usages[1:], usages[0]) if usages else None
        best.metadata = {"constrained": True, LOG_PROBS: log_probs}
        return best

    def _log_prob(self, text: str, output: ModelOutput) -> float:
        """Of the tokens that spell the text; what stands behind them is the end, which nobody chose."""
        logprobs = output.choices[0].logprobs
        total, written = 0.0, ""
        for one in logprobs.content if logprobs is not None else ():
            if len(written) < len(text):
                total, written = total + one.logprob, written + one.token
        if written != text:
            raise EndpointError(
                "deterministic",
                "an answer without the log-probabilities of the tokens asked for",
                self._shown(f"wanted those of {text!r}, got those of {written!r}"),
            )
        return total

    def _request(self, prompt: str, config: GenerateConfig, constraint: Constraint | None) -> dict[str, Any]:
        body = {key: value for key, value in (config.extra_body or {}).items() if key != KEY}
        body |= {"model": self.model_name, "prompt": prompt}
        body |= {
            theirs: value
            for ours, theirs in _SETTINGS.items()
            if (value := getattr(config, ours)) is not None
        }
        if config.logprobs:
            body["logprobs"] = config.top_logprobs or 1
        if config.logit_bias:
            body["logit_bias"] = {str(token): bias for token, bias in config.logit_bias.items()}
        return body | fields(constraint, self._dialect, prompt)

    async def _post(self, request: Mapping[str, Any], headers: Mapping[str, str] | None) -> dict[str, Any]:
        session = await self._session()
        url, body = f"{self.base_url}/completions", json.dumps(request).encode()
        try:
            # A redirect would carry the prompt, and perhaps the key, to where nobody sent it.
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                body = await response.read()
        except TimeoutError:
            raise EndpointError("transient", f"no answer within {self._timeout.total:g} s") from None
        except aiohttp.ClientSSLError as error:
            raise EndpointError("deterministic", "no secure connection", self._shown(str(error))) from None
        except (aiohttp.ClientError, OSError) as error:
            detail = self._shown(f"{type(error).__name__}: {error}")
            raise EndpointError("transient", "the connection failed", detail) from None
        if response.status == 200:
            return self._read(body)
        if response.status == 400 and error_of(body).get("code") == "content_filter":
            # Azure's way of saying that the prompt was filtered: an answer, and always the same.
            return {"choices": [{"text": "", "finish_reason": "content_filter"}]}
        raise self._refused(response.status, response.headers, body)

    def _read(self, body: bytes) -> dict[str, Any]:
        if not body.strip():
            raise EndpointError("transient", "an empty answer")
        try:
            reply = json.loads(body)
        except ValueError:
            raise EndpointError(
                "transient", "an answer that is not JSON", self._shown(text_of(body))
            ) from None
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or not choices or not all(map(is_choice, choices)):
            # JSON, so somebody meant it.
            detail = self._shown(text_of(body))
            raise EndpointError("deterministic", "an answer without choices[..].text", detail)
        return reply

    def _output(self, reply: Mapping[str, Any]) -> ModelOutput:
        try:
            return output_of(reply, self.model_name)
        except (TypeError, ValueError, AttributeError) as error:
            detail = self._shown(f"{type(error).__name__}: {error}")
            raise EndpointError("deterministic", "an answer that cannot be read", detail) from None

    def _refused(self, status: int, headers: Mapping[str, str], body: bytes) -> EndpointError:
        error = error_of(body)
        failure = f"HTTP {status} from {self.base_url}"
        detail = self._shown(str(error.get("message") or text_of(body)))
        if status == 404:
            detail = f"{detail}: {SPELLINGS}"
        if (status < 500 and status not in _TRANSIENT) or error.get("code") == "insufficient_quota":
            return EndpointError("deterministic", failure, detail)
        kind: Literal["transient", "rate_limit"] = "rate_limit" if status == 429 else "transient"
        return EndpointError(kind, failure, detail, retry_after=retry_after(headers))

    def _shown(self, text: str) -> str:
        """A message that is not ours, as it may be shown: in one line, cut, without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        text = " ".join(text.split())
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} .."

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            headers = {"Content-Type": "application/json"}
            if self._authorization:
                headers["Authorization"] = self._authorization
            # inspect limits the connections. Servers drop idle ones (uvicorn after 5 s), so we do before them.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
            client = aiohttp.ClientSession(headers=headers, connector=connector, timeout=self._timeout)
            session = self._sessions[loop] = _Session(client, lambda: self._sessions.pop(loop))
            await session.open()
        return session.client


class _Session:
    """The HTTP client of one event loop, closed when the loop ends.

    inspect runs each eval in a loop of its own, and closes no models at its end. What a loop does close are its
    asynchronous generators, so one of them holds the client.
    """

    def __init__(self, client: aiohttp.ClientSession, forget: Callable[[], object]):
        self.client = client
        self._forget = forget
        self._life = self._live()

    async def open(self) -> None:
        await anext(self._life)

    async def aclose(self) -> None:
        await self._life.aclose()

    async def _live(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._forget()
            await self.client.close()


def _endpoint(argument: str | None) -> tuple[str, str, tuple[str, str] | None]:
    """(base URL without user and password, name of the variable with its key, user and password)."""
    if argument:
        source, key_variable = "the base URL", _API_KEY
        given = argument
    elif os.environ.get(_BASE_URL):
        source, key_variable = _BASE_URL, _API_KEY
        given = os.environ[_BASE_URL]
    elif os.environ.get(_OPENAI_BASE_URL):
        source, key_variable = _OPENAI_BASE_URL, _OPENAI_API_KEY
        given = os.environ[_OPENAI_BASE_URL]
    else:
        raise InputError(
            f"completions: wanted the endpoint's base URL (http://host:port/v1): set {_BASE_URL}, or give it as "
            "inspect's model_base_url"
        )
    # No message shows the URL: a password may be anywhere in one that is not well formed.
    try:
        url = urlsplit(given.strip())
        host, port = url.hostname, url.port
    except ValueError:
        host = None
    if not host or url.scheme not in ("http", "https") or url.query or url.fragment:
        raise InputError(
            f"completions: wanted {source} as http(s)://host:port/path, with no query; it is not"
        )
    user = None
    if url.username is not None or url.password is not None:
        if argument:
            raise InputError(
                f"completions: user and password in {source} would be written to the log: give them in the URL "
                f"of {_BASE_URL}"
            )
        user = unquote(url.username or ""), unquote(url.password or "")
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    return urlunsplit((url.scheme, place, url.path.rstrip("/"), "", "")), key_variable, user


def _basic(user: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(user).encode()).decode()
