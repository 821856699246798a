"""Conversations as a model's own chat template writes them: Jinja's language, with what Hugging Face gives templates
(https://huggingface.co/docs/transformers/chat_templating_writing), in jinja2's sandbox.

Control tokens come from the template alone. What people write is marked where it spells one out, and the mark keeps it
text: "<|im_end|>" in a message ends no turn.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from spae.errors import InputError
from spae.frozen_lm import FrozenLM
from spae.frozen_lm.constraint import encode_behind

# No character: nobody loses anything when it is taken out again.
_MARK = "\ufdd0"
_PROBE = "What comes first"


class ChatTemplate:
    """How a model writes conversations.

    Raises:
        InputError: the model has no template, or one that cannot be read.
    """

    def __init__(self, model: FrozenLM):
        if not model.chat_template:
            raise InputError(
                f"wanted a language model with a chat template; {model.name} has none: take an instruction-tuned one, "
                "or serve it with llama.cpp and name that with --upstream"
            )
        self._name = model.name
        self._tokenizer = model.tokenizer
        self._lead = list(model.encode(""))
        self._special_tokens = model.special_tokens
        self._control = model.tokenizer.control_tokens
        # The longest first, so that none is taken for another's beginning.
        names = "|".join(map(re.escape, sorted(self._control, key=len, reverse=True)))
        self._spelled_out = re.compile(f"(?=(?:{names}))." if names else r"(?!)", re.DOTALL)
        self._split = re.compile(f"({names})" if names else r"(?!)")
        try:
            self._template = _environment().from_string(model.chat_template)
        except TemplateError as error:
            raise InputError(
                f"the chat template of {model.name} cannot be read ({error}): serve it with llama.cpp and name that "
                "with --upstream"
            ) from error
        self._takes_system = self._shows_system()

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a conversation, up to where the answer begins. Where the template knows no system message, it
        stands in front of the first message of a user.

        Args:
            messages: of each "role" (system, user, assistant) and "content".

        Raises:
            InputError: the template refuses them, an order of roles that it does not know, say.
        """
        turns = [{"role": one["role"], "content": self._marked(one["content"])} for one in messages]
        if not self._takes_system:
            turns = _without_system(turns)
        text = self._rendered(turns)
        # Control tokens are at every other place.
        first, *others = self._split.split(text)
        ids = self._tokenizer.encode(first.replace(_MARK, ""))
        for token, piece in zip(others[::2], others[1::2], strict=True):
            ids += [self._control[token], *self._behind(piece.replace(_MARK, ""))]
        return ids if ids[: len(self._lead)] == self._lead else self._lead + ids

    def _behind(self, text: str) -> list[int]:
        """Token ids of a text behind a control token."""
        if self._tokenizer.begins_anew or not text:
            return self._tokenizer.encode(text)
        return encode_behind(text, self._tokenizer)

    def _marked(self, text: str) -> str:
        return self._spelled_out.sub(lambda found: found[0] + _MARK, text)

    def _rendered(self, turns: Sequence[Mapping[str, str]]) -> str:
        try:
            return self._template.render(messages=turns, add_generation_prompt=True, **self._special_tokens)
        except Exception as error:  # a template is a program: what it raises may be anything
            raise InputError(
                f"messages: the chat template of {self._name} does not take them ({error}): wanted turns of user and "
                "assistant, one after the other"
            ) from error

    def _shows_system(self) -> bool:
        turns = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "Hello"}]
        try:
            return _PROBE in self._rendered(turns)
        except InputError:
            return False


def _without_system(turns: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    said = [one["content"] for one in turns if one["role"] == "system"]
    others = [dict(one) for one in turns if one["role"] != "system"]
    first = next((one for one in others if one["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": "\n\n".join(said)}, *others]
    first["content"] = "\n\n".join([*said, first["content"]])
    return others


class _Generation(Extension):
    """`{% generation %}` .. `{% endgeneration %}` around what the assistant says: a mark for those who train."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _to_json(value: Any, indent: int | None = None, **more: Any) -> str:
    # Jinja's own filter escapes HTML.
    return json.dumps(value, ensure_ascii=False, indent=indent, **more)


def _raise(message: str) -> None:
    raise TemplateError(message)
