"""The fields of a request to the embedded model: honoured, passed over, or refused by name."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from spae.service.errors import ApiError, short

# For accounts, bills and caches elsewhere: no answer depends on them.
IGNORED = frozenset(
    (
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    )
)
# What the model does not have, and the values that ask for nothing of it.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "min_tokens": (0,),
    "n": (1,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_k": (0, -1),
    "top_logprobs": (0,),
}
_STREAM_OPTIONS = ("include_usage", "include_obfuscation")
_MOST_STOPS, _LONGEST_STOPS = 64, 4096  # they are looked for after every few tokens


def check_fields(body: Mapping[str, Any], honoured: Collection[str], model: str) -> None:
    """Refuse what would be ignored. Null stands for a field that is left out.

    Raises:
        ApiError: 400 a field that is neither honoured nor harmless.
    """
    for name, value in body.items():
        if value is None or name in honoured or name in IGNORED:
            continue
        if not any(_same(value, neutral) for neutral in _NEUTRAL.get(name, ())):
            raise refused(f"{name[:100]}: {model} does not have it; leave it out", name[:100])
    options = body.get("stream_options")
    if options is None:
        return
    if not isinstance(options, Mapping):
        raise refused(f"stream_options: wanted an object; got {short(options)}", "stream_options")
    for name, value in options.items():
        if name not in _STREAM_OPTIONS:
            place = f"stream_options.{name[:100]}"
            raise refused(f"{place}: {model} does not have it; leave it out", place)
        if not isinstance(value, bool | None):
            place = f"stream_options.{name}"
            raise refused(f"{place}: wanted true or false; got {short(value)}", place)


def number(body: Mapping[str, Any], name: str, kind: type, low: float, high: float | None) -> Any:
    """A field that is a number, None where it is left out.

    Raises:
        ApiError: 400, it is of another type, or out of range.
    """
    value = body.get(name)
    if value is None:
        return None
    right = isinstance(value, int) or (kind is float and isinstance(value, float))
    if isinstance(value, bool) or not right or not low <= value <= (value if high is None else high):
        upto = f" to {high}" if high is not None else ""
        what = "a number" if kind is float else "a whole number"
        raise refused(f"{name}: wanted {what} from {low}{upto}; got {short(value)}", name)
    return value


def stops(stop: Any) -> tuple[str, ...]:
    """The strings that end an answer.

    Raises:
        ApiError: 400, they are none.
    """
    strings = () if stop is None else (stop,) if isinstance(stop, str) else stop
    if not isinstance(strings, Sequence) or not all(isinstance(one, str) and one for one in strings):
        raise refused(
            f"stop: wanted a string or a list of strings, none of them empty; got {short(stop)}", "stop"
        )
    if len(strings) > _MOST_STOPS or sum(map(len, strings)) > _LONGEST_STOPS:
        raise refused(
            f"stop: wanted at most {_MOST_STOPS} strings of together {_LONGEST_STOPS} letters", "stop"
        )
    return tuple(strings)


def refused(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, code=code, param=param)


def _same(value: Any, neutral: Any) -> bool:
    # True is 1 in Python, and in no request.
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
