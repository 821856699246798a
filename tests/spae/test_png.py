"""A whole picture opens whatever its metadata is: large, packed, a bomb, broken; only its orientation is read."""

import io
import struct
import tracemalloc
import zlib

import icc
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from spae.errors import InputError
from spae.images import open_image
from spae.png import without_metadata

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
LONG = b"".join(b"%d: a prompt of a generator\n" % number for number in range(50_000))  # 1.4 MB


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(*chunks: bytes, last: bool = False) -> bytes:
    """The picture with chunks behind its header, or before its end."""
    whole = encoded(Image.fromarray(PIXELS))
    place = len(whole) - 12 if last else 33
    return whole[:place] + b"".join(chunks) + whole[place:]


def raw_exif(orientation: int) -> bytes:
    """As ImageMagick writes EXIF into a text."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = exif.tobytes()
    return b"\nexif\n%8d\n%s\n" % (len(data), data.hex().encode())


BOMB = zlib.compress(b"\0" * (1 << 28), 9)  # 256 MB in 260 kB
UNREAD = {
    "zTXt of 1.4 MB": chunk(b"zTXt", b"parameters\0\0" + zlib.compress(LONG)),
    "iTXt of 1.4 MB": chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(LONG)),
    "tEXt of 1.4 MB": chunk(b"tEXt", b"prompt\0" + LONG),
    "plain iTXt": chunk(b"iTXt", b"prompt\0\0\0\0\0" + LONG),
    "a bomb": chunk(b"zTXt", b"Comment\0\0" + BOMB),
    "a bomb of EXIF": chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB),
    "a bomb of XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
    "a bomb of a profile": chunk(b"iCCP", b"icc\0\0" + BOMB),
    "a profile packed otherwise": chunk(b"iCCP", b"icc\0\7" + zlib.compress(icc.rgb_profile("ProPhoto"))),
    "no zlib": chunk(b"zTXt", b"Comment\0\0nothing packed"),
    "an unknown method": chunk(b"zTXt", b"Comment\0\7" + zlib.compress(b"x")),
    "an empty text": chunk(b"zTXt", b""),
    "a checksum that is wrong": chunk(b"tEXt", b"Comment\0x")[:-4] + b"\0\0\0\0",
    "a profile whose checksum is wrong": chunk(b"iCCP", b"icc\0\0x")[:-4] + b"\0\0\0\0",
    "broken EXIF": chunk(b"eXIf", b"no TIFF file at all"),
    "broken EXIF in a text": chunk(b"tEXt", b"Raw profile type exif\0\n\n\nno hexadecimal"),
    "a short gamma": chunk(b"gAMA", b""),
    "short resolutions": chunk(b"pHYs", b"\0"),
    "short primaries": chunk(b"cHRM", b"\0"),
    "an empty intent": chunk(b"sRGB", b""),
    "no animation": chunk(b"acTL", b"\0"),
    "what nobody knows": chunk(b"abCd", b"x" * 100),
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("what", UNREAD)
def test_a_whole_picture_opens(what, last):
    np.testing.assert_array_equal(np.asarray(open_image(with_chunks(UNREAD[what], last=last))), PIXELS)


def test_no_bomb_is_unpacked():
    data = with_chunks(*(UNREAD[what] for what in UNREAD if "bomb" in what))
    tracemalloc.start()
    without_metadata(data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 << 20


@pytest.mark.parametrize(
    "described",
    [
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_exif(6))),
        chunk(b"tEXt", b"Raw profile type exif\0" + raw_exif(6)),
        chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        chunk(b"eXIf", bytes.fromhex("4d4d002a00000008000101120003000000010006000000000000")),
    ],
    ids=["zTXt", "tEXt", "XMP", "eXIf"],
)
def test_orientation_is_still_read(described):
    opened = np.asarray(open_image(with_chunks(UNREAD["zTXt of 1.4 MB"], described)))
    np.testing.assert_array_equal(opened, np.rot90(PIXELS, -1))


def test_transparency_palette_and_a_large_profile_stay():
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([9, 9, 9, 50, 60, 70])
    palette.putpixel((1, 0), 1)
    pixels = np.asarray(open_image(encoded(palette, transparency=0)))
    assert pixels[0].tolist() == [[255] * 3, [50, 60, 70]]
    # 1.5 MB, more than Pillow unpacks.
    profile = icc.rgb_profile("ProPhoto") + np.random.default_rng(0).bytes(1_500_000)
    profile = len(profile).to_bytes(4, "big") + profile[4:]
    opened = np.asarray(open_image(with_chunks(chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile)))))
    np.testing.assert_allclose(opened, icc.srgb(PIXELS, "ProPhoto"), atol=2)


def test_the_first_picture_of_an_animation():
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    data = encoded(frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(np.asarray(open_image(data)), PIXELS)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0no TIFF file at all",
        b"Exif\0\0MM\0*\0\0\0\x08",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
    ],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_of_other_files(form, exif):
    image = Image.fromarray(PIXELS)
    plain = np.asarray(open_image(encoded(image, form, quality=90)))
    np.testing.assert_array_equal(np.asarray(open_image(encoded(image, form, quality=90, exif=exif))), plain)


def test_orientation_beside_a_text_in_place_of_a_number():
    """Pillow can read such EXIF data, and fails to write it anew."""
    entries = struct.pack(">HHI4s", 0x0100, 2, 4, b"abc") + struct.pack(">HHIHH", 0x0112, 3, 1, 8, 0)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + entries + bytes(4)
    data = encoded(Image.fromarray(PIXELS), "WEBP", lossless=True, exif=exif)
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(np.asarray(open_image(data)), np.rot90(PIXELS))


def test_damaged_pixels_are_still_damage():
    data = bytearray(encoded(Image.fromarray(PIXELS)))
    place = data.index(b"IDAT") + 10
    data[place] ^= 0xFF
    with pytest.raises(InputError, match="damaged"):
        open_image(bytes(data))
    with pytest.raises(InputError, match="damaged"):
        open_image(with_chunks()[:-30])


def test_other_files_pass_untouched():
    for form in ("JPEG", "WEBP"):
        data = encoded(Image.fromarray(PIXELS), form)
        assert without_metadata(data) == (data, None)
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 100)
    plain = encoded(Image.fromarray(PIXELS))
    assert without_metadata(encoded(Image.fromarray(PIXELS), pnginfo=info)) == (plain, None)
