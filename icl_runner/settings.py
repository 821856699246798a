"""The settings that every run has; a task adds its own (`icl_runner.task`)."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from icl_runner.options import ModelArguments, ModelName, NameOrPath, option, optional, wholes
from spae.errors import InputError

# Of one call that failed; a run may ask for another number.
MAX_RETRIES = 8

_SECRET = re.compile("key|secret|token$|password|credential|auth", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that results depend on; how fast they come is none of it.

    The fields are the options of `spae-icl run TASK`, and the comment beside each is its help. They are written beside
    the logs, and a folder of logs takes no run with others: a field that is renamed breaks runs off.

    Raises:
        InputError: something secret among the provider's arguments or in the URL.
    """

    data: NameOrPath  # what is asked about
    split: Annotated[str | None, optional("NAME")] = None  # of the data
    # layers of the pyramid in the prompt, each number a row (2: five words)
    layers: Annotated[tuple[int, ...], wholes(1)] = (2,)
    seed: Annotated[int, option("N")] = 0  # of the choice of images
    bundle: NameOrPath = "default"  # the trained tokenizer
    # spae-lm/default (embedded), spae-connector/BUNDLE (embedded, sees), completions/NAME, or any of inspect-ai's:
    # openai/.., google/.., vllm/..
    model: ModelName
    base_url: Annotated[str | None, optional("URL", name="model-base-url")] = None  # of the model's endpoint
    model_args: ModelArguments = field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse_secrets(self.base_url, self.model_args)


def refuse_secrets(base_url: str | None, model_args: Mapping[str, Any]) -> None:
    """Settings are kept beside the logs, and in them: nothing secret may be among them.

    Raises:
        InputError: something secret among the provider's arguments or in the URL.
    """
    secret = [name for name in _names(model_args) if _SECRET.search(name)]
    if secret:
        raise InputError(
            f"-M {secret[0]}: keys are read from the environment, because arguments are written to the logs"
        )
    url = urlsplit(base_url or "")
    if url.username is not None or any(_SECRET.search(name) for name, _ in parse_qsl(url.query)):
        raise InputError(
            "--model-base-url: wanted no user, password or key in it, because it is written to the logs; "
            "give them in the environment"
        )


def _names(arguments: Any) -> Iterator[str]:
    """Of arguments, and of what they hold (`default_headers`, ..)."""
    if isinstance(arguments, Mapping):
        for name, value in arguments.items():
            yield str(name)
            yield from _names(value)
    elif isinstance(arguments, list):
        for value in arguments:
            yield from _names(value)


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Where two JSON values differ, in words: of settings that were kept, and those of now."""
    if isinstance(before, dict) and isinstance(now, dict):
        # Where the settings differ, cells and samples do, and nobody needs to be told.
        if told := differences(before.get("settings"), now.get("settings")):
            return told
        return [
            one for key in sorted({*before, *now}) for one in differences(before.get(key), now.get(key), key)
        ]
    if before == now:
        return []
    if name == "examples_sha256":
        return [
            "what the data says of its images has changed: labels, captions, questions or names of classes"
        ]
    return [f"{name} was {_short(before)}, now {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
