"""What an OpenAI-compatible endpoint of text completions replies, read as inspect-ai's values."""

import json
from collections.abc import Mapping
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    Logprob,
    Logprobs,
    ModelOutput,
    ModelUsage,
    StopReason,
    TopLogprob,
)

_STOP_REASONS: dict[str | None, StopReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "max_tokens",
    "content_filter": "content_filter",
}


def text_of(body: bytes) -> str:
    """A body as text, whatever it is."""
    return body.decode("utf-8", "replace")


def error_of(body: bytes) -> dict[str, Any]:
    """The `error` of an endpoint's answer (the message alone from those that send a string), {} without one."""
    try:
        reply = json.loads(body)
    except ValueError:
        return {}
    error = reply.get("error", reply) if isinstance(reply, dict) else {}
    return error if isinstance(error, dict) else {"message": str(error)}


def is_choice(choice: object) -> bool:
    """Whether a reply's choice holds a text."""
    return isinstance(choice, dict) and isinstance(choice.get("text"), str)


def output_of(reply: Mapping[str, Any], model: str) -> ModelOutput:
    """A reply whose choices are such. `model`: its name where the reply has none.

    Raises:
        TypeError, ValueError, AttributeError: something else in it is not as OpenAI documents it.
    """
    choices = [
        ChatCompletionChoice(
            message=ChatMessageAssistant(content=choice["text"], model=model, source="generate"),
            stop_reason=_STOP_REASONS.get(choice.get("finish_reason"), "unknown"),
            logprobs=_logprobs(choice.get("logprobs")),
        )
        for choice in sorted(reply["choices"], key=lambda choice: choice.get("index") or 0)
    ]
    return ModelOutput(
        model=str(reply.get("model") or model), choices=choices, usage=_usage(reply.get("usage"))
    )


def _usage(usage: Any) -> ModelUsage | None:
    if not isinstance(usage, dict):
        return None
    prompt, answer = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    # inspect counts what came from the endpoint's cache apart, because it costs less.
    return ModelUsage(
        input_tokens=prompt - (cached or 0),
        input_tokens_cache_read=cached,
        output_tokens=answer,
        total_tokens=prompt + answer,
    )


def _logprobs(logprobs: Any) -> Logprobs | None:
    """From the parallel lists of /v1/completions, or from the list of llama.cpp, which is that of chats."""
    if not isinstance(logprobs, dict):
        return None
    if logprobs.get("content"):
        return Logprobs.model_validate({"content": logprobs["content"]})
    tokens, values = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    content = [
        Logprob(
            token=token,
            logprob=value,
            top_logprobs=[TopLogprob(token=t, logprob=p) for t, p in top.items()] if top else None,
        )
        for token, value, top in zip(tokens, values, tops, strict=False)
        if value is not None
    ]
    return Logprobs(content=content) if content else None
