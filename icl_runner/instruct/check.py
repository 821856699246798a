"""From what the model wrote to the turns of a conversation, or to the reason why it is no use."""

import re
from collections import Counter

from icl_runner.endpoint import Answer
from spae.connector_config import IMAGE
from spae.conversations import Turn

# Reason codes -> what is wrong.
REASONS = {
    "call": "the model gave no answer",
    "empty": "nothing was written",
    "cut": "it was not finished",
    "characters": "it holds what is no character",
    "form": "questions (Q:) and answers (A:) do not alternate",
    "repeated": "a question is asked twice, or a sentence of some words stands there three times",
    "captions": "it speaks of captions, or of what it was told",
    "coordinates": "it speaks of boxes or coordinates",
    "refused": "it speaks of itself as a program, or says that it sees nothing",
    "placeholder": "it holds <image> or <bbox>",
    "duplicate": "the same was written before",
}
# Reason -> what tells of it, in the order in which they are looked for.
_MENTIONS = {
    "placeholder": (r"<(image|bbox\d*|region)>",),
    "refused": (
        r"\bas an ai\b",
        r"\blanguage model\b",
        r"\bi (can ?not|can't|am unable to|am not able to) (see|view|look|access)\b",
    ),
    "coordinates": (
        r"\bco-?ordinates?\b",
        r"\bbounding\b",
        r"\b[xy]-?(axis|value)\b",
        r"[\[(]\s*(0?\.\d+|[01])\s*,\s*\d*\.?\d+",  # "[0.3, 0.2"
        r"(?<![\d.])(0?\.\d{3}|1\.000)(?!\d)",  # "0.312"; "0.5 litres" and "2.500" are none
    ),
    "captions": (
        r"\bcaptions?\b",
        r"\b(image|picture|scene) descriptions?\b",
        r"\b(the|these|those|given|provided) (descriptions?|sentences?)\b",
        r"\b(is|are|was|were|isn't|aren't|as) (not |also |explicitly )*(mentioned|described|stated|specified)\b",
        r"\bdoes(n't| not) (mention|specify|state)\b",
        r"\b(information|text|details?) (that (is|was) )?(given|provided)\b",
        r"\b(given|provided|available) information\b",
        r"\baccording to the (text|information)\b",
    ),
}
_SOME = 4  # words of a sentence; "Yes, it is." may stand there often
_LABEL = re.compile(r"^[ \t]*(Q|A|Question|Answer)[ \t]*:[ \t]*", re.IGNORECASE | re.MULTILINE)


class Rejected(ValueError):
    """Carries a code of REASONS."""


def turns(answer: Answer, question: str | None) -> tuple[Turn, ...]:
    """The turns of a conversation whose first has `<image>`.

    Args:
        question: what the person said; None where the model wrote that too.

    Raises:
        Rejected: with its reason.
    """
    text = answer.text.strip()
    if not text:
        raise Rejected("empty")
    if answer.cut:
        raise Rejected("cut")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Rejected("characters")
    pairs = _pairs(text) if question is None else [(question, text)]
    asked = [_normal(one) for one, _ in pairs]
    if len(set(asked)) < len(asked) or _stuck("\n".join(other for _, other in pairs)):
        raise Rejected("repeated")
    for reason, patterns in _MENTIONS.items():
        if any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns):
            raise Rejected(reason)
    found = []
    for number, (one, other) in enumerate(pairs):
        found += [Turn("human", one if number else f"{IMAGE}\n{one}"), Turn("gpt", other)]
    return tuple(found)


def same(conversation: tuple[Turn, ...]) -> str:
    """What two conversations have in common that say the same: their words, without signs and differences of case."""
    return "\n".join(_normal(turn.text) for turn in conversation)


def _pairs(text: str) -> list[tuple[str, str]]:
    """Questions with their answers."""
    before, *parts = _LABEL.split(text)
    labels, texts = [label[0].upper() for label in parts[::2]], [part.strip() for part in parts[1::2]]
    if before.strip() or not labels or labels != ["Q", "A"] * (len(labels) // 2) or not all(texts):
        raise Rejected("form")
    return list(zip(texts[::2], texts[1::2], strict=True))


def _stuck(text: str) -> bool:
    """Whether the model wrote a sentence of some words again and again, as small ones do."""
    sentences = Counter(_normal(sentence) for sentence in re.split(r"[.!?\n]+", text))
    return any(count >= 3 and len(sentence.split()) >= _SOME for sentence, count in sentences.items())


def _normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
