"""Tables of float32 in the smallest form that gives back every bit: Q8_0 blocks, float16, bfloat16, or as they are.

A language model's table is published in one of these forms, so a quarter or half of the size is enough to keep it.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from spae.errors import InputError

_BLOCK = 32  # values that share a scale in Q8_0


def packed(table: Float[np.ndarray, "v c"]) -> dict[str, np.ndarray]:
    """A float32 table (V, c) as tensors to keep, by name."""
    if table.shape[1] % _BLOCK == 0:
        blocks = table.reshape(len(table), -1, _BLOCK)
        with np.errstate(over="ignore"):
            scales = (np.abs(blocks).max(-1) / np.float32(127)).astype(np.float16)
        divisors = np.where(scales == 0, 1, scales).astype(np.float32)[..., None]
        values = np.clip(np.rint(blocks / divisors), -127, 127).astype(np.int8)
        quantized = {"embeddings.values": values, "embeddings.scales": scales}
        if np.isfinite(scales).all() and _same_bits(unpacked(quantized), table):
            return quantized
    upper_halves = (table.view(np.uint32) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        half = table.astype(np.float16)
    for form in ({"embeddings": half}, {"embeddings.bfloat16": upper_halves}):
        if _same_bits(unpacked(form), table):
            return form
    return {"embeddings": np.array(table)}


def unpacked(tensors: Mapping[str, np.ndarray]) -> Float[np.ndarray, "v c"]:
    """The float32 table that `packed` was given.

    Raises:
        InputError: values and scales do not fit each other.
        KeyError: there is no table.
    """
    if "embeddings.values" in tensors:
        values, scales = tensors["embeddings.values"], tensors["embeddings.scales"]
        if values.ndim != 3 or scales.shape != values.shape[:2]:
            raise InputError(f"embeddings of shape {values.shape} with scales of shape {scales.shape}")
        table = values.astype(np.float32) * scales.astype(np.float32)[..., None]
        return table.reshape(len(table), -1)
    if "embeddings.bfloat16" in tensors:
        return (tensors["embeddings.bfloat16"].astype(np.uint32) << 16).view(np.float32)
    return tensors["embeddings"].astype(np.float32)


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))
