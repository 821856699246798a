"""What the runner asks of a model's answer: one of a few texts, so many words of a vocabulary, a pattern, or no text
but how likely each of a few texts is.

A constraint travels to the provider inside inspect's `GenerateConfig(extra_body=constraint.extra_body())`,
so that it is logged with the call, and part of its cache key.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spae.errors import InputError

# The key of ours in an extra body; everything else there is the endpoint's own.
KEY = "spae"
LOG_PROBS = "log_probs"  # of likelihoods, among the metadata of an output

# The providers of this package; inspect's own chat providers know nothing of these constraints.
_PROVIDERS = ("spae-lm", "spae-connector", "completions")


@dataclass(frozen=True)
class Choices:
    """The answer is exactly one of `texts`, and then it ends.

    Where the prompt does not end in white space, the answer begins with one space (see `spaced`).
    """

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", _texts("choices", self.texts))

    def extra_body(self) -> dict[str, Any]:
        return {KEY: {"choices": list(self.texts)}}


@dataclass(frozen=True)
class Likelihoods:
    """No answer: the natural logarithm of the probability that the prompt goes on with each of `texts`, behind one
    space as in `Choices` and up to the end of the line. They come back in `ModelOutput.metadata[LOG_PROBS]`, in order.
    """

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", _texts("likelihoods", self.texts))

    def extra_body(self) -> dict[str, Any]:
        return {KEY: {"likelihoods": list(self.texts)}}


@dataclass(frozen=True)
class Words:
    """The answer is exactly `count` words of the bundle's vocabulary, each behind a single space.

    Args:
        bundle: a shipped bundle's name or a path, as `spae.load` takes it.
        against: other prompts: words are drawn to what is likelier behind the prompt than behind these, with the weight
            `contrast` (`spae.frozen_lm.writing.contrasted`). Of `spae-lm` alone: no endpoint tells the probabilities of
            all words.
    """

    count: int
    bundle: str = "default"
    against: tuple[str, ...] = ()
    contrast: float = 0.0

    def __post_init__(self) -> None:
        if type(self.count) is not int or self.count < 1:
            raise InputError(f"words: wanted a whole number of words from 1; got {self.count!r}")
        if not isinstance(self.bundle, str) or not self.bundle:
            raise InputError(f"words: wanted the name or path of a bundle; got {self.bundle!r}")
        if self.against:
            object.__setattr__(self, "against", _texts("words against", self.against))
        if type(self.contrast) not in (int, float) or not 0 <= self.contrast < math.inf:
            raise InputError(f"words: wanted a contrast from 0; got {self.contrast!r}")

    def extra_body(self) -> dict[str, Any]:
        against = {"against": list(self.against), "contrast": self.contrast} if self.against else {}
        return {KEY: {"words": self.count, "bundle": self.bundle, **against}}


@dataclass(frozen=True)
class Pattern:
    """The answer is matched by a regular expression as a whole; of endpoints that have a grammar (`spae-lm` has none).

    Args:
        regex: of literal signs, `\\d`, groups `(?:..|..)`, and the repetitions `?`, `*` and `{m,n}`: what every
            endpoint's grammar can say.
    """

    regex: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.regex)
        except (re.error, TypeError) as error:
            raise InputError(f"pattern: wanted a regular expression; got {self.regex!r} ({error})") from None

    def extra_body(self) -> dict[str, Any]:
        return {KEY: {"pattern": self.regex}}


Constraint = Choices | Words | Pattern  # what an answer is held to


def _texts(what: str, texts: Sequence[str]) -> tuple[str, ...]:
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(f"{what}: wanted at least one text that is not blank; got {texts!r}")
    if len(set(texts)) != len(texts):
        raise InputError(f"{what}: wanted different texts; got {texts!r}")
    return tuple(texts)


def from_extra_body(body: Mapping[str, Any] | None) -> Constraint | Likelihoods | None:
    """The constraint of an extra body; None where it holds none.

    Raises:
        InputError: one that is not ours.
    """
    if body is None or KEY not in body:
        return None
    content = body[KEY]
    if isinstance(content, Mapping):
        if set(content) == {"choices"} and isinstance(content["choices"], list | tuple):
            return Choices(tuple(content["choices"]))
        if set(content) == {"likelihoods"} and isinstance(content["likelihoods"], list | tuple):
            return Likelihoods(tuple(content["likelihoods"]))
        if set(content) == {"pattern"}:
            return Pattern(content["pattern"])
        if set(content) in ({"words"}, {"words", "bundle"}):
            return Words(content["words"], content.get("bundle", "default"))
        if set(content) == {"words", "bundle", "against", "contrast"} and isinstance(
            content["against"], list | tuple
        ):
            return Words(content["words"], content["bundle"], tuple(content["against"]), content["contrast"])
    raise InputError(
        f'extra_body: wanted {{"choices": [..]}}, {{"likelihoods": [..]}}, {{"words": n, "bundle": name, '
        f'"against": [..], "contrast": x}} or {{"pattern": ".."}} under {KEY!r}; got {content!r}'
    )


def spaced(prompt: str, text: str) -> str:
    """`text` as it continues the prompt: behind one space, unless either has white space there already, or the prompt
    ends with an opening bracket.

    Language models' words carry the space before them, so "Output:" is continued by " dog" and not by "dog".
    """
    joined = not prompt or prompt[-1].isspace() or prompt[-1] in "([{" or text[0].isspace()
    return text if joined else f" {text}"


def supports(model_name: str) -> bool:
    """Whether the model ("provider/name") takes constraints; chat models do not: parse and repair their answers.

    A `completions` endpoint of the dialect "none" takes them and cannot keep them: its outputs say so
    (`ModelOutput.metadata["constrained"]`).
    """
    return model_name.partition("/")[0] in _PROVIDERS


def tells_likelihoods(model_name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether the model ("provider/name") with these arguments answers `Likelihoods`: an endpoint does if it can be
    held to a text, whose probability it then tells."""
    return supports(model_name) and (
        not model_name.startswith("completions/") or arguments.get("dialect", "none") != "none"
    )
