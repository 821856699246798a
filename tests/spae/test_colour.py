"""Colours under a profile come out as sRGB, against the published formulas; what is no profile is passed over."""

import io
import logging

import icc
import numpy as np
import pytest
from PIL import Image

from spae.images import open_image, to_array

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (12, 16, 3), dtype=np.uint8)
# Many colours of the wide spaces lie outside of sRGB: what is clipped there depends on the order of roundings.
MUTED = (96 + PIXELS // 4).astype(np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["Display P3", "Adobe RGB", "ProPhoto"])
@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_wide_spaces_become_srgb(name, form):
    data = encoded(Image.fromarray(MUTED), form, icc_profile=icc.rgb_profile(name), lossless=True)
    opened = np.asarray(open_image(data))
    np.testing.assert_allclose(opened, icc.srgb(MUTED, name), atol=1)
    assert np.abs(opened.astype(int) - MUTED).max() > 5


def test_a_photograph_looks_the_same_in_every_space():
    """The same light, written down in three spaces: JPEG, decoded at a part of its size."""
    smooth = Image.fromarray(MUTED).resize((640, 480), Image.Resampling.BICUBIC)
    plain = to_array(open_image(encoded(smooth, "JPEG", quality=98), size=32), 32).astype(int)
    for name in ("Display P3", "Adobe RGB", "ProPhoto"):
        light = icc.linear(np.asarray(smooth) / 255, None)
        light = light @ (np.linalg.inv(icc.matrix(name)) @ icc.matrix("sRGB")).T
        gamma = icc.SPACES[name][2]
        curve = icc.linear(np.linspace(0, 1, 4096), gamma)
        written = np.rint(255 * np.interp(light, curve, np.linspace(0, 1, 4096))).astype(np.uint8)
        profile = icc.rgb_profile(name)
        data = encoded(Image.fromarray(written), "JPEG", quality=98, icc_profile=profile)
        assert np.abs(to_array(open_image(data, size=32), 32) - plain).max() <= 4
        unprofiled = to_array(open_image(encoded(Image.fromarray(written), "JPEG", quality=98), size=32), 32)
        assert np.abs(unprofiled.astype(int) - plain).max() > 8


def test_srgb_under_its_own_profile_stays_to_the_bit():
    data = encoded(Image.fromarray(PIXELS), icc_profile=icc.rgb_profile("sRGB"))
    np.testing.assert_array_equal(np.asarray(open_image(data)), PIXELS)


def test_an_image_of_the_callers_is_converted_once_and_left_alone():
    image = Image.open(io.BytesIO(encoded(Image.fromarray(MUTED), icc_profile=icc.rgb_profile("ProPhoto"))))
    wanted = to_array(open_image(encoded(image, icc_profile=image.info["icc_profile"])), 12)
    np.testing.assert_array_equal(to_array(image, 12), wanted)
    assert "icc_profile" in image.info
    np.testing.assert_allclose(wanted, icc.srgb(MUTED[:, 2:14], "ProPhoto"), atol=1)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "PA"])
def test_other_kinds_of_pixels_under_a_profile_of_rgb(mode):
    image = Image.fromarray(MUTED[..., 0] if mode in ("L", "LA", "1") else MUTED).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(PIXELS[..., 0]))
    form = "PNG" if mode != "PA" else "WEBP"
    image = image.convert("RGBA") if mode == "PA" else image
    opened = np.asarray(
        open_image(encoded(image, form, icc_profile=icc.rgb_profile("Adobe RGB"), lossless=True))
    )
    rgba = np.asarray(image.convert("RGBA")).astype(float)
    alpha = rgba[..., 3:] / 255
    wanted = icc.srgb(rgba[..., :3], "Adobe RGB") * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(opened, wanted, atol=1.6)


@pytest.mark.parametrize("depth", [8, 16])
def test_grey(depth):
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    image = Image.fromarray(ramp.astype(np.uint8) if depth == 8 else ramp * 257)
    opened = np.asarray(open_image(encoded(image, icc_profile=icc.grey_profile(1.0))))
    light = ramp / 255
    wanted = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(opened[..., 0], wanted, atol=1)
    np.testing.assert_array_equal(opened[..., 0], opened[..., 2])


INKS = {"paper": (0, 0, 0, 0), "cyan": (255, 0, 0, 0), "two": (255, 0, 255, 0), "black": (0, 0, 0, 255)}


def without_adobe(data: bytes) -> bytes:
    """A JPEG without its APP14 segment."""
    start = data.index(b"\xff\xee")
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    assert data[start + 4 : start + 9] == b"Adobe"
    return data[:start] + data[start + 2 + length :]


@pytest.mark.parametrize("marked", [True, False])
def test_inks_with_and_without_adobes_marker(marked):
    """Every writer of such files stores them inverted, and every browser reads them so, whether they say it or not."""
    for name, inks in INKS.items():
        data = encoded(Image.new("CMYK", (8, 8), inks), "JPEG", quality=100)
        opened = np.asarray(open_image(data if marked else without_adobe(data)))[4, 4]
        cyan, magenta, yellow, black = inks
        wanted = [(255 - ink) * (255 - black) // 255 for ink in (cyan, magenta, yellow)]
        np.testing.assert_allclose(opened, wanted, atol=2, err_msg=name)


@pytest.mark.parametrize("marked", [True, False])
def test_inks_under_the_profile_of_a_press(marked):
    for name, lightness in {"paper": 255, "cyan": 191, "two": 127, "black": 0}.items():
        image = Image.new("CMYK", (8, 8), INKS[name])
        data = encoded(image, "JPEG", quality=100, icc_profile=icc.cmyk_profile())
        opened = np.asarray(open_image(data if marked else without_adobe(data)))[4, 4]
        star = lightness / 2.55
        light = ((star + 16) / 116) ** 3 if star > 8 else star / 903.3
        wanted = 255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055)
        np.testing.assert_allclose(opened, [wanted] * 3, atol=2, err_msg=name)


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (b"no profile at all", "is damaged"),
        (icc.rgb_profile("Display P3")[:200], "is damaged"),
        (icc.rgb_profile("Display P3").replace(b"rXYZ", b"xXYZ"), "is damaged"),
        (icc.rgb_profile("Display P3").replace(b"RGB ", b"3CLR"), "is of no colours of photographs"),
        (icc.grey_profile(1.0), "is of grey, and the pixels are RGB"),
        (icc.cmyk_profile(), "is of CMYK, and the pixels are RGB"),
    ],
)
def test_a_profile_that_cannot_be_used_is_said_and_passed_over(profile, reason, tmp_path, caplog):
    for form in ("PNG", "WEBP"):
        path = tmp_path / f"{len(profile)}.{form.lower()}"
        path.write_bytes(encoded(Image.fromarray(PIXELS), form, icc_profile=profile, lossless=True))
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                np.testing.assert_array_equal(np.asarray(open_image(path)), PIXELS)
        assert [record.name for record in caplog.records] == ["spae.images"]  # once
        assert f"{path}: its colour profile {reason}" in caplog.text
        caplog.clear()


def test_a_jpeg_that_lacks_a_part_of_its_profile(tmp_path, caplog):
    profile = icc.rgb_profile("Display P3")
    data = encoded(Image.fromarray(PIXELS), "JPEG", icc_profile=profile)
    plain = np.asarray(open_image(encoded(Image.fromarray(PIXELS), "JPEG")))
    start = data.index(b"ICC_PROFILE\0") + 12
    assert data[start : start + 2] == b"\x01\x01"
    (tmp_path / "part.jpg").write_bytes(data[:start] + b"\x01\x02" + data[start + 2 :])
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "part.jpg")), plain)
    assert "its colour profile is damaged" in caplog.text
    np.testing.assert_raises(
        AssertionError, np.testing.assert_array_equal, np.asarray(open_image(data)), plain
    )
