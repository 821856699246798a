"""Images in batches: each once, in the order of the files, few in memory; an unreadable one is named."""

import weakref

import numpy as np
import pytest

from spae.errors import InputError
from spae.sources import Source
from tokenizer_train.evaluation.batches import batches, by_side, read


class Numbers(Source):
    """Image i is i everywhere."""

    def __init__(self, count: int, bad: int | None = None) -> None:
        super().__init__([], None)
        self.count, self.bad = count, bad

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return str(index)

    def _read(self, index: int):
        if index == self.bad:
            return b"noise", None, None, self.key(index)
        return np.full((4, 4, 3), index, np.uint8), None, None, self.key(index)


def test_the_rest_is_filled_up() -> None:
    rows, halves = np.arange(5), np.arange(5) / 2
    found = [(count, a.tolist(), b.tolist()) for count, (a, b) in batches([rows, halves], 3, "rows")]
    assert found == [(3, [0, 1, 2], [0, 0.5, 1]), (2, [3, 4, 4], [1.5, 2, 2])]


@pytest.mark.parametrize("size", [4, 5, 20, 64])
def test_places_are_those_of_the_indices(size: int) -> None:
    indices = np.random.default_rng(0).permutation(40)[:20]
    seen, read_order = {}, []
    for places, images in read(Numbers(40), indices, np.asarray, size, "images"):
        assert [image.shape for image in images] == [(4, 4, 3)] * size
        assert all(image is images[len(places) - 1] for image in images[len(places) :])
        seen |= {int(place): int(image[0, 0, 0]) for place, image in zip(places, images, strict=False)}
        read_order += indices[places].tolist()
    assert [seen[place] for place in range(20)] == indices.tolist()
    assert read_order == sorted(indices)


def test_squares_of_one_size_go_together() -> None:
    squares = [np.full((side, side, 3), number, np.uint8) for number, side in enumerate((4, 8, 4, 4, 8))]
    found = [
        (places.tolist(), images.shape, images[:, 0, 0, 0].tolist()) for places, images in by_side(squares, 4)
    ]
    assert found == [([0, 2, 3], (4, 4, 4, 3), [0, 2, 3, 3]), ([1, 4], (4, 8, 8, 3), [1, 4, 4, 4])]


def test_few_images_are_in_memory() -> None:
    alive: list[weakref.ref] = []
    most = 0

    def square(image: np.ndarray) -> np.ndarray:
        copy = image[:2].copy()
        alive.append(weakref.ref(copy))
        return copy

    for _ in read(Numbers(250), np.arange(250), square, 4, "images"):
        most = max(most, sum(one() is not None for one in alive))
    assert len(alive) == 250
    assert most <= 60


def test_an_unreadable_image_is_named() -> None:
    with pytest.raises(InputError, match="7: the image is not a JPEG"):
        list(read(Numbers(20, bad=7), np.arange(20), np.asarray, 4, "images"))
