"""Words that a language model wrote, as the pictures they are."""

import asyncio
import time
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import UInt8

from spae.errors import InputError
from spae.images import data_url, to_png
from spae.pyramid import Pyramid
from spae.service.batching import Batcher, Overloaded, Unavailable
from spae.service.chat.messages import image_part
from spae.service.marks import Picture
from spae.service.telemetry import Telemetry
from spae.tokenizer import Tokenizer

_PATIENCE_S, _PAUSE_S = 10.0, 0.1


class PictureDecoder:
    """Makes the pictures of one answer from their words.

    Args:
        most: how many pictures are made; of others it is reported that they are not.
    """

    def __init__(self, tokenizer: Tokenizer, batcher: Batcher, telemetry: Telemetry, most: int):
        self._tokenizer = tokenizer
        self._batcher = batcher
        self._telemetry = telemetry
        self._most = most

    async def decode(self, picture: Picture) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The image part of a picture, None if there is none, and what is to say of it.

        The report has "index" (its place among the pictures of the answer), "words", "layers", "repairs" and
        "error" (why there is no image, or null). An answer is not lost for a picture that cannot be made.
        """
        report: dict[str, Any] = {
            "index": picture.number,
            "words": picture.words,
            "layers": None,
            "repairs": [],
            "error": None,
        }
        try:
            if picture.number >= self._most:
                raise InputError(f"at most {self._most} pictures of an answer are drawn")
            # Misspelt words are compared with all there are.
            parsed = await asyncio.to_thread(self._tokenizer.parse, picture.words)
            pyramid = parsed.pyramid
            image = await self._in_turn(pyramid)
            png = await asyncio.to_thread(to_png, image)
        except (InputError, Overloaded, Unavailable) as error:
            return None, report | {"error": str(error)}
        self._telemetry.decoded([parsed])
        repairs = [asdict(repair) for repair in parsed.repairs]
        return image_part(data_url(png, "png")) | {"index": picture.number}, report | {
            "words": pyramid.text(),
            "layers": pyramid.layers,
            "repairs": repairs,
        }

    async def _in_turn(self, pyramid: Pyramid) -> UInt8[np.ndarray, "s s 3"]:
        """Waits for a place a while: the model's answer has cost more than that."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return (await self._batcher.decode([pyramid], pyramid.layers))[0]
            except Overloaded:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(_PAUSE_S)
