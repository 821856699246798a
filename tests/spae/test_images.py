"""Every kind of picture opens as the right RGB pixels, and every bad one fails in one clear line."""

import contextlib
import io
import struct
import threading
import warnings
import zlib

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spae.errors import InputError
from spae.images import MAX_PIXELS, open_image, to_array, to_float, to_square, to_uint8

RAMP = np.stack(np.broadcast_arrays(np.arange(0, 240, 5)[:, None], np.arange(0, 160, 5), 90), -1).astype(
    np.uint8
)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG whose header promises width x height grey pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_lossless_formats_return_their_pixels(form):
    opened = open_image(encoded(Image.fromarray(RAMP), form, lossless=True))
    assert opened.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(opened), RAMP)


def test_path_bytes_and_file_agree(tmp_path):
    path = tmp_path / "ramp.jpg"
    data = encoded(Image.fromarray(RAMP), "JPEG", quality=95)
    path.write_bytes(data)
    pictures = [np.asarray(open_image(source)) for source in (path, str(path), data, io.BytesIO(data))]
    for picture in pictures:
        np.testing.assert_array_equal(picture, pictures[0])
    assert np.abs(pictures[0].astype(int) - RAMP).max() < 16


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (6, lambda x: np.rot90(x, -1)),
        (8, lambda x: np.rot90(x, 1)),
    ],
)
def test_exif_orientation_is_applied(orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_image(encoded(Image.fromarray(RAMP), "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(opened), upright(RAMP))


def test_cmyk_becomes_rgb():
    opened = open_image(encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG"))
    red, green, blue = np.asarray(opened)[4, 4].astype(int)
    assert red < 10
    assert green > 245
    assert blue > 245


@pytest.mark.parametrize(
    ("mode", "expected"), [("La", [216] * 3), ("RGBa", [227, 127, 127]), ("PA", [227, 127, 127])]
)
def test_rare_modes_of_pillow_are_read_as_what_they_show(mode, expected):
    clear = Image.new("RGBA", (2, 2), (200, 0, 0, 128))
    image = {"La": Image.new("LA", (2, 2), (177, 128))}.get(mode, clear).convert(mode)
    np.testing.assert_allclose(to_array(image, 2)[0, 0], expected, atol=2)


def test_palette_grey_and_bilevel():
    palette = Image.new("P", (3, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert np.asarray(open_image(encoded(palette)))[0, 0].tolist() == [10, 20, 30]
    assert np.asarray(open_image(encoded(Image.new("L", (3, 2), 77))))[0, 0].tolist() == [77] * 3
    assert np.asarray(open_image(encoded(Image.new("1", (3, 2), 1))))[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_alpha_is_composed_on_white(form):
    picture = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    picture.putpixel((1, 0), (200, 0, 0, 128))
    pixels = np.asarray(open_image(encoded(picture, form, lossless=True, exact=True)))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_allclose(pixels[0, 1], [227, 127, 127], atol=1)


def test_transparent_palette_is_composed_on_white():
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([9, 9, 9, 50, 60, 70])
    palette.putpixel((1, 0), 1)
    pixels = np.asarray(open_image(encoded(palette, transparency=0)))
    assert pixels[0].tolist() == [[255] * 3, [50, 60, 70]]


def test_sixteen_bits_are_scaled_not_clipped():
    wide = np.array([[0, 257, 32768, 65535]], np.uint16)
    assert np.asarray(open_image(encoded(Image.fromarray(wide))))[0, :, 0].tolist() == [0, 1, 128, 255]
    clear = encoded(Image.fromarray(wide), transparency=257)
    assert np.asarray(open_image(clear))[0, :, 0].tolist() == [0, 255, 128, 255]


def test_one_pixel_fills_the_square():
    assert (to_array(open_image(encoded(Image.new("RGB", (1, 1), (1, 2, 3)))), 64) == [1, 2, 3]).all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello, I am no image at all", "not a JPEG, PNG or WebP"),
        (encoded(Image.fromarray(RAMP), "GIF"), "not a JPEG, PNG or WebP"),
        (encoded(Image.fromarray(RAMP), "JPEG")[:-200], "damaged"),
        (encoded(Image.fromarray(RAMP), "PNG")[:-60], "damaged"),
        (encoded(Image.fromarray(RAMP), "PNG")[:20], "not a JPEG|damaged"),
        (encoded(Image.fromarray(RAMP), "WEBP")[:-40], "damaged|not a JPEG"),
        (png(20_000, 20_000), "too many pixels"),
        (png(10_000, 10_000), "too many pixels"),
        (png(8200, 8200), "8200 x 8200 pixels"),
    ],
)
def test_bad_bytes_are_one_clear_line(data, message):
    with pytest.raises(InputError, match=message) as caught:
        open_image(data)
    assert "\n" not in str(caught.value)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*missing.png: No such file"):
        open_image(tmp_path / "missing.png")
    with pytest.raises(InputError, match=r"cannot read .*Is a directory"):
        open_image(tmp_path)
    (tmp_path / "zero.png").touch()
    with pytest.raises(InputError, match=r"zero.png is empty"):
        open_image(tmp_path / "zero.png")
    with pytest.raises(InputError, match="binary mode"):
        open_image(io.StringIO("text"))
    with pytest.raises(InputError, match="got int"):
        open_image(3)


@given(st.binary(max_size=300), st.integers(0, 600))
def test_mangled_bytes_never_raise_anything_else(noise, cut):
    for whole in (encoded(Image.fromarray(RAMP), "PNG"), encoded(Image.fromarray(RAMP), "JPEG")):
        data = whole[: 8 + cut] + noise + whole[8 + cut + len(noise) :]
        with contextlib.suppress(InputError):
            assert open_image(data).mode == "RGB"


def test_threads_open_images_and_leave_the_warning_filters_alone():
    before = list(warnings.filters)
    data = encoded(Image.fromarray(RAMP), "PNG")
    errors = []

    def work():
        for _ in range(20):
            if not np.array_equal(np.asarray(open_image(data)), RAMP):
                errors.append("pixels differ")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert warnings.filters == before


def test_draft_decoding_gives_nearly_the_same_small_picture():
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    data = encoded(coarse.resize((1600, 1200), Image.Resampling.BICUBIC), "JPEG", quality=95)
    draft = open_image(data, size=64)
    assert draft.size == (200, 150)
    whole = to_array(open_image(data), 64).astype(int)
    assert np.abs(to_array(draft, 64) - whole).mean() < 1.5


def test_to_array_takes_the_central_square():
    wide = np.zeros((4, 10, 3), np.uint8)
    wide[:, 3:7] = RAMP[:4, :4]
    np.testing.assert_array_equal(to_array(wide, 4), RAMP[:4, :4])
    np.testing.assert_array_equal(
        to_array(wide.transpose(1, 0, 2).copy(), 4), RAMP[:4, :4].transpose(1, 0, 2)
    )
    np.testing.assert_array_equal(to_array(RAMP[:8, :8, 0], 8)[..., 2], RAMP[:8, :8, 0])


@pytest.mark.parametrize(
    ("width", "height", "side"),
    [(1, 9, 4), (3, 4, 4), (4, 4, 4), (4, 30, 4), (5, 6, 8), (8, 8, 8), (30, 9, 8)],
)
def test_the_square_that_is_looked_at_has_one_of_two_sides(width, height, side):
    """The smaller one, of 4 pixels, where the image has no more; else the larger one, of 8."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for one in (image, Image.fromarray(image)):
        np.testing.assert_array_equal(to_square(one, 4, 8), to_array(image, side))
    # A network that sees less than is encoded gets what is encoded.
    np.testing.assert_array_equal(to_square(image, 4, 2), to_array(image, 4))
    for wrong in (image.astype(np.float32), "image", np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError):
            to_square(wrong, 4, 8)


def test_to_array_averages_when_it_shrinks():
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = to_array(checks, 8)
    np.testing.assert_allclose(small[1:-1, 1:-1], 127.5, atol=2)


def test_extreme_strip_is_cheap():
    assert to_array(Image.new("RGB", (1, MAX_PIXELS // 64)), 64).shape == (64, 64, 3)


def test_to_array_leaves_the_image_alone():
    image = Image.open(io.BytesIO(encoded(Image.fromarray(RAMP), "JPEG")))
    to_array(image, 8)
    assert image.size == (32, 48)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        [[1]],
        Image.new("F", (2, 2)),
    ],
)
def test_to_array_refuses(image):
    with pytest.raises(InputError, match=r"wanted|floats"):
        to_array(image, 8)


def test_a_file_is_to_be_opened():
    with pytest.raises(InputError, match=r"got str: of a file give Image\.open\(file\)"):
        to_array("photo.jpg", 8)


def test_uint8_float_round_trip_and_rounding():
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    np.testing.assert_array_equal(to_uint8(to_float(every)), every)
    assert to_float(every).dtype == np.float32
    values = np.array([-1.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 7.0], np.float32)
    assert to_uint8(values).tolist() == [0, 0, 1, 255, 255]
    assert to_uint8(values.astype(ml_dtypes.bfloat16))[-1] == 255
    with pytest.raises(InputError, match="uint8"):
        to_float(values)
    with pytest.raises(InputError, match="floating"):
        to_uint8(every)
    with pytest.raises(InputError, match="NaN"):
        to_uint8(np.full((1, 1, 3), np.nan))


def test_to_float_inside_jit():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    np.testing.assert_allclose(jax.jit(to_float)(images), to_float(images), rtol=1e-6)
