"""The embedded frozen language model behind OpenAI's chat interface: no other server is needed."""

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, nullcontext
from typing import Any

from spae import frozen_lm
from spae.errors import InputError
from spae.frozen_lm import FrozenLM
from spae.service.chat.messages import IMAGE_PARTS, TEXT_PARTS
from spae.service.errors import ApiError, short
from spae.service.fields import check_fields, number, refused, stops
from spae.service.models.chat_template import ChatTemplate
from spae.service.models.names import check_model
from spae.service.models.upstream import PictureFormat
from spae.service.models.writer import End, Request, Writer
from spae.service.settings import Settings
from spae.service.telemetry import log_error
from spae.vocabulary import Vocabulary

LOG = logging.getLogger("spae.service")

_MAX_TOKENS = (
    256  # of a conversation's answer, unless the request says; a picture of more words fits all the same
)
_MAX_COMPLETION_TOKENS = 16  # of a completion, as OpenAI has it
_MOST_PROMPTS = 8
_WAITING = 8  # requests; the model answers one at a time
_WARM_UP = 340  # tokens: chunks of every size
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_SAMPLING = ("model", "stream", "stream_options", "max_tokens", "stop", "temperature", "top_p", "seed")
_CHAT_FIELDS = (*_SAMPLING, "messages", "max_completion_tokens", "modalities", "spae")
_COMPLETION_FIELDS = (*_SAMPLING, "prompt")


class EmbeddedModel:
    """The model of `spae.frozen_lm` as an upstream.

    It writes greedily unless the request has a temperature, at most 256 tokens unless it says how many, and one
    answer at a time; where the time is up it gives what there is, with the reason "length". A picture that it begins
    (or must end with) is held to words of the vocabulary that are one token of the model, exactly as many as it has,
    and to the closing mark.

    Raises:
        InputError: the model has no chat template, or one that cannot be read; or no word of the vocabulary is one
            token of it.
    """

    def __init__(
        self, model: FrozenLM, vocabulary: Vocabulary, timeout_s: float = 60.0, names: Sequence[str] = ()
    ):
        """`names`: what requests may call the model beside its own name."""
        self._template = ChatTemplate(model)
        self._model = model
        self._names = (model.name, *names)
        self._timeout_s = 0.9 * timeout_s  # sooner than the whole request's time is up
        self._words = model.writable(vocabulary.words)
        self._created = int(time.time())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spae-lm")
        self._answers = 0  # being written or waiting for it

    @classmethod
    def load(cls, settings: Settings, vocabulary: Vocabulary) -> "EmbeddedModel":
        """The model that the settings name. What conversations of a usual length take is compiled behind its back: who
        asks meanwhile waits for that.

        Raises:
            InputError: it is not there, or is none that chats.
        """
        model = frozen_lm.load(settings.lm)
        upstream = cls(model, vocabulary, settings.timeout_s, settings.names)
        facts = {"model": model.name, "source": model.source, "revision": model.revision}
        LOG.info("model loaded", extra={"facts": facts | {"words_left_out": len(upstream._words.left_out)}})
        warmed_up = upstream._thread.submit(model.generate, [model.encode(" word" * _WARM_UP)], 2)
        warmed_up.add_done_callback(_tell)
        return upstream

    def check(self, body: Mapping[str, Any]) -> None:
        check_model(body.get("model"), self._names)
        check_fields(body, _CHAT_FIELDS, self._model.name)
        others = [one for one in body.get("modalities") or () if one not in ("text", "image")]
        if others:
            message = f"modalities: {self._model.name} gives text and images; got {short(others[0])}"
            raise refused(message, "modalities")
        _settings(body, 1)
        letters = len((body.get("spae") or {}).get("preamble") or "")
        for place, message in enumerate(body["messages"]):
            letters += self._check_turn(message, f"messages[{place}]")
        self._check_letters(letters, "messages")

    def check_completion(self, body: Mapping[str, Any]) -> None:
        check_model(body.get("model"), self._names)
        check_fields(body, _COMPLETION_FIELDS, self._model.name)
        _settings(body, 1)
        for place, prompt in _prompts(body.get("prompt")):
            self._check_letters(len(prompt), place)

    async def chat(
        self, body: Mapping[str, Any], headers: Mapping[str, str], pictures: PictureFormat
    ) -> dict[str, Any]:
        request = await asyncio.to_thread(self._read, body, pictures)
        text, end = await self._whole(request, self._until())
        answer = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": answer, "logprobs": None, "finish_reason": end.reason}
        usage = _usage(len(request.prompt), end.tokens)
        return {**self._head("chatcmpl", "chat.completion"), "choices": [choice], "usage": usage}

    @asynccontextmanager
    async def stream(
        self, body: Mapping[str, Any], headers: Mapping[str, str], pictures: PictureFormat
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        request = await asyncio.to_thread(self._read, body, pictures)
        async with self._write(request) as pieces:
            yield self._chunks(request, pieces, _counted(body))

    async def complete(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        requests = await asyncio.to_thread(self._read_completion, body)
        choices, written = [], 0
        until = self._until()
        for index, request in enumerate(requests):
            text, end = await self._whole(request, until, must=index == 0)
            choices.append(_continued(index, text, end.reason))
            written += end.tokens
        usage = _usage(sum(len(request.prompt) for request in requests), written)
        return {**self._head("cmpl", "text_completion"), "choices": choices, "usage": usage}

    @asynccontextmanager
    async def stream_completion(
        self, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        requests = await asyncio.to_thread(self._read_completion, body)
        # The first is entered here: where there is no room for it, the status says so.
        async with (
            self._write(requests[0]) as first,
            aclosing(self._completion_chunks(requests, first, _counted(body))) as chunks,
        ):
            yield chunks

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        return [{"id": self._model.name, "object": "model", "created": self._created, "owned_by": "spae"}]

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _until(self) -> float:
        """When the time is up of what is asked now, by the loop's clock."""
        return asyncio.get_running_loop().time() + self._timeout_s

    async def _whole(self, request: Request, until: float, must: bool = True) -> tuple[str, End]:
        """An answer as it is when it ends, or when its time is up.

        Raises:
            ApiError: 504, there is nothing of it by then, though there `must` be.
        """
        text = ""
        async with self._write(request) as pieces:
            try:
                async with asyncio.timeout_at(until):
                    async for piece in pieces:
                        if isinstance(piece, End):
                            return text, piece
                        text += piece
            except TimeoutError:
                if must and not text:
                    message = f"the language model had no time within {self._timeout_s:g} s: try again later"
                    raise ApiError(504, message, code="upstream_timeout") from None
        return text, End("length", len(self._model.tokenizer.encode(text)))

    async def _chunks(
        self, request: Request, pieces: AsyncIterator[str | End], counted: bool
    ) -> AsyncIterator[dict[str, Any]]:
        head = self._head("chatcmpl", "chat.completion.chunk")

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
                    yield {**head, "choices": [], "usage": _usage(len(request.prompt), piece.tokens)}
            else:
                yield chunk({"content": piece})

    async def _completion_chunks(
        self, requests: Sequence[Request], first: AsyncIterator[str | End], counted: bool
    ) -> AsyncGenerator[dict[str, Any]]:
        head, written = self._head("cmpl", "text_completion"), 0
        for index, request in enumerate(requests):
            async with nullcontext(first) if index == 0 else self._write(request) as pieces:
                async for piece in pieces:
                    if isinstance(piece, End):
                        written += piece.tokens
                        yield {**head, "choices": [_continued(index, "", piece.reason)]}
                    else:
                        yield {**head, "choices": [_continued(index, piece, None)]}
        if counted:
            usage = _usage(sum(len(request.prompt) for request in requests), written)
            yield {**head, "choices": [], "usage": usage}

    def _head(self, prefix: str, kind: str) -> dict[str, Any]:
        identifier = f"{prefix}-{secrets.token_hex(12)}"
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

    def _read(self, body: Mapping[str, Any], pictures: PictureFormat) -> Request:
        """What is asked of a chat.

        Raises:
            ApiError: turns that the template does not take, or more than the model's context holds.
        """
        turns = [{"role": _ROLES[one["role"]], "content": one["content"]} for one in body["messages"]]
        try:
            prompt = self._template.prompt(turns)
        except InputError as error:
            raise refused(str(error), "messages") from None
        room = self._room(len(prompt), "messages", "send fewer images, or fewer layers")
        settings = _settings(body, max(_MAX_TOKENS, 2 * pictures.words), room)
        return Request(prompt=prompt, pictures=pictures, **settings)

    def _read_completion(self, body: Mapping[str, Any]) -> list[Request]:
        """What is asked of each text.

        Raises:
            ApiError: more than the model's context holds, or nothing to go on from.
        """
        requests = []
        for place, text in _prompts(body["prompt"]):
            prompt = self._model.encode(text)
            if not prompt:
                raise refused(f"{place}: wanted a text to go on from; got an empty one", "prompt")
            settings = _settings(body, _MAX_COMPLETION_TOKENS, self._room(len(prompt), place, "send less"))
            requests.append(Request(prompt=prompt, **settings))
        return requests

    def _room(self, tokens: int, place: str, remedy: str) -> int:
        """For an answer.

        Raises:
            ApiError: there is none.
        """
        room = self._model.context_length - tokens
        if room < 1:
            raise refused(
                f"{place}: wanted at most {self._model.context_length - 1} tokens; got {tokens}: {remedy}",
                place,
                "context_length_exceeded",
            )
        return room

    def _check_letters(self, letters: int, place: str) -> None:
        """Refuses what is too long for the context however it is made of tokens, before tokens are made of it."""
        most = self._model.context_length * self._model.tokenizer.longest
        if letters > most:
            raise refused(
                f"{place}: wanted at most {self._model.context_length - 1} tokens, which are never more than {most:,} "
                f"letters; got {letters:,} letters: send less",
                place,
                "context_length_exceeded",
            )

    def _check_turn(self, message: Mapping[str, Any], place: str) -> int:
        """The letters of a client's message.

        Raises:
            ApiError: one that is not of text and images.
        """
        name = self._model.name
        if message["role"] not in _ROLES:
            wanted = f"{place}.role: wanted one of {', '.join(_ROLES)}"
            raise refused(f"{wanted}; got {short(message['role'])}", f"{place}.role")
        for field in ("tool_calls", "function_call", "audio"):
            if message.get(field):
                raise refused(f"{place}.{field}: {name} does not have it; leave it out", f"{place}.{field}")
        content = message.get("content")
        if content is None and not message.get("images"):
            raise refused(f"{place}.content: wanted text or parts; got null", f"{place}.content")
        if isinstance(content, str):
            return len(content)
        letters = 0
        for i, part in enumerate(content or []):
            if part["type"] in TEXT_PARTS:
                letters += len(part["text"])
            elif part["type"] not in IMAGE_PARTS:
                at = f"{place}.content[{i}]"
                wanted = f"{at}: {name} takes parts of the types {', '.join(TEXT_PARTS + IMAGE_PARTS)}"
                raise refused(f"{wanted}; got {short(part['type'])}", at)
        return letters


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


def _counted(body: Mapping[str, Any]) -> bool:
    """Whether a stream ends with the usage."""
    return bool((body.get("stream_options") or {}).get("include_usage"))


def _continued(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def _prompts(prompt: Any) -> list[tuple[str, str]]:
    """The prompts of a completion with their places.

    Raises:
        ApiError: 400 they are neither a text nor some, or too many.
    """
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not all(isinstance(one, str) for one in prompts):
        raise refused(f"prompt: wanted a text or a list of texts; got {short(prompt)}", "prompt")
    if not 1 <= len(prompts) <= _MOST_PROMPTS:
        raise refused(f"prompt: wanted 1 to {_MOST_PROMPTS} texts; got {len(prompts)}", "prompt")
    if isinstance(prompt, str):
        return [("prompt", prompt)]
    return [(f"prompt[{i}]", one) for i, one in enumerate(prompts)]


def _settings(body: Mapping[str, Any], usual: int, room: int | None = None) -> dict[str, Any]:
    """How an answer is drawn and where it ends; `usual`: tokens, unless the body says; `room`: for so many.

    Raises:
        ApiError: a setting of another type, or out of range.
    """
    most = [number(body, name, int, 1, None) for name in ("max_completion_tokens", "max_tokens")]
    asked = next((one for one in most if one is not None), usual)
    temperature, top_p = number(body, "temperature", float, 0, 2), number(body, "top_p", float, 1e-6, 1)
    seed = number(body, "seed", int, -(2**63), 2**64)
    return {
        "max_tokens": asked if room is None else min(asked, room),
        "stop": stops(body.get("stop")),
        "temperature": 0.0 if temperature is None else temperature,
        "top_p": 1.0 if top_p is None else top_p,
        "seed": (secrets.randbelow(2**31) if seed is None else seed) % 2**31,
    }


def _tell(warmed_up: Future) -> None:
    """Whether it failed; what fails here fails with every request, too."""
    if not warmed_up.cancelled() and (error := warmed_up.exception()):
        log_error(LOG, "the language model failed", error)
