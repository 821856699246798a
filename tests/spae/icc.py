"""ICC profiles (ICC.1:2001-04) made from published primaries, and the same conversions in slow float64."""

import struct

import numpy as np

# CIE xy of red, green, blue and of the white; the exponent of the transfer curve (None: sRGB's).
D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
SPACES = {
    "sRGB": (((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), D65, None),
    "Display P3": (((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), D65, None),
    "Adobe RGB": (((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), D65, 563 / 256),
    "ProPhoto": (((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), D50, 1.8),
}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def _xyz(xy: tuple[float, float]) -> np.ndarray:
    x, y = xy
    return np.array([x / y, 1, (1 - x - y) / y])


def matrix(name: str) -> np.ndarray:
    """Linear RGB of a space -> XYZ under D50."""
    primaries, white, _ = SPACES[name]
    columns = np.stack([_xyz(xy) for xy in primaries], 1)
    columns = columns * np.linalg.solve(columns, _xyz(white))
    gains = (_BRADFORD @ _xyz(D50)) / (_BRADFORD @ _xyz(white))
    return np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ columns


def linear(encoded: np.ndarray, gamma: float | None) -> np.ndarray:
    if gamma is not None:
        return encoded**gamma
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def srgb(pixels: np.ndarray, name: str) -> np.ndarray:
    """uint8 (.., 3) of a space -> float (.., 3) in 0..255 of sRGB, what lies outside of it clipped."""
    light = linear(pixels / 255, SPACES[name][2]) @ (np.linalg.inv(matrix("sRGB")) @ matrix(name)).T
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data
    header = struct.pack(
        ">I4xI4s4s4s12x4s24x", start + len(body), 0x02400000, kind, space, connection, b"acsp"
    )
    white = _fixed(_xyz(D50))
    return (header + struct.pack(">I", 0) + white).ljust(128, b"\0")[:128] + table + body


def _fixed(values: np.ndarray) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _place(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _curve(gamma: float | None) -> bytes:
    values = linear(np.linspace(0, 1, 1024), gamma)
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + np.rint(values * 65535).astype(">u2").tobytes()


def _described(name: str) -> dict[bytes, bytes]:
    text = name.encode() + b"\0"
    return {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": _place(_xyz(D50)),
    }


def rgb_profile(name: str) -> bytes:
    """Of one of SPACES."""
    columns = matrix(name).T
    tags = _described(name)
    for letter, column in zip("rgb", columns, strict=True):
        tags[f"{letter}XYZ".encode()] = _place(column)
        tags[f"{letter}TRC".encode()] = _curve(SPACES[name][2])
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", b"XYZ ", b"mntr", _described("grey") | {b"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """A press whose paper is white, whose inks are all the same grey, and which is black from the first drop of K on.

    A table of two steps for each ink (lut8Type): lightness falls by a quarter with every ink of C, M and Y.
    """
    inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(-1, 4)
    lightness = np.where(inks[:, 3] == 1, 0, 255 - 64 * inks[:, :3].sum(1))
    lab = np.stack([lightness, np.full(16, 128), np.full(16, 128)], 1).astype(np.uint8)
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + struct.pack(">BBBx", 4, 3, 2) + _fixed(np.eye(3).ravel())
    table += ramp * 4 + lab.tobytes() + ramp * 3
    return _profile(b"CMYK", b"Lab ", b"prtr", _described("press") | {b"A2B0": table})
