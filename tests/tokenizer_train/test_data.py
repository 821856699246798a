"""The stream of batches: every image once an epoch, flips, exact resumption, bad input."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from spae.errors import InputError
from spae.pyramid import PyramidShape
from spae.sources import Source, open_source
from tokenizer_train.config import DataConfig
from tokenizer_train.damage import Damage
from tokenizer_train.data import Batches, fixed_images, mirrored_places

COUNT = 10
CONFIG = DataConfig(train="t", validation="v", batch_size=4, flip=False, threads=2, buffer=8)


@pytest.fixture
def source(tmp_path) -> Source:
    """Ten images, the i-th grey i, brighter by 100 on its right half."""
    for i in range(COUNT):
        image = np.full((8, 8, 3), i, np.uint8)
        image[:, 4:] += 100
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    return open_source(tmp_path)


def batches(source: Source, seed: int = 0, **changes) -> Batches:
    features = np.arange(COUNT, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    config = dataclasses.replace(CONFIG, **changes)
    return Batches([(source, 1.0)], [features], 8, config, seed, np.arange(config.batch_size))


def test_every_image_once_an_epoch_with_its_feature(source: Source) -> None:
    stream = batches(source)
    seen = []
    for _ in range(5):
        batch = next(stream)
        assert batch["images"].shape == (4, 8, 8, 3)
        assert batch["images"].dtype == np.uint8
        assert batch["features"].dtype == np.float32
        np.testing.assert_array_equal(batch["features"][:, 0], batch["images"][:, 0, 0, 0])
        seen += list(batch["images"][:, 0, 0, 0])
    assert sorted(seen[:10]) == list(range(10))
    assert sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    other = [x for _ in range(2) for x in next(batches(source, seed=1))["images"][:, 0, 0, 0]]
    assert other != seen[:8]


def test_flips_about_half(source: Source) -> None:
    stream = batches(source, flip=True)
    images = np.concatenate([next(stream)["images"] for _ in range(25)])
    left_bright = images[:, 0, 0, 0].astype(int) > images[:, 0, 7, 0]
    assert 0.3 < left_bright.mean() < 0.7
    assert (np.minimum(images[:, 0, 0], images[:, 0, 7]) < COUNT).all()


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_words_of_a_mirrored_image_stand_where_the_mirror_shows_them(layers: int) -> None:
    shape = PyramidShape((1, 2, 4, 8))
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)

    def words(image: np.ndarray) -> np.ndarray:
        """Of every place the sum over its square, which a mirror does not change."""
        cells = [(r, c, 8 // side) for side in (1, 2, 4)[:layers] for r in range(side) for c in range(side)]
        return np.array([image[r * n : (r + 1) * n, c * n : (c + 1) * n].sum() for r, c, n in cells])

    places = mirrored_places(shape, layers)
    np.testing.assert_array_equal(words(image)[places], words(image[:, ::-1]))
    np.testing.assert_array_equal(places[places], np.arange(len(places)))


def test_a_flipped_image_carries_the_mirrored_words(source: Source) -> None:
    mirrored = mirrored_places(PyramidShape((1, 2, 4)), 2)
    features = np.arange(5 * COUNT, dtype=np.float32).reshape(COUNT, 5)
    config = dataclasses.replace(CONFIG, flip=True)
    stream = Batches([(source, 1.0)], [features], 8, config, 0, np.arange(4), mirrored)
    flipped = 0
    for batch in (next(stream) for _ in range(8)):
        for image, words in zip(batch["images"], batch["features"], strict=True):
            turned = int(image[0, 0, 0]) > image[0, 7, 0]  # in the sources the right side is the brighter one
            number = int(min(image[0, 0, 0], image[0, 7, 0]))
            np.testing.assert_array_equal(words, features[number][[0, 2, 1, 4, 3] if turned else slice(None)])
            flipped += turned
    assert 0 < flipped < 32


def test_resumes_exactly(source: Source) -> None:
    stream = batches(source, flip=True)
    for _ in range(3):
        next(stream)
    state = stream.get_state()
    expected = [next(stream)["images"] for _ in range(4)]
    resumed = batches(source, flip=True)
    resumed.set_state(state)
    np.testing.assert_array_equal([next(resumed)["images"] for _ in range(4)], expected)


def test_global_batches_do_not_depend_on_the_processes(source: Source) -> None:
    whole = batches(source, flip=True)
    features = np.arange(COUNT, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    config = dataclasses.replace(CONFIG, flip=True)
    # Rows need not be neighbours: the mesh says which device holds what.
    shares = [
        Batches([(source, 1.0)], [features], 8, config, 0, np.array(rows)) for rows in ([0, 3], [1], [2])
    ]
    for number in range(6):
        batch = next(whole)
        together = np.concatenate([next(share)["images"] for share in shares])[[0, 2, 3, 1]]
        np.testing.assert_array_equal(together, batch["images"])
        if number == 2:
            # A position of one process is one of any other.
            assert {str(share.get_state()) for share in shares} == {str(whole.get_state())}
            shares[1].set_state(whole.get_state())


def test_a_mixture_keeps_its_weights_and_goes_through_each_source(source: Source, tmp_path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    for i in range(4):
        Image.fromarray(np.full((8, 8, 3), 50 + i, np.uint8)).save(more / f"{i}.png")
    sources = [(source, 1.0), (open_source(more), 0.5)]
    features = [np.zeros((COUNT, 2), np.float32), np.ones((4, 2), np.float32)]

    def mixture() -> Batches:
        return Batches(sources, features, 8, CONFIG, 0, np.arange(4))

    stream = mixture()
    seen = [next(stream) for _ in range(15)]
    values = np.concatenate([batch["images"][:, 0, 0, 0] for batch in seen])
    second = values >= 50
    np.testing.assert_array_equal(np.concatenate([batch["features"][:, 0] for batch in seen]), second)
    assert second.sum() == 20
    # Evenly, not only in the end: any dozen holds its four, give or take one.
    assert {int(second[i : i + 12].sum()) for i in range(48)} <= {3, 4, 5}
    for part, count in ((values[~second], COUNT), (values[second], 4)):
        for epoch in range(len(part) // count):
            assert len(set(part[epoch * count : (epoch + 1) * count])) == count
    resumed = mixture()
    resumed.set_state({"batches": 7})
    for batch in seen[7:]:
        np.testing.assert_array_equal(next(resumed)["images"], batch["images"])


def test_a_damaged_image_is_named(source: Source, tmp_path) -> None:
    (tmp_path / "05.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    stream = batches(source, batch_size=COUNT)
    with pytest.raises(InputError, match=r"05\.png"):
        next(stream)


def test_bad_input(source: Source) -> None:
    with pytest.raises(InputError, match=r"one row per image, \(10, d\)"):
        Batches([(source, 1.0)], [np.zeros((9, 3), np.float32)], 8, CONFIG, 0, np.arange(4))


def test_fixed_images_are_spread(source: Source) -> None:
    assert fixed_images(source, 4, 8, Damage("error"))[:, 0, 0, 0].tolist() == [0, 3, 6, 9]
    assert len(fixed_images(source, 99, 8, Damage("error"))) == COUNT
