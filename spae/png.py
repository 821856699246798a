"""PNG files without what nothing here reads: texts of editors and generators, which may be large, packed or broken.

Pillow takes a file for damaged if one of its texts unpacks to more than 1 MB, or is not as the PNG specification
(third edition, section 11.3) wants it; the pixels are as whole as ever.
"""

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TRANSPARENCY, _PROFILE, _EXIF = b"tRNS", b"iCCP", b"eXIf"
# Texts that may say how the camera was held: ImageMagick's EXIF, and XMP.
_ORIENTED = {
    b"tEXt": (b"Raw profile type exif",),
    b"zTXt": (b"Raw profile type exif",),
    b"iTXt": (b"Raw profile type exif", b"XML:com.adobe.xmp"),
}
MAX_TEXT = 1 << 20  # unpacked, as in Pillow
MAX_PROFILE = 1 << 22  # unpacked; the profiles of printers have 1 or 2 MB


def without_metadata(data: bytes) -> tuple[bytes, bytes | None]:
    """A PNG file without its metadata, and its colour profile.

    Of the chunks that a decoder may skip, those stay that say something of transparency or orientation. What is no
    chunk, and all behind it, is left for the decoder to judge; so are other files.

    Returns:
        The bytes of the file, and the unpacked ICC profile; empty for one that is damaged or larger than MAX_PROFILE,
        None without one.
    """
    if not data.startswith(_SIGNATURE):
        return data, None
    kept, profile = [_SIGNATURE], None
    place = len(_SIGNATURE)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data) or not kind.isalpha():
            break
        ancillary = kind[:1].islower() and kind != _TRANSPARENCY
        if ancillary and kind not in (_PROFILE, _EXIF) and kind not in _ORIENTED:
            place = end
            continue
        chunk = data[place:end]
        whole = not ancillary or zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind == _PROFILE:
            profile = _unpacked(chunk[8:-4], MAX_PROFILE) if whole else b""
        elif whole and (kind not in _ORIENTED or _is_read(kind, chunk[8:-4])):
            kept.append(chunk)
        place = end
    return b"".join([*kept, data[place:]]), profile


def _is_read(kind: bytes, body: bytes) -> bool:
    """Whether a text is one that may hold the orientation, and Pillow can read it."""
    keyword, _, text = body.partition(b"\0")
    if keyword not in _ORIENTED[kind] or len(body) > MAX_TEXT:
        return False
    # XMP in PNG is never packed (XMP, part 3, section 1.1.5).
    return text[:1] == b"\0" if kind == b"iTXt" else kind == b"tEXt" or bool(_unpacked(body, MAX_TEXT))


def _unpacked(body: bytes, limit: int) -> bytes:
    """What is packed behind a keyword, a zero and a method, which is 0; empty if it is damaged or more than `limit`."""
    _, _, packed = body.partition(b"\0")
    if packed[:1] != b"\0":
        return b""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed[1:], limit)
    except zlib.error:
        return b""
    return text if unpacker.eof else b""
