"""The number formats of GGUF files that are whole numbers in blocks, into `Blocks`.

Their layout: github.com/ggml-org/ggml/blob/master/src/ggml-common.h. A file's block has one or several of ours: the
K formats give each 32 or 16 of 256 numbers a scale of six or eight bits, which is multiplied with the block's own.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int8, UInt8

from spae.frozen_lm.blocks import Blocks

_Part = tuple[Int8[np.ndarray, "n size"], Float[np.ndarray, "n blocks"], Float[np.ndarray, "n blocks"] | None]
_AT_ONCE = 1 << 22  # weights, so that what is computed on the way stays small


def read_blocks(kind: str, data: UInt8[np.ndarray, "o bytes"]) -> Blocks:
    """A matrix whose rows have the format `kind`, one of `FORMATS`."""
    read, stored, size = FORMATS[kind]
    rows, width = len(data), data.shape[1] // stored * size
    step = max(1, _AT_ONCE // width)
    q = np.empty((rows, width), np.int8)
    scales, offsets = [], []
    for start in range(0, rows, step):
        part = np.ascontiguousarray(data[start : start + step])
        q_part, scale, offset = read(part.reshape(-1, stored))
        q[start : start + step] = q_part.reshape(len(part), width)
        scales.append(scale.reshape(len(part), -1))
        if offset is not None:
            offsets.append(offset.reshape(len(part), -1))
    return Blocks(q, np.concatenate(scales), np.concatenate(offsets) if offsets else None)


def _q4_0(block: UInt8[np.ndarray, "n 18"]) -> _Part:
    return _bits(block[:, 2:], 4, 16) - np.int8(8), _half(block[:, :2]), None


def _q4_1(block: UInt8[np.ndarray, "n 20"]) -> _Part:
    return _bits(block[:, 4:], 4, 16), _half(block[:, :2]), -_half(block[:, 2:4])


def _q5_0(block: UInt8[np.ndarray, "n 22"]) -> _Part:
    return _with_fifth(block[:, 6:], block[:, 2:6]) - np.int8(16), _half(block[:, :2]), None


def _q5_1(block: UInt8[np.ndarray, "n 24"]) -> _Part:
    return _with_fifth(block[:, 8:], block[:, 4:8]), _half(block[:, :2]), -_half(block[:, 2:4])


def _q8_0(block: UInt8[np.ndarray, "n 34"]) -> _Part:
    return block[:, 2:].view(np.int8), _half(block[:, :2]), None


def _q4_k(block: UInt8[np.ndarray, "n 144"]) -> _Part:
    return _bits(block[:, 16:], 4, 32), *_scales_of_k(block)


def _q5_k(block: UInt8[np.ndarray, "n 176"]) -> _Part:
    return _bits(block[:, 48:], 4, 32) | _bits(block[:, 16:48], 1, 32) << 4, *_scales_of_k(block)


def _q6_k(block: UInt8[np.ndarray, "n 210"]) -> _Part:
    q = (_bits(block[:, :128], 4, 64) | _bits(block[:, 128:192], 2, 32) << 4) - np.int8(32)
    return q, _half(block[:, 208:]) * block[:, 192:208].view(np.int8).astype(np.float32), None


# Name -> what reads it, bytes of a block, numbers in it.
FORMATS: dict[str, tuple[Callable[[UInt8[np.ndarray, "n stored"]], _Part], int, int]] = {
    "Q4_0": (_q4_0, 18, 32),
    "Q4_1": (_q4_1, 20, 32),
    "Q5_0": (_q5_0, 22, 32),
    "Q5_1": (_q5_1, 24, 32),
    "Q8_0": (_q8_0, 34, 32),
    "Q4_K": (_q4_k, 144, 256),
    "Q5_K": (_q5_k, 176, 256),
    "Q6_K": (_q6_k, 210, 256),
}


def _half(two: UInt8[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 1"]:
    return np.ascontiguousarray(two).view("<f2").astype(np.float32)


def _bits(packed: UInt8[np.ndarray, "n bytes"], bits: int, group: int) -> Int8[np.ndarray, "n numbers"]:
    """Numbers of so many bits: the lowest ones of `group` bytes, then the next ones of the same bytes, and so on."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    grouped = packed.reshape(len(packed), -1, 1, group)
    return (grouped >> shifts & np.uint8(2**bits - 1)).view(np.int8).reshape(len(packed), -1)


def _with_fifth(four: UInt8[np.ndarray, "n 16"], fifth: UInt8[np.ndarray, "n 4"]) -> Int8[np.ndarray, "n 32"]:
    high = np.unpackbits(fifth, axis=1, bitorder="little").view(np.int8)
    return _bits(four, 4, 16) | high << 4


def _scales_of_k(block: UInt8[np.ndarray, "n stored"]) -> tuple[np.ndarray, np.ndarray]:
    """Scales and offsets of eight times 32 numbers, six bits each, in twelve bytes.

    The first four have the low six bits of bytes of their own; the others four bits in the last bytes, and their
    upper two above those of the first.
    """
    scales, offsets, low = block[:, 4:8], block[:, 8:12], block[:, 12:16]
    later_scales = (low & 15) | (scales >> 2 & 48)
    later_offsets = (low >> 4) | (offsets >> 2 & 48)
    return (
        _half(block[:, :2]) * np.hstack([scales & 63, later_scales]).astype(np.float32),
        _half(block[:, 2:4]) * np.hstack([offsets & 63, later_offsets]).astype(np.float32),
    )
