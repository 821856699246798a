"""The embedded frozen language model behind OpenAI's chat interface: no other server is needed."""

import asyncio
import re
import secrets
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from spae import frozen_lm
from spae.errors import InputError
from spae.frozen_lm import FrozenLM
from spae.service.errors import ApiError
from spae.service.settings import Settings
from spae.service.writer import End, PictureWords, Request, Writer
from spae.vocabulary import Vocabulary

_MAX_TOKENS = 256  # unless the request says
_WAITING = 8  # requests; the model answers one at a time
_WARM_UP = 340  # tokens: chunks of every size
_SYSTEM = re.compile(r"<\|im_start\|>system\n([^{}<]*)<\|im_end\|>")
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# What would change the answer and is not there; what only refines it is passed over.
_NOT_OFFERED = ("tools", "functions", "logprobs", "top_logprobs", "logit_bias", "audio", "prediction")


class EmbeddedModel:
    """The model of `spae.frozen_lm` as an upstream.

    It writes greedily unless the request has a temperature, at most 256 tokens unless it says how many, and one
    answer at a time; where the time is up it gives what there is, with the reason "length". A picture that it begins
    (or must end with) is held to words of the vocabulary, exactly as many as it has, and to the closing mark.

    Raises InputError: the model's chat template is not of the kind with <|im_start|> and <|im_end|>.
    """

    def __init__(self, model: FrozenLM, vocabulary: Vocabulary, timeout_s: float = 60.0):
        if not model.chat_template or "<|im_start|>" not in model.chat_template:
            raise InputError(
                f"wanted a language model whose chat template has <|im_start|> and <|im_end|>; {model.name} has "
                "another or none: serve it with llama.cpp and name that with --upstream"
            )
        self._model = model
        self._timeout_s = 0.9 * timeout_s  # sooner than the whole request's time is up
        found = _SYSTEM.search(model.chat_template)
        self._system = found[1] if found else None
        self._words = PictureWords(vocabulary.words, model.tokenizer)
        self._created = int(time.time())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spae-lm")
        self._answers = 0  # being written or waiting for it

    @classmethod
    def load(cls, settings: Settings, vocabulary: Vocabulary) -> "EmbeddedModel":
        """The model that the settings name, compiled for conversations of a usual length. Raises InputError."""
        model = frozen_lm.load(settings.lm)
        upstream = cls(model, vocabulary, settings.timeout_s)
        model.generate([model.encode(" word" * _WARM_UP)], 2)
        return upstream

    async def chat(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        text, end = "", None
        request = await asyncio.to_thread(self._read, body)
        async with self._write(request) as pieces:
            try:
                async with asyncio.timeout(self._timeout_s):
                    async for piece in pieces:
                        if isinstance(piece, End):
                            end = piece
                        else:
                            text += piece
            except TimeoutError:
                if not text:
                    message = f"the language model had no time within {self._timeout_s:g} s: try again later"
                    raise ApiError(504, message, code="upstream_timeout") from None
        if end is None:
            end = End("length", len(self._model.tokenizer.encode(text)))
        answer = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": answer, "logprobs": None, "finish_reason": end.reason}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": _usage(request.prompt_tokens, end.tokens),
        }

    @asynccontextmanager
    async def stream(
        self, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        request = await asyncio.to_thread(self._read, body)
        options = body.get("stream_options")
        counted = isinstance(options, Mapping) and bool(options.get("include_usage"))
        async with self._write(request) as pieces:
            yield self._chunks(request, pieces, counted)

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        return [{"id": self._model.name, "object": "model", "created": self._created, "owned_by": "spae"}]

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    async def _chunks(
        self, request: Request, pieces: AsyncIterator[str | End], counted: bool
    ) -> AsyncIterator[dict[str, Any]]:
        head = self._head("chat.completion.chunk")

        def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
            return {
                **head,
                "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
            }

        yield chunk({"role": "assistant", "content": ""})
        async for piece in pieces:
            if isinstance(piece, End):
                yield chunk({}, piece.reason)
                if counted:
                    yield {**head, "choices": [], "usage": _usage(request.prompt_tokens, piece.tokens)}
            else:
                yield chunk({"content": piece})

    def _head(self, kind: str) -> dict[str, Any]:
        identifier = f"chatcmpl-{secrets.token_hex(12)}"
        return {"id": identifier, "object": kind, "created": int(time.time()), "model": self._model.name}

    @asynccontextmanager
    async def _write(self, request: Request) -> AsyncIterator[AsyncIterator[str | End]]:
        """An answer piece by piece, as it is written in the model's thread; leaving ends it."""
        if self._answers >= _WAITING:
            message = f"the language model has {_WAITING} answers to write already: try again later"
            raise ApiError(429, message, code="overloaded", retry_after_s=10)
        loop = asyncio.get_running_loop()
        # Not bounded but by max_tokens: a client that reads slowly must not hold up the model.
        pieces: asyncio.Queue[str | End | Exception] = asyncio.Queue()
        unwanted = threading.Event()

        def tell(piece: str | End | Exception) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def write() -> None:
            try:
                Writer(self._model, self._words, request, tell, unwanted).write()
            except Exception as error:  # it belongs to who waits, whatever it is
                tell(error)

        self._answers += 1
        writing = self._thread.submit(write)
        writing.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        try:
            yield _until_end(pieces)
        finally:
            unwanted.set()
            writing.cancel()

    def _done(self) -> None:
        self._answers -= 1

    def _read(self, body: Mapping[str, Any]) -> Request:
        """Raises ApiError: what the model does not have, or more than its context."""
        for name in _NOT_OFFERED:
            if body.get(name):
                raise _refused(f"{name}: {self._model.name} does not have it; leave it out", name)
        kind = body.get("response_format")
        if kind not in (None, {"type": "text"}) or body.get("n") not in (None, 1):
            raise _refused(f"{self._model.name} gives one answer, of text; leave out n and response_format")
        prompt = self._prompt(body["messages"])
        tokens = len(self._model.encode(prompt))
        room = self._model.context_length - tokens
        asked = body.get("max_completion_tokens")
        asked = body.get("max_tokens") if asked is None else asked
        most = _number({"max_tokens": asked}, "max_tokens", int, 1, None, min(_MAX_TOKENS, max(room, 1)))
        if room < 1:
            raise _refused(
                f"messages: wanted at most {self._model.context_length - 1} tokens; got {tokens}: send fewer images, "
                "or fewer layers",
                "messages",
                "context_length_exceeded",
            )
        own = body.get("spae", {})
        return Request(
            prompt=prompt,
            prompt_tokens=tokens,
            max_tokens=min(int(most), room),
            stop=_stops(body.get("stop")),
            temperature=_number(body, "temperature", float, 0, 2, 0.0),
            top_p=_number(body, "top_p", float, 1e-6, 1, 1.0),
            seed=int(_number(body, "seed", int, -(2**63), 2**64, secrets.randbelow(2**31))) % 2**31,
            words=own.get("words", 0),
            draw=own.get("draw", False),
            text=own.get("text", True),
        )

    def _prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The conversation as the model's template writes it, up to where the answer begins."""
        turns = []
        for place, message in enumerate(messages):
            role, content = _ROLES.get(message["role"]), message.get("content")
            if role is None or not isinstance(content, str):
                raise _refused(
                    f"messages[{place}]: wanted text of the roles {', '.join(_ROLES)}; got the role "
                    f"{message['role'][:20]!r}, or no text",
                    "messages",
                )
            turns.append((role, content))
        if turns[0][0] != "system" and self._system is not None:
            turns.insert(0, ("system", self._system))
        # Control tokens in what people write would end their turn.
        written = (f"<|im_start|>{role}\n{text.replace('<|', '< |')}<|im_end|>\n" for role, text in turns)
        return "".join(written) + "<|im_start|>assistant\n"


async def _until_end(pieces: asyncio.Queue) -> AsyncIterator[str | End]:
    while True:
        piece = await pieces.get()
        if isinstance(piece, Exception):
            raise piece
        yield piece
        if isinstance(piece, End):
            return


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _stops(stop: Any) -> tuple[str, ...]:
    stops = () if stop is None else (stop,) if isinstance(stop, str) else stop
    if not isinstance(stops, Sequence) or not all(isinstance(one, str) and one for one in stops):
        raise _refused("stop: wanted a string or a list of strings, none of them empty", "stop")
    return tuple(stops)


def _number(
    body: Mapping[str, Any], name: str, kind: type, low: float, high: float | None, default: float
) -> float:
    value = body.get(name)
    if value is None:
        return default
    right = isinstance(value, int) or (kind is float and isinstance(value, float))
    if isinstance(value, bool) or not right or not low <= value <= (value if high is None else high):
        upto = f" to {high}" if high is not None else ""
        raise _refused(f"{name}: wanted a number from {low}{upto}; got {str(value)[:20]}", name)
    return value


def _refused(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, code=code, param=param)
