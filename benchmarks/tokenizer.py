"""Encoding and decoding through the public door: uint8 images to pyramids of words, and back."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer import Peer
from benchmarks.timing import Result, interleaved, rates, result, timed
from spae.demo import PHOTOGRAPHS
from spae.images import open_image, to_array
from spae.tokenizer import Tokenizer


def photographs(tokenizer: Tokenizer) -> list[np.ndarray]:
    """The shipped ones, as the tokenizer looks at them."""
    return [tokenizer.square(open_image(path)) for path in sorted(PHOTOGRAPHS.glob("*.jpg"))]


def torch_peer(python: str, tokenizer: Tokenizer, bundle: Path, folder: Path) -> Peer:
    """The same tokenizer in PyTorch, which gets photographs and our words of them through the folder."""
    looked_at = np.stack(photographs(tokenizer))
    arrays = {
        "looked_at": looked_at,
        "images": np.stack([to_array(image, tokenizer.image_size) for image in looked_at]),
        "ids": np.stack([pyramid.flat_ids for pyramid in tokenizer.encode(looked_at)]),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return Peer(python, "torch_peer.py", [bundle, folder])


def encode_and_decode(
    tokenizer: Tokenizer, batches: Sequence[int], repeats: int, peer: Peer | None = None
) -> dict[str, Result]:
    """Images/s of both for every batch size: real photographs, all layers, from and to NumPy arrays. The peer gets them
    made small already."""
    squares = photographs(tokenizer)
    facts: dict[str, Any] = {
        "dtype": "float32",
        "resolution": tokenizer.image_size,
        "looked_at": tokenizer.sight,
        "words_per_image": tokenizer.shape.tokens(),
        "vocabulary": len(tokenizer.vocabulary),
        "architecture": dataclasses.asdict(tokenizer.config),
    }
    results: dict[str, Result] = {}
    for batch in batches:
        images_bhwc = np.stack([squares[i % len(squares)] for i in range(batch)])
        encode = partial(tokenizer.encode, images_bhwc)
        # The first call of each compiles; encode's also gives the words to decode.
        first = {"encode": timed(encode)}
        calls: dict[str, Callable[[], Any]] = {
            "encode": encode,
            "decode": partial(tokenizer.decode, encode()),
        }
        first["decode"] = timed(calls["decode"])
        if peer is not None:
            for name in ("encode", "decode"):
                for compiled in (False, True):
                    calls[f"{name}, PyTorch{' compiled' if compiled else ''}"] = partial(
                        peer.ask, call=name, batch=batch, compiled=compiled
                    )
        seconds = interleaved(calls, repeats)
        for name in calls:
            own = facts if name in first else {} if peer is None else peer.facts
            entry = result(seconds[name], first=first.get(name), batch=batch, **own)
            action, _, program = name.partition(", ")
            label = ", ".join(filter(None, (action, f"batch {batch}", program)))
            results[label] = rates(entry, batch, "images_per_s")
    return results
