"""Boxes, masks and polygons: exact both ways."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spae.errors import InputError
from spae.polygons import area, box_of, fill, outlines, rectangle, with_corners


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9), st.floats(0.1, 0.9))
def test_outlines_and_back(seed, height, width, density):
    # Noise has holes, diagonal neighbours, concave parts and islands.
    mask = np.random.default_rng(seed).random((height, width)) < density
    polygons = outlines(mask)
    np.testing.assert_array_equal(fill(polygons, width, height), mask)
    for polygon in polygons:
        assert all((a[0] == b[0]) != (a[1] == b[1]) for a, b in pairwise(polygon))


def test_a_ring_is_two_polygons():
    ring = np.ones((5, 5), bool)
    ring[1:4, 1:4] = False
    outer, hole = outlines(ring)
    assert outer == ((5, 0), (5, 5), (0, 5), (0, 0))
    assert (area(outer), area(hole)) == (25, 9)
    diagonal = np.eye(2, dtype=bool)
    assert len(outlines(diagonal)) == 2


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-5, 15), st.floats(-5, 15)), min_size=3, max_size=8))
def test_fill_counts_crossings(polygon):
    found = fill([polygon], 10, 7)
    for y in range(7):
        for x in range(10):
            inside = False
            for (x1, y1), (x2, y2) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
                if (y1 <= y + 0.5) != (y2 <= y + 0.5):
                    inside ^= x1 + (y + 0.5 - y1) * ((x2 - x1) / (y2 - y1)) <= x + 0.5
            assert found[y, x] == inside


def test_corners_that_matter_stay():
    square = ((0, 0), (5, 0.1), (10, 0), (10, 10), (5, 9.9), (0, 10), (0, 5))
    assert set(with_corners(square, 4)) == {(0, 0), (10, 0), (10, 10), (0, 10)}
    assert with_corners(square, 7) == square
    more = with_corners(square[::2], 20)
    assert len(more) == 20
    assert area(more) == area(square[::2])
    for polygon, count in ((square, 2), (square[:2], 8)):
        with pytest.raises(InputError, match="at least 3"):
            with_corners(polygon, count)


def test_boxes():
    mask = np.zeros((8, 10), bool)
    mask[7, 9] = True
    assert box_of(mask) == (9, 7, 1, 1)
    assert area(rectangle(box_of(mask))) == 1
