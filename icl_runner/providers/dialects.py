"""Constraints in the words of each kind of text-completion endpoint: fields of the request's body."""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from icl_runner.constraints import Choices, Constraint, Pattern, spaced
from spae import bundle

# llama.cpp: `grammar` in GBNF. vLLM (0.12 and later): `structured_outputs`; before that it was `guided_choice`
# and `guided_regex`. "none": the endpoint has no such thing.
DIALECTS = ("none", "llama.cpp", "vllm")


def fields(constraint: Constraint | None, dialect: str, prompt: str) -> dict[str, Any]:
    """What to add to the body so that the answer to `prompt` keeps to the constraint; {} for "none"."""
    if constraint is None or dialect == "none":
        return {}
    if isinstance(constraint, Choices):
        texts = [spaced(prompt, text) for text in constraint.texts]
        if dialect == "vllm":
            return {"structured_outputs": {"choice": texts}}
        return {"grammar": f"root ::= {' | '.join(map(_gbnf_literal, texts))}\n"}
    if isinstance(constraint, Pattern):
        if dialect == "vllm":
            return {"structured_outputs": {"regex": constraint.regex}}
        return {"grammar": f"root ::= {_gbnf(constraint.regex)}\n"}
    words = _word_pattern(constraint.bundle, dialect)
    if dialect == "vllm":
        return {"structured_outputs": {"regex": f"( {words}){{{constraint.count}}}"}}
    return {"grammar": f'root ::= (" " word){{{constraint.count}}}\nword ::= {words}\n'}


def vocabulary_words(name: str) -> list[str]:
    """The words of a bundle, without making its networks. `BundleError` when it cannot be read."""
    return bundle.read(name, "tokenizer")[1]["words.json"]


@cache
def _word_pattern(name: str, dialect: str) -> str:
    return pattern(vocabulary_words(name), dialect)


def pattern(words: Iterable[str], dialect: str) -> str:
    """A pattern (a group of the dialect's) that matches each of the words, and nothing else.

    Common beginnings are written once: a grammar with thousands of alternatives side by side is tried against
    every token of the model at every word, one with a few dozen at each letter is not.
    """
    tree: dict[str, Any] = {}
    for word in words:
        node = tree
        for letter in word:
            node = node.setdefault(letter, {})
        node[""] = {}
    return _group(tree, dialect == "llama.cpp")


def _group(node: dict[str, Any], gbnf: bool) -> str:
    branches = []
    for letter, child in node.items():
        if letter:
            while len(child) == 1 and "" not in child:  # a run of letters without a fork
                ((following, child),) = child.items()
                letter += following
            literal = _gbnf_literal(letter) if gbnf else _regex_literal(letter)
            rest = "" if set(child) == {""} else _group(child, gbnf)
            branches.append(f"{literal} {rest}".rstrip() if gbnf else literal + rest)
    return f"({'|'.join(branches)})" + ("?" if "" in node else "")


# What a `Pattern` may hold: the beginning of a group, a digit, a sign taken as it is, a repetition, another sign.
_REGEX_PARTS = re.compile(r"(\(\?:)|(\\d)|\\(.)|(\{\d+(?:,\d*)?\}|[?*])|(.)", re.DOTALL)


def _gbnf(regex: str) -> str:
    """A `Pattern` as GBNF writes it: groups and repetitions alike, signs in quotation marks."""
    grammar = ""
    for group, digit, escaped, repeated, sign in _REGEX_PARTS.findall(regex):
        if repeated:
            grammar += repeated
        elif sign in ("|", ")"):
            grammar += f" {sign}"
        else:
            literal = "\n" if escaped == "n" else escaped or sign
            grammar += " (" if group else " [0-9]" if digit else f" {_gbnf_literal(literal)}"
    return grammar.strip()


def _gbnf_literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def _regex_literal(text: str) -> str:
    # Not re.escape, which escapes spaces, too: other engines than Python's take that for an error.
    return re.sub(r"[\\.^$*+?()\[\]{}|]", r"\\\g<0>", text)
