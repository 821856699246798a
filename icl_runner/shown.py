"""Images that prompts show as they are, to models that see: in a prompt's text a mark stands where words would."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from spae.errors import InputError

# inspect-ai takes three seconds to import.
if TYPE_CHECKING:
    from inspect_ai.model import Content

_MARK = re.compile(r"<image:([^>]*)>")


def mark(image_key: str) -> str:
    """What stands for an image in a text."""
    return f"<image:{quote(image_key)}>"


def content(text: str, picture: Callable[[str], str] | None) -> "str | list[Content]":
    """A text as a message has it: with every mark an image.

    Args:
        picture: image key -> data URL; None where no images are shown, and marks are text.
    """
    if picture is None or _MARK.search(text) is None:
        return text
    from inspect_ai.model import ContentImage, ContentText

    pieces: list[Content] = []
    for place, piece in enumerate(_MARK.split(text)):
        if place % 2:
            pieces.append(ContentImage(image=picture(unquote(piece))))
        elif piece:
            pieces.append(ContentText(text=piece))
    return pieces


def check_sees(draws: bool, layers: Sequence[int]) -> None:
    """That a task can be put to a model that is shown images.

    Raises:
        InputError: its answers are pictures in words, or it is asked for words of several numbers of layers.
    """
    if draws:
        raise InputError(
            "this task's pictures are words: ask a model that reads them, such as spae-lm/default"
        )
    if len(layers) > 1:
        raise InputError(f"--layers: this model is shown images, not words; got {layers}, leave it out")
