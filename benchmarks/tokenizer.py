"""Encoding and decoding through the public door: uint8 images to pyramids of words, and back."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.timing import Result, interleaved, rates, result, timed
from spae.demo import PHOTOGRAPHS
from spae.images import open_image
from spae.tokenizer import Tokenizer


def encode_and_decode(tokenizer: Tokenizer, batches: Sequence[int], repeats: int) -> dict[str, Result]:
    """Images/s of both for every batch size: real photographs, all layers, from and to NumPy arrays."""
    photographs = [tokenizer.square(open_image(path)) for path in sorted(PHOTOGRAPHS.glob("*.jpg"))]
    calls: dict[str, Callable[[], Any]] = {}
    sizes: dict[str, int] = {}
    first: dict[str, float] = {}
    for batch in batches:
        images_bhwc = np.stack([photographs[i % len(photographs)] for i in range(batch)])
        calls[f"encode, batch {batch}"] = encode = partial(tokenizer.encode, images_bhwc)
        # The first call of each compiles; encode's also gives the words to decode.
        first[f"encode, batch {batch}"] = timed(encode)
        calls[f"decode, batch {batch}"] = decode = partial(tokenizer.decode, encode())
        first[f"decode, batch {batch}"] = timed(decode)
        sizes |= {f"encode, batch {batch}": batch, f"decode, batch {batch}": batch}
    seconds = interleaved(calls, repeats)
    facts: dict[str, Any] = {
        "dtype": "float32",
        "resolution": tokenizer.image_size,
        "looked_at": tokenizer.sight,
        "words_per_image": tokenizer.shape.tokens(),
        "vocabulary": len(tokenizer.vocabulary),
        "architecture": dataclasses.asdict(tokenizer.config),
    }
    return {
        name: rates(
            result(seconds[name], first=first[name], batch=sizes[name], **facts), sizes[name], "images_per_s"
        )
        for name in calls
    }
