"""Words that a language model wrote, as the pictures they are."""

import asyncio
import time
from typing import Any

import numpy as np
from jaxtyping import UInt8

from spae.errors import InputError
from spae.service.batching import Batcher, Overloaded, Unavailable
from spae.service.chat.messages import image_part
from spae.service.marks import Picture
from spae.service.telemetry import Telemetry
from spae.service.tokens import png_url, repair_json, to_png
from spae.tokenizer import Tokenizer

_PATIENCE_S, _PAUSE_S = 10.0, 0.1


class Pencil:
    """Draws the pictures of one answer.

    Args:
        most: how many pictures are drawn; others are reported as not drawn.
    """

    def __init__(self, tokenizer: Tokenizer, batcher: Batcher, telemetry: Telemetry, most: int):
        self._tokenizer = tokenizer
        self._batcher = batcher
        self._telemetry = telemetry
        self._most = most

    async def draw(self, picture: Picture) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The image part of a picture, None if there is none, and what is to say of it.

        The report has "index" (its place among the pictures of the answer), "words", "layers", "repairs" and
        "error" (why there is no image, or null). An answer is not lost for a picture that cannot be drawn.
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
            image = await self._decode(pyramid)
            png = await asyncio.to_thread(to_png, image)
        except (InputError, Overloaded, Unavailable) as error:
            return None, report | {"error": str(error)}
        self._telemetry.images.labels("out").inc()
        self._telemetry.words.labels("in").inc(pyramid.shape.tokens(pyramid.layers))
        for repair in parsed.repairs:
            self._telemetry.repairs.labels(repair.kind).inc()
        repairs = [repair_json(repair) for repair in parsed.repairs]
        return image_part(png_url(png)) | {"index": picture.number}, report | {
            "words": pyramid.text(),
            "layers": pyramid.layers,
            "repairs": repairs,
        }

    async def _decode(self, pyramid) -> UInt8[np.ndarray, "s s 3"]:
        """Waits for a place a while: the model's answer has cost more than that."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return (await self._batcher.decode([pyramid], pyramid.layers))[0]
            except Overloaded:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(_PAUSE_S)
