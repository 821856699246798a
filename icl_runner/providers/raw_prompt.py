"""The one message that a text-completion provider takes."""

from collections.abc import Sequence

from inspect_ai.model import ChatMessage

from spae.errors import InputError


def the_message(messages: Sequence[ChatMessage], tools: Sequence[object], provider: str) -> ChatMessage:
    """The single user message.

    Raises:
        InputError: anything else.
    """
    if tools:
        raise InputError(f"{provider}: wanted no tools, a text completion calls none; got {len(tools)}")
    if len(messages) != 1 or messages[0].role != "user":
        roles = ", ".join(message.role for message in messages) or "none"
        raise InputError(
            f"{provider}: wanted one user message, the text to continue; got messages of: {roles}"
        )
    return messages[0]


def raw_prompt(messages: Sequence[ChatMessage], tools: Sequence[object], provider: str) -> str:
    """The text of the single user message, to be continued as it is.

    Raises:
        InputError: anything else.
    """
    message = the_message(messages, tools, provider)
    content = message.content
    if not isinstance(content, str) and any(part.type != "text" for part in content):
        raise InputError(f"{provider}: wanted text only; put images into the prompt as words")
    if not message.text:
        raise InputError(f"{provider}: wanted a text to continue; got an empty message")
    return message.text
