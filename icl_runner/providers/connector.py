"""A connector in front of the embedded frozen language model, as a provider for inspect-ai."""

import base64
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from inspect_ai.model import ChatMessage, ContentImage, ContentText, GenerateConfig
from inspect_ai.tool import ToolInfo
from jaxtyping import Float32
from PIL import Image

from icl_runner.providers.embedded import EmbeddedAPI
from icl_runner.providers.raw_prompt import the_message
from spae import connector, frozen_lm
from spae.connector_config import IMAGE
from spae.errors import InputError
from spae.frozen_lm import FrozenLM, SoftPrompt
from spae.images import open_image
from spae.splice import encode, splice

_KEPT = 1_024  # images whose soft tokens are kept: those of a context come with every call


class ConnectorAPI(EmbeddedAPI):
    """`spae-connector/<bundle>`: one user message is continued as it is, its images as soft tokens in their places.

    Args:
        language_model: what the connector was trained with, as `spae.frozen_lm.load` takes it.
        trunk: as `spae.connector.load` takes it; needed for a connector over CLIP.
        batch: as `EmbeddedAPI`.

    Raises:
        InputError: as `EmbeddedAPI`, or another language model or trunk than the connector was trained with.
        BundleError: no connector's bundle is there.
    """

    provider = "spae-connector"

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        *,
        language_model: str = "default",
        trunk: str | None = None,
        **arguments: Any,
    ):
        self._language_model, self._trunk = language_model, trunk
        super().__init__(model_name, base_url, api_key, config, **arguments)
        self._soft = lru_cache(_KEPT)(self._soft_tokens)

    def _load(self) -> FrozenLM:
        lm = frozen_lm.load(self._language_model)
        self._connector = connector.load(self.model_name, lm, self._trunk)
        return lm

    def _read(self, messages: list[ChatMessage], tools: list[ToolInfo]) -> tuple[str, list[int] | SoftPrompt]:
        """The text with `<image>` for each image, and what the model reads."""
        content = the_message(messages, tools, self.provider).content
        parts: Sequence[Any] = [ContentText(text=content)] if isinstance(content, str) else content
        if other := [part.type for part in parts if not isinstance(part, ContentText | ContentImage)]:
            raise InputError(f"{self.provider}: wanted text and images only; got {', '.join(other)}")
        texts = [part.text for part in parts if isinstance(part, ContentText)]
        if any(IMAGE in text for text in texts):
            raise InputError(
                f"{self.provider}: wanted images as parts of the message; got {IMAGE} in its text"
            )
        text = "".join(part.text if isinstance(part, ContentText) else IMAGE for part in parts)
        if not text:
            raise InputError(f"{self.provider}: wanted a text to continue; got an empty message")
        soft = [self._soft(part.image) for part in parts if isinstance(part, ContentImage)]
        if not soft:
            return text, self._model.encode(text)
        ids, labels = encode(self._model, [(text, "")])
        return text, splice(ids, labels, [len(one) for one in soft]).prompt(np.concatenate(soft))

    def _soft_tokens(self, url: str) -> Float32[np.ndarray, "m d"]:
        return self._connector.soft_tokens([_image(url)])[0]


def _image(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64")):
        raise InputError(f"spae-connector: wanted images as data:image/png;base64,.. ; got {url[:40]!r}")
    try:
        return open_image(base64.b64decode(data, validate=True))
    except ValueError as error:  # InputErrors of images among them
        raise InputError(f"spae-connector: an image cannot be read: {error}") from error
