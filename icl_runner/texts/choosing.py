"""Questions whose answer is one of several names.

A model whose decoding can be restricted is held to them ("constrained"); others are told of them ("instructed"). The
two are never in one column. Nor are those that write nothing: of a model that tells likelihoods the likeliest name, as
it is, calibrated, or over orders of the examples.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from icl_runner import chat_answers, constraints, likelihoods, prompts, scoring
from icl_runner.cells import Call
from icl_runner.prompts import Prompt
from spae.errors import InputError

CONSTRAINED, INSTRUCTED = RULES = ("constrained", "instructed")
# Keys of answers that are likelihoods: with the examples as they stand, in other orders (order2, order3, ..), and
# behind content-free prompts (content-free1, ..).
LIKELIEST, ORDER, CONTENT_FREE = "likeliest", "order", "content-free"


def choice(prompt: Prompt, names: Sequence[str], room: int, constrains: bool, suffix: str = "") -> Call:
    """A call whose answer is to be one of the names; its key is the rule by which it is scored, and the suffix.

    Args:
        room: tokens of the answer; calls with equal settings can be answered side by side.
        constrains: whether the model's decoding can be restricted.
    """
    if constrains:
        return Call(f"{CONSTRAINED}{suffix}", prompt, room, tuple(names))
    told = prompts.chat_choice(names)
    return Call(f"{INSTRUCTED}{suffix}", prompt, room, tuple(names), system=told)


def chosen(key: str, answer: str, names: Sequence[str]) -> str | None:
    """The name that an answer gives, by the rule that its key begins with; None for none."""
    read = scoring.chosen if key.startswith(CONSTRAINED) else chat_answers.given
    return read(answer, names)


def likelihood(key: str, prompt: Prompt, names: Sequence[str], room: int) -> Call:
    """A call that asks how likely each of the names is. `room`: as of `choice`."""
    return Call(key, prompt, room, tuple(names), likelihoods=True)


def check_likelihoods(options: str, model: str, arguments: Mapping[str, Any]) -> None:
    """
    Raises:
        InputError: the options want likelihoods, and the model does not tell them.
    """
    if not constraints.tells_likelihoods(model, arguments):
        raise InputError(
            f"{options}: wanted a model that tells how likely a text is: spae-lm/.., or completions/.. with "
            f"-M dialect=llama.cpp or vllm; got {model}"
        )


def by_likelihood(answers: Mapping[str, Any], suffix: str) -> dict[str, str]:
    """The name that each score by likelihood chooses, of those that were asked for: "likeliest", "calibrated",
    "orders".

    Args:
        answers: by key; those that are likelihoods are mappings, name -> log-probability.
        suffix: of a control's keys; "" of the result's.
    """
    first = answers.get(f"{LIKELIEST}{suffix}")
    if first is None:
        return {}
    found = {"likeliest": likelihoods.likeliest(first)}
    neutral = [answer for key, answer in answers.items() if key.startswith(CONTENT_FREE)]
    if neutral:
        found["calibrated"] = likelihoods.likeliest(likelihoods.calibrated(first, neutral))
    others = [answer for key, answer in answers.items() if re.fullmatch(rf"{ORDER}\d+{suffix}", key)]
    if others:
        found["orders"] = likelihoods.likeliest(likelihoods.averaged([first, *others]))
    return found


def max_tokens(names: Sequence[str]) -> int:
    """Room for the longest name and for what shows that an answer goes on.

    A token of Latin letters has two or more, mostly; digits may have a token each, other scripts one for each byte.
    """

    def most(name: str) -> float:
        halves = (char.isascii() and not char.isdigit() for char in name)
        return sum(0.5 if half else len(char.encode()) for char, half in zip(name, halves, strict=True))

    return int(max(map(most, names))) + 4
