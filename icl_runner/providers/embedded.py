"""The embedded frozen language model (`spae.frozen_lm`) as a provider for inspect-ai."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from jaxtyping import Float, Int

from icl_runner import constraints
from icl_runner.constraints import (
    LOG_PROBS,
    Choices,
    Likelihoods,
    Pattern,
    Words,
    from_extra_body,
    spaced,
)
from icl_runner.providers.dialects import vocabulary_words
from icl_runner.providers.raw_prompt import raw_prompt
from spae import frozen_lm
from spae.errors import InputError
from spae.frozen_lm import FrozenLM, Generation, SoftPrompt
from spae.frozen_lm.constraint import Constraint, Trie, encode_behind
from spae.frozen_lm.prefixes import in_common
from spae.frozen_lm.writable import WritableWords

LOG = logging.getLogger("icl_runner.providers")

_STOP_REASONS: dict[str, StopReason] = {
    "stop": "stop",
    "eos": "stop",
    "constraint": "stop",
    "length": "max_tokens",
}
_MAX_TOKENS = 256  # unless the call says
# Settings of inspect's that would change the answer, and that this model does not have.
_NOT_OFFERED = ("top_k", "top_logprobs", "logit_bias", "frequency_penalty", "presence_penalty", "best_of")


@dataclass(frozen=True)
class _Settings:
    """What texts that are generated side by side have in common."""

    max_tokens: int
    stop: tuple[str, ...]
    temperature: float
    top_p: float
    contrast: float


@dataclass(eq=False)
class _Writing:
    """A text is wanted behind a prompt."""

    prompt: list[int] | SoftPrompt
    ids: Int[np.ndarray, " n"]  # of the prompt, to compare it with others
    settings: _Settings
    seed: int
    constraint: Constraint | None
    against: list[list[int]]
    answer: Future[Generation] = field(default_factory=Future)


@dataclass(eq=False)
class _Scoring:
    """The log-probabilities of texts behind a prompt are wanted."""

    prompt: list[int] | SoftPrompt
    ids: Int[np.ndarray, " n"]
    texts: list[list[int]]
    answer: Future[list[Float[np.ndarray, " n"]]] = field(default_factory=Future)


class EmbeddedAPI(ModelAPI):
    """`spae-lm/default` or `spae-lm/<path>`: one user message is continued as it is.

    Greedy unless a temperature is given. Of the calls that wait at the same time those come first that go on from what
    was read last, and texts with equal settings are generated side by side, in one thread beside the event loop.

    Args:
        batch: how many texts are generated side by side at most.

    Raises:
        InputError: no such model, a base URL, or a batch below 1.
    """

    provider = "spae-lm"

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        *,
        batch: int = 8,
    ):
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        if base_url:
            raise InputError(
                f"{self.provider}: wanted no base URL, the model runs in this process; leave it out"
            )
        if type(batch) is not int or batch < 1:
            raise InputError(f"{self.provider}: wanted a batch from 1; got {batch!r}")
        self._batch = batch
        self._model: FrozenLM = self._load()
        self._writable: dict[str, WritableWords] = {}
        self._waiting: list[_Writing | _Scoring] = []
        self._recent: deque[Int[np.ndarray, " n"]] = deque(maxlen=2 * batch)  # prompts, the last one first
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self.provider)

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """One text (or `num_choices`, with the seeds that follow each other).

        Raises:
            InputError: other messages, settings that the model does not have, or a prompt beyond its context.
        """
        refused = [name for name in _NOT_OFFERED if getattr(config, name) is not None]
        if refused:
            raise InputError(f"{self.provider}: does not have {', '.join(refused)}; leave it out")
        loop = asyncio.get_running_loop()
        # Both may tokenise for a while.
        text, prompt = await loop.run_in_executor(None, self._read, input, tools)
        asked = from_extra_body(config.extra_body)
        ids = np.array(prompt.named if isinstance(prompt, SoftPrompt) else prompt)
        if isinstance(asked, Likelihoods):
            return await self._likelihoods(asked.texts, text, prompt, ids)
        constraint = await loop.run_in_executor(None, self._constraint, asked, text)
        others, contrast = (asked.against, asked.contrast) if isinstance(asked, Words) else ((), 0.0)
        against = await loop.run_in_executor(None, lambda: [self._model.encode(one) for one in others])
        lengths = [len(ids), *map(len, against)]
        longest = max(lengths)
        room = self._model.context_length - longest
        if room < (config.max_tokens or 1):
            raise InputError(
                f"{self.provider}: wanted prompt and answer within {self._model.context_length} tokens; got a prompt "
                f"of {longest} and max_tokens {config.max_tokens}: use fewer examples or layers"
            )
        max_tokens = config.max_tokens or min(_MAX_TOKENS, room)
        settings = _Settings(
            max_tokens=max_tokens,
            stop=tuple(config.stop_seqs or ()),
            temperature=config.temperature or 0.0,
            top_p=1.0 if config.top_p is None else config.top_p,
            contrast=contrast,
        )
        requests = [
            _Writing(prompt, ids, settings, (config.seed or 0) + i, constraint, against)
            for i in range(config.num_choices or 1)
        ]
        self._wait(requests)
        generations = await asyncio.gather(*(asyncio.wrap_future(request.answer) for request in requests))
        output = self._output(sum(lengths), generations, bool(config.logprobs))
        if asked is not None:
            output.metadata = {"constrained": True}
        if isinstance(asked, Words) and (left_out := self._writable[asked.bundle].left_out):
            output.metadata = {"constrained": True, "words_left_out": len(left_out)}
        return output

    def max_connections(self) -> int:
        # Two batches, so that the next one stands ready.
        return 2 * self._batch

    def connection_key(self) -> str:
        return self.model_name

    async def count_text_tokens(self, text: str) -> int:
        return len(self._model.encode(text))

    async def tokenize(self, text: str) -> list[int]:
        return self._model.encode(text)

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    def _load(self) -> FrozenLM:
        return frozen_lm.load(self.model_name)

    def _read(self, messages: list[ChatMessage], tools: list[ToolInfo]) -> tuple[str, list[int] | SoftPrompt]:
        """The text to be continued, and what the model reads."""
        text = raw_prompt(messages, tools, self.provider)
        return text, self._model.encode(text)

    def _wait(self, requests: Sequence[_Writing | _Scoring]) -> None:
        with self._lock:
            self._waiting += requests
        for _ in requests:
            self._thread.submit(self._serve)

    def _serve(self) -> None:
        """The next batch. There is one turn for each request; turns whose request went along earlier find less."""
        with self._lock:
            self._waiting = [one for one in self._waiting if not one.answer.cancelled()]
            batch = self._next_batch()
            for request in batch:
                self._waiting.remove(request)
        batch = [one for one in batch if one.answer.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            answers = self._answers(batch)
        except Exception as error:  # it belongs to those who wait, whatever it is
            for request in batch:
                request.answer.set_exception(error)
            return
        for request, answer in zip(batch, answers, strict=True):
            request.answer.set_result(answer)

    def _answers(self, batch: Sequence[_Writing | _Scoring]) -> list[Any]:
        """To texts with equal settings, or to one request for log-probabilities."""
        first = batch[0]
        if isinstance(first, _Scoring):
            return [self._model.score(first.prompt, first.texts)]
        texts = [one for one in batch if isinstance(one, _Writing)]
        return self._model.generate(
            [one.prompt for one in texts],
            first.settings.max_tokens,
            stop=first.settings.stop,
            temperature=first.settings.temperature,
            top_p=first.settings.top_p,
            seed=[one.seed for one in texts],
            constraints=[one.constraint for one in texts],
            against=[one.against for one in texts],
            contrast=first.settings.contrast,
        )

    async def _likelihoods(
        self, texts: Sequence[str], written: str, prompt: list[int] | SoftPrompt, ids: Int[np.ndarray, " n"]
    ) -> ModelOutput:
        """How likely each text is behind the prompt, which ends as `written` does; as what was written stands the
        likeliest."""
        behind = [encode_behind(f"{spaced(written, text)}\n", self._model.tokenizer) for text in texts]
        request = _Scoring(prompt, ids, behind)
        self._wait([request])
        found = await asyncio.wrap_future(request.answer)
        log_probs = [float(one.sum()) for one in found]
        best = texts[log_probs.index(max(log_probs))]
        output = ModelOutput.from_content(self.model_name, spaced(written, best))
        output.model = self._model.name
        output.metadata = {LOG_PROBS: log_probs}
        read = len(ids) + sum(map(len, behind))
        output.usage = ModelUsage(input_tokens=read, output_tokens=0, total_tokens=read)
        return output

    def _next_batch(self) -> list[_Writing | _Scoring]:
        """Of those who wait, the one that has the fewest tokens to itself behind what it has in common with a recent
        prompt; where it wants a text, with those like it, and, where these are few, with some of other contexts.

        Among many waiting calls few share a context, and what was computed of a context is kept for a while only.
        """
        if not self._waiting:
            return []
        first = min(self._waiting, key=self._unread)
        batch: list[_Writing | _Scoring] = [first]
        if isinstance(first, _Writing):
            texts = [one for one in self._waiting if isinstance(one, _Writing)]
            alike = [one for one in texts if one.settings == first.settings]
            alike.sort(key=lambda one: (-in_common(one.ids, first.ids), one.ids.tolist()))
            batch[:] = alike[: self._batch]
        self._recent.extendleft(one.ids for one in batch)
        return batch

    def _unread(self, request: _Writing | _Scoring) -> tuple[int, int]:
        """How many of its tokens no recent prompt begins with, and how many prompts ago the nearest was."""
        ids = request.ids
        found = ((len(ids) - in_common(ids, recent), age) for age, recent in enumerate(self._recent))
        return min(found, default=(len(ids), 0))

    def _constraint(self, asked: constraints.Constraint | None, prompt: str) -> Constraint | None:
        if asked is None:
            return None
        if isinstance(asked, Pattern):
            raise InputError(
                f"{self.provider}: has no grammar for patterns; it can be held to choices, one after the other"
            )
        if isinstance(asked, Choices):
            return Trie([spaced(prompt, text) for text in asked.texts], self._model.tokenizer)
        if asked.bundle not in self._writable:
            self._writable[asked.bundle] = self._writable_words(asked.bundle)
        return self._writable[asked.bundle].constraint(asked.count)

    def _writable_words(self, bundle: str) -> WritableWords:
        words = self._model.writable(vocabulary_words(bundle))
        if (note := words.note()) is not None:
            LOG.warning("%s: bundle %r: %s", self.provider, bundle, note)
        return words

    def _output(self, read: int, generations: list[Generation], logprobs: bool) -> ModelOutput:
        choices = [
            ChatCompletionChoice(
                message=ChatMessageAssistant(content=one.text, model=self.model_name, source="generate"),
                stop_reason=_STOP_REASONS[one.stop],
                logprobs=self._logprobs(one) if logprobs else None,
            )
            for one in generations
        ]
        written = sum(len(one.ids) for one in generations)
        usage = ModelUsage(input_tokens=read, output_tokens=written, total_tokens=read + written)
        return ModelOutput(model=self._model.name, choices=choices, usage=usage)

    def _logprobs(self, generation: Generation) -> Logprobs:
        tokens = [self._model.tokenizer.decode([i]) for i in generation.ids]
        pairs = zip(tokens, generation.log_probs.tolist(), strict=True)
        return Logprobs(content=[Logprob(token=token, logprob=value) for token, value in pairs])
