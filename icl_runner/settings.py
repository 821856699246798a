"""The settings of a run: everything that its results depend on."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from spae.errors import InputError

_SECRET = re.compile("key|secret|token$|password|credential|auth", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What only `generate` and `transform` have; see `icl_runner.tasks` for each.

    Args:
        condition: of generate: "class", "sum" or "caption".
        classes: of generate: how many classes (of captions: how many queries); all by default.
        rounds: how often, each time with another context.
        kind: of transform: which corruption.
        context: of transform: "leak-free" or "published-leaking".
        first, last: of transform: the strengths of the first example in context and of the query.
        autoregressive, segment_words, samples, temperature, context_tokens: how pictures are decoded; see
            `icl_runner.tasks.drawing.Progress`.
    """

    condition: Literal["class", "sum", "caption"] = "class"
    classes: int | None = None
    rounds: int = 1
    kind: str = "denoise"
    context: Literal["leak-free", "published-leaking"] = "leak-free"
    first: float = 0.5
    last: float = 0.2
    autoregressive: int = 3
    segment_words: int = 16
    samples: int = 1
    temperature: float = 0.0
    context_tokens: int = 8192


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that results depend on; how fast they come is none of it.

    Args:
        task: "classify", "caption", "vqa", "interpret", "generate" or "transform".
        model: "provider/name", as inspect-ai calls it.
        data, split: as `icl_runner.data.sets` takes them.
        bundle: the tokenizer, as `spae.load` takes it.
        layers: of the pyramid; each number is a cell of its own.
        seed: of every choice of images.
        count: episodes or examples in a cell.
        control: ask everything again with another image's words.
        ways, shots, repeats, induction: of classify's episodes, each combination a cell; caption and vqa take
            their examples in context from `shots`.
        columns: "paper" for the seven columns of the published tables in place of shots, repeats, induction.
        names: "real" or "nonsense".
        words: "image", or "class-name": every image's words are its true class's name (the ceiling).
        episodes_file: episodes in place of drawn ones: ours, Frozen's JSON or V2L's CSV.
        model_args: of the provider, as given.
        base_url: of the provider's endpoint.
        drawing: of generate and transform, which take from above layers, seed, shots and count (of queries).

    Raises:
        InputError: something secret among the provider's arguments or in the URL.
    """

    task: str
    model: str
    data: str
    split: str | None = None
    bundle: str = "default"
    layers: tuple[int, ...] = (2,)
    seed: int = 0
    count: int = 100
    control: bool = True
    ways: tuple[int, ...] = (2,)
    shots: tuple[int, ...] = (1,)
    repeats: tuple[int, ...] = (0,)
    induction: bool = True
    columns: str | None = None
    names: str = "real"
    words: str = "image"
    episodes_file: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    base_url: str | None = None
    drawing: Drawing = Drawing()

    def __post_init__(self) -> None:
        # Settings are kept beside the logs, and in them: nothing secret may be among them.
        secret = [name for name in _names(self.model_args) if _SECRET.search(name)]
        if secret:
            raise InputError(
                f"-M {secret[0]}: keys are read from the environment, because arguments are written to the logs"
            )
        url = urlsplit(self.base_url or "")
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
