"""Questions whose answer is one of several names.

A model whose decoding can be restricted is held to them ("constrained"); others are told of them ("instructed"). The
two are never in one column.
"""

from collections.abc import Sequence

from icl_runner import chat_answers, prompts, scoring
from icl_runner.cells import Call
from icl_runner.prompts import Prompt

CONSTRAINED, INSTRUCTED = RULES = ("constrained", "instructed")


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


def max_tokens(names: Sequence[str]) -> int:
    """Room for the longest name and for what shows that an answer goes on.

    A token of Latin letters has two or more, mostly; digits may have a token each, other scripts one for each byte.
    """

    def most(name: str) -> float:
        halves = (char.isascii() and not char.isdigit() for char in name)
        return sum(0.5 if half else len(char.encode()) for char, half in zip(name, halves, strict=True))

    return int(max(map(most, names))) + 4
