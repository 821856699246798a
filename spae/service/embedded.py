"""The embedded frozen language model behind OpenAI's chat interface: no other server is needed."""

import asyncio
import re
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from spae import frozen_lm
from spae.errors import InputError
from spae.frozen_lm import FrozenLM
from spae.frozen_lm.constraint import Constraint, TokenSet, encode_behind
from spae.service.errors import ApiError
from spae.service.marks import CLOSE, OPEN
from spae.service.settings import Settings
from spae.vocabulary import Vocabulary

_MAX_TOKENS = 256  # unless the request says
_STRIDE = 8  # tokens that are generated between two looks at the world
_WAITING = 8  # requests; the model answers one at a time
_SYSTEM = re.compile(r"<\|im_start\|>system\n([^{}<]*)<\|im_end\|>")
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# What would change the answer and is not there; what only refines it is passed over.
_NOT_OFFERED = ("tools", "functions", "logprobs", "top_logprobs", "logit_bias", "audio", "prediction")


@dataclass(frozen=True)
class _Request:
    """What is to be written."""

    prompt: str
    prompt_tokens: int
    max_tokens: int
    stop: tuple[str, ...]
    temperature: float
    top_p: float
    seed: int
    words: int  # of a picture
    draw: bool  # the answer must end with one
    text: bool  # it may have text before


@dataclass
class _End:
    """The last thing that is told of an answer."""

    reason: str  # OpenAI's finish_reason
    tokens: int


class EmbeddedModel:
    """The model of `spae.frozen_lm` as an upstream.

    It writes greedily unless the request has a temperature, at most 256 tokens unless it says how many, and one
    answer at a time. Where it begins a picture (or must end with one) it is held to words of the vocabulary, exactly
    as many as the picture has; the closing mark follows.

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
        ids = [encode_behind(f" {word}", model.tokenizer) for word in vocabulary.words]
        self._word_ids = [tokens[0] for tokens in ids if len(tokens) == 1]
        if len(self._word_ids) < len(ids):
            raise InputError(
                f"wanted a bundle whose words are single tokens of {model.name}; {len(ids) - len(self._word_ids)} of "
                f"{len(ids)} are not: use a bundle made for this model, or --upstream"
            )
        self._created = int(time.time())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spae-lm")
        self._answers = 0  # being written or waiting for it

    @classmethod
    def load(cls, settings: Settings, vocabulary: Vocabulary) -> "EmbeddedModel":
        """The model that the settings name. Raises InputError."""
        return cls(frozen_lm.load(settings.lm), vocabulary, settings.timeout_s)

    async def chat(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        text, end = "", _End("length", 0)
        request = await asyncio.to_thread(self._read, body)
        async with self._write(request) as pieces:
            try:
                async with asyncio.timeout(self._timeout_s):
                    async for piece in pieces:
                        if isinstance(piece, _End):
                            end = piece
                        else:
                            text += piece
            except TimeoutError:
                message = (
                    f"no whole answer within {self._timeout_s:g} s: ask for fewer max_tokens, or a stream"
                )
                raise ApiError(504, message, code="upstream_timeout") from None
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
        self, request: _Request, pieces: AsyncIterator[str | _End], counted: bool
    ) -> AsyncIterator[dict[str, Any]]:
        head = self._head("chat.completion.chunk")

        def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
            return {
                **head,
                "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
            }

        yield chunk({"role": "assistant", "content": ""})
        async for piece in pieces:
            if isinstance(piece, _End):
                yield chunk({}, piece.reason)
                if counted:
                    yield {**head, "choices": [], "usage": _usage(request.prompt_tokens, piece.tokens)}
            else:
                yield chunk({"content": piece})

    def _head(self, kind: str) -> dict[str, Any]:
        identifier = f"chatcmpl-{secrets.token_hex(12)}"
        return {"id": identifier, "object": kind, "created": int(time.time()), "model": self._model.name}

    @asynccontextmanager
    async def _write(self, request: _Request) -> AsyncIterator[AsyncIterator[str | _End]]:
        """An answer piece by piece, as it is written in the model's thread; leaving ends it."""
        if self._answers >= _WAITING:
            message = f"the language model has {_WAITING} answers to write already: try again later"
            raise ApiError(429, message, code="overloaded", retry_after_s=10)
        loop = asyncio.get_running_loop()
        # Not bounded but by max_tokens: a client that reads slowly must not hold up the model.
        pieces: asyncio.Queue[str | _End | Exception] = asyncio.Queue()
        unwanted = threading.Event()

        def tell(piece: str | _End | Exception) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def write() -> None:
            try:
                _Writer(self._model, self._word_ids, request, tell, unwanted).write()
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

    def _read(self, body: Mapping[str, Any]) -> _Request:
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
        return _Request(
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


class _Writer:
    """Writes one answer, a few tokens at a time."""

    def __init__(
        self,
        model: FrozenLM,
        word_ids: Sequence[int],
        request: _Request,
        tell: Callable[[str | _End], None],
        unwanted: threading.Event,
    ):
        self._model = model
        self._word_ids = word_ids
        self._request = request
        self._tell = tell
        self._unwanted = unwanted
        self._text = ""  # written so far
        self._told = 0  # characters of it
        self._tokens = 0
        self._pictures = 0

    def write(self) -> None:
        reason = "length"
        while not self._unwanted.is_set() and self._left > 0:
            reason = self._write_text()
            last = reason != "picture" and self._owes_picture
            if last:
                self._text += "\n" * bool(self._text.strip()) + OPEN
            if reason != "picture" and not last:
                break
            if not self._write_picture():
                reason = "length"
                break
            if last:
                reason = "stop"
                break
        self._show(len(self._text))
        self._tell(_End(reason if reason != "picture" else "length", self._tokens))

    @property
    def _owes_picture(self) -> bool:
        return self._request.draw and not self._pictures

    @property
    def _left(self) -> int:
        return self._request.max_tokens - self._tokens

    def _write_text(self) -> str:
        """Up to where the text ends, a picture begins ("picture"), or there is no room for more."""
        if self._owes_picture and not self._request.text:
            return "stop"
        ids = self._model.encode(self._request.prompt + self._text)
        before, new = self._text, []
        while not self._unwanted.is_set():
            room = min(self._left, self._model.context_length - len(ids))
            # The picture that must come has its place.
            count = min(_STRIDE, room - (self._request.words if self._owes_picture else 0))
            if count < 1:
                return "length"
            generation = self._generate(ids, count)
            ids += generation.ids
            new += generation.ids
            # Together, since a letter may be spread over tokens.
            self._text = before + self._model.tokenizer.decode(new)
            place, mark = min(
                ((self._text.find(one, len(before)), one) for one in (*self._request.stop, OPEN)),
                key=lambda found: found[0] if found[0] >= 0 else len(self._text),
            )
            if place >= 0:
                self._text = self._text[:place] + (OPEN if mark == OPEN else "")
                return "picture" if mark == OPEN else "stop"
            if generation.stop != "length":
                return "stop"
            self._show(len(self._text) - self._doubtful())
        return "stop"

    def _write_picture(self) -> bool:
        """The words of a picture whose mark is written, and its closing mark; False when there is no room for all."""
        self._pictures += 1
        left = self._request.words
        while left and not self._unwanted.is_set():
            ids = self._model.encode(self._request.prompt + self._text)
            count = min(_STRIDE, left, self._left, self._model.context_length - len(ids))
            if count < 1:
                return False
            words = self._generate(ids, count, TokenSet(self._word_ids, count))
            self._text += self._model.tokenizer.decode(words.ids)
            self._show(len(self._text))
            left -= count
        self._text += f" {CLOSE}"
        return True

    def _generate(self, ids: Sequence[int], count: int, constraint: Constraint | None = None):
        request = self._request
        generation = self._model.generate(
            [ids],
            count,
            temperature=request.temperature,
            top_p=request.top_p,
            # Every stretch draws anew, and the same request always the same.
            seed=request.seed + self._tokens,
            constraints=[constraint],
        )[0]
        self._tokens += len(generation.ids)
        return generation

    def _doubtful(self) -> int:
        """How many characters at the end may begin a mark or a stop string, or are half a letter."""
        if self._text.endswith("\ufffd"):
            return len(self._text) - len(self._text.rstrip("\ufffd"))
        marks = (*self._request.stop, OPEN)
        longest = min(max(map(len, marks)) - 1, len(self._text))
        return next(
            (n for n in range(longest, 0, -1) if any(m.startswith(self._text[-n:]) for m in marks)), 0
        )

    def _show(self, end: int) -> None:
        if end > self._told:
            self._tell(self._text[self._told : end])
            self._told = end


async def _until_end(pieces: asyncio.Queue) -> AsyncIterator[str | _End]:
    while True:
        piece = await pieces.get()
        if isinstance(piece, Exception):
            raise piece
        yield piece
        if isinstance(piece, _End):
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
    if isinstance(value, bool) or not right or value < low or (high is not None and value > high):
        upto = f" to {high}" if high is not None else ""
        raise _refused(f"{name}: wanted a number from {low}{upto}; got {str(value)[:20]}", name)
    return value


def _refused(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, code=code, param=param)
