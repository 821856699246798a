"""Geometry of the pyramid against the reference's own facts and slow re-derivations."""

import json
from itertools import pairwise
from math import ceil
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spae.errors import InputError
from spae.pyramid import Pyramid, PyramidShape

DEFAULT = PyramidShape((1, 2, 4, 8, 16, 16))
VIDEO = PyramidShape(((1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16), (4, 16, 16)))
WORDS = SimpleNamespace(words=tuple(f"w{i}" for i in range(50)))

shapes = st.lists(st.sampled_from([1, 2, 3, 4, 6, 12]), min_size=1, max_size=5).map(
    lambda sides: PyramidShape((*sides, 12))
)


def random_pyramid(shape: PyramidShape, layers: int, seed: int = 0) -> Pyramid:
    rng = np.random.default_rng(seed)
    return Pyramid(tuple(rng.integers(0, 50, grid) for grid in shape.layers[:layers]), shape, WORDS)


def test_default_positions_are_the_papers():
    expected = [{9}, {5, 13}, {3, 7, 11, 15}, set(range(2, 17, 2)), set(range(1, 17)), set(range(1, 17))]
    for layer, axis in enumerate(expected, 1):
        one_based = DEFAULT.positions(layer) + 1
        assert {tuple(p) for p in one_based} == {(i, j) for i in axis for j in axis}


def test_positions_are_row_major():
    positions = VIDEO.positions(4)
    assert [tuple(p) for p in positions] == sorted(tuple(p) for p in positions)
    assert positions.shape == (2 * 8 * 8, 3)


@given(shapes)
def test_positions_follow_the_formula_and_stay_inside(shape):
    for layer, (rows, columns) in enumerate(shape.layers, 1):
        height, width = 12 // rows, 12 // columns
        slow = [
            (height * i - ceil(height / 2) + 1 - 1, width * j - ceil(width / 2) + 1 - 1)
            for i in range(1, rows + 1)
            for j in range(1, columns + 1)
        ]
        assert [tuple(p) for p in shape.positions(layer)] == slow
        assert 0 <= shape.positions(layer).min() <= shape.positions(layer).max() < 12


def test_default_counts():
    assert [DEFAULT.tokens(n) for n in range(1, 7)] == [1, 5, 21, 85, 341, 597]
    assert DEFAULT.tokens() == 597
    assert DEFAULT.grid == (16, 16)
    four = DEFAULT.coverage(4)
    assert (four.sum(), four.max(), (four == 0).sum()) == (85, 1, 171)
    six = DEFAULT.coverage()
    assert [(six == n).sum() for n in (1, 2, 3)] == [0, 171, 85]


def test_waves():
    assert DEFAULT.waves == ((1, 2, 3, 4), (5,), (6,))
    assert PyramidShape((1, 2, 4, 8, 16, 16, 16, 16)).waves == ((1, 2, 3, 4), (5,), (6,), (7,), (8,))
    assert PyramidShape((16, 16)).waves == ((1,), (2,))
    assert PyramidShape((1, 16, 1, 2, 16)).waves == ((1,), (2,), (3, 4), (5,))


@given(shapes)
def test_waves_are_in_order_disjoint_and_maximal(shape):
    waves = shape.waves
    assert [layer for wave in waves for layer in wave] == list(range(1, len(shape) + 1))

    def overlap(a, b):
        return bool({tuple(p) for p in shape.positions(a)} & {tuple(p) for p in shape.positions(b)})

    for wave in waves:
        assert not any(overlap(a, b) for a in wave for b in wave if a < b)
    for before, after in pairwise(waves):
        assert any(overlap(a, after[0]) for a in before)


def test_video_shape():
    assert VIDEO.tokens() == 1 + 4 + 16 + 128 + 1024 + 1024
    assert VIDEO.grid == (4, 16, 16)
    assert tuple(VIDEO.positions(1)[0]) == (2, 8, 8)
    assert VIDEO.waves[-2:] == ((5,), (6,))
    assert [layer for wave in VIDEO.waves for layer in wave] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("shape", [DEFAULT, PyramidShape(((1, 1, 1), (1, 2, 4), (2, 4, 8)))])
def test_nearest_covered_against_brute_force(shape):
    for layers in range(1, len(shape) + 1):
        covered = sorted({tuple(p) for n in range(1, layers + 1) for p in shape.positions(n)})
        slow = []
        for point in np.ndindex(*shape.grid):
            distance = [sum((a - b) ** 2 for a, b in zip(point, c, strict=True)) for c in covered]
            slow.append(np.ravel_multi_index(covered[distance.index(min(distance))], shape.grid))
        np.testing.assert_array_equal(shape.nearest_covered(layers), slow)


def test_shapes_are_values():
    assert PyramidShape((1, 2)) == PyramidShape([[1, 1], [2, 2]])
    assert hash(PyramidShape((1, 2))) == hash(PyramidShape(((1, 1), (2, 2))))
    with pytest.raises(ValueError, match="read-only"):
        DEFAULT.positions(1)[0] = 3


@pytest.mark.parametrize(
    "sides", [(), (0, 2), (3, 16), (1, (1, 2, 2)), ("a",), (1.5, 3), "12", 4, (True, 2), ((), ()), None]
)
def test_bad_shapes(sides):
    with pytest.raises(InputError):
        PyramidShape(sides)


@pytest.mark.parametrize("layers", [0, 7, -1, 2.0, "2", True])
def test_bad_layer_numbers(layers):
    with pytest.raises(InputError, match="layers"):
        DEFAULT.tokens(layers)


@pytest.mark.parametrize("shape", [DEFAULT, VIDEO, PyramidShape((2, 3, 1, 6))])
def test_the_place_above_holds_this_place(shape):
    places = [(number, place) for number, grid in enumerate(shape.layers) for place in np.ndindex(*grid)]
    numbers = {place: number for number, place in enumerate(places)}
    for (layer, place), above in zip(places, shape.above.tolist(), strict=True):
        if layer == 0:
            assert above == -1
            continue
        sides = zip(place, shape.layers[layer - 1], shape.layers[layer], strict=True)
        assert above == numbers[layer - 1, tuple(i * a // n for i, a, n in sides)]


def test_flat_ids_and_pyramid_are_inverse():
    shape = PyramidShape((1, 2, 4))
    assert shape.sizes == (1, 5, 21)
    for size in shape.sizes:
        pyramid = Pyramid.from_ids(range(size), shape)
        assert pyramid.flat_ids.tolist() == list(range(size))
    with pytest.raises(InputError, match=r"as whole layers hold, 1, 5, 21; got 6"):
        Pyramid.from_ids(range(6), shape)


def test_pyramid_words_text_json_prefix():
    shape = PyramidShape((1, 2, 4))
    pyramid = Pyramid((np.array([[7]]), np.array([[1, 2], [3, 4]], np.int16)), shape, WORDS)
    assert pyramid.layers == 2
    assert pyramid.words() == [["w7"], ["w1", "w2", "w3", "w4"]]
    assert pyramid.text() == "w7 w1 w2 w3 w4"
    assert pyramid.text(layers=1) == "w7"
    assert pyramid.prefix(1) == Pyramid(([[7]],), shape, WORDS)
    assert pyramid.ids[1].dtype == np.int32
    assert json.loads(json.dumps(pyramid.json()))[1] == {
        "height": 2,
        "width": 2,
        "words": ["w1", "w2", "w3", "w4"],
        "ids": [1, 2, 3, 4],
    }
    with pytest.raises(InputError, match="holds the first 2"):
        pyramid.text(layers=3)


def test_pyramid_equality_and_isolation():
    a, b = random_pyramid(DEFAULT, 6), random_pyramid(DEFAULT, 6)
    assert a == b
    assert hash(a) == hash(b)
    assert a != random_pyramid(DEFAULT, 6, seed=1)
    assert a != a.prefix(5)
    source = np.zeros((1, 1), np.int32)
    pyramid = Pyramid((source,), DEFAULT)
    source[:] = 9
    assert pyramid.ids[0][0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        pyramid.ids[0][0, 0] = 1


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((), "1 to 6 layers"),
        (([[0]], [[0, 1]]), "shape"),
        (([[50]],), "0 to 49"),
        (([[-1]],), "0 to 49"),
        (([[0.5]],), "integer"),
        (([["w1"]],), "integer"),
    ],
)
def test_bad_pyramids(ids, message):
    with pytest.raises(InputError, match=message):
        Pyramid(ids, DEFAULT, WORDS)


def test_a_pyramid_says_what_it_is():
    ids = (np.array([[7]]), np.arange(4).reshape(2, 2), np.arange(16).reshape(4, 4))
    assert repr(Pyramid(ids[:2], DEFAULT, WORDS)) == (
        "<Pyramid: 2 of 6 layers (1x1 2x2), 5 words: w7 w0 w1 w2 w3>"
    )
    assert repr(Pyramid(ids, DEFAULT, WORDS)) == (
        "<Pyramid: 3 of 6 layers (1x1 2x2 4x4), 21 words: w7 w0 w1 w2 w3 w0 w1 w2 ...>"
    )
    assert repr(Pyramid(([[[7]]],), VIDEO)) == "<Pyramid: 1 of 6 layers (1x1x1), 1 id: 7>"


def test_words_need_a_vocabulary():
    with pytest.raises(InputError, match="without a vocabulary"):
        Pyramid(([[3]],), DEFAULT).text()
