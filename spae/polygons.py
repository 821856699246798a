"""Boxes, masks and polygons turned into each other, exactly. (`region.py` checks the regions that users give.)

Pixel (x, y) covers the square from (x, y) to (x + 1, y + 1); its middle says whether it is inside of a polygon. A
region with holes, or of several parts, is several polygons, and what an odd number of them encloses is inside.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from spae.errors import InputError

Polygon = tuple[tuple[float, float], ...]  # corners x, y in pixels, the last one joined to the first


class Box(NamedTuple):
    """In pixels of the image; x and y are those of the upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2: upper left, lower right."""
        return self.x, self.y, self.x + self.width, self.y + self.height


def box_of(mask: Bool[np.ndarray, "h w"]) -> Box:
    """The least box around the pixels of a mask that has some."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return Box(x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y)


def rectangle(box: Box) -> Polygon:
    x1, y1, x2, y2 = box.corners
    return (x1, y1), (x2, y1), (x2, y2), (x1, y2)


def fill(polygons: Iterable[Sequence[Sequence[float]]], width: int, height: int) -> Bool[np.ndarray, "h w"]:
    """The pixels whose middle an odd number of polygons encloses; what is outside of the image is left out."""
    turns = np.zeros((height, width + 1), np.int64)
    middles = np.arange(height) + 0.5
    for polygon in polygons:
        corners = np.asarray(polygon, np.float64)
        for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, 0), strict=True):
            rows = np.flatnonzero((y1 <= middles) != (y2 <= middles))
            # Rows are crossed at x; the pixels whose middle is at or behind it lie beyond this edge.
            crossed = x1 + (middles[rows] - y1) * ((x2 - x1) / (y2 - y1)) if rows.size else rows
            first = np.clip(np.ceil(crossed - 0.5), 0, width).astype(np.int64)
            np.add.at(turns, (rows, first), 1)
    return np.cumsum(turns, 1)[:, :width] % 2 == 1


def outlines(mask: Bool[np.ndarray, "h w"]) -> tuple[Polygon, ...]:
    """The polygons that run along the edges of a mask's pixels: `fill` gives back the mask.

    Outer ones run clockwise, holes the other way; parts that touch at a corner only are apart. From the top, then left.
    """
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    # Of each pixel its four edges that border on the outside, as steps with the inside on the right hand: right along
    # the upper edge, down along the right one, left, up. (y, x) of the corner at which a step begins.
    edges: list[set[tuple[int, int]]] = []
    for beyond, (down, right) in (
        (padded[:-2, 1:-1], (0, 0)),
        (padded[1:-1, 2:], (0, 1)),
        (padded[2:, 1:-1], (1, 1)),
        (padded[1:-1, :-2], (1, 0)),
    ):
        starts = np.argwhere(inside & ~beyond) + np.array((down, right))
        edges.append(set(map(tuple, starts.tolist())))
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    polygons = []
    for start in sorted(edges[0]):  # every outline has a step to the right
        if start not in edges[0]:
            continue
        corners, at, heading = [], start, 0
        while at in edges[heading]:
            edges[heading].remove(at)
            at = (at[0] + steps[heading][0], at[1] + steps[heading][1])
            # To the right where that is possible: so diagonal neighbours stay apart.
            turned = next((d for d in ((heading + 1) % 4, heading, (heading - 1) % 4) if at in edges[d]), 0)
            if turned != heading:
                corners.append((at[1], at[0]))
                heading = turned
        polygons.append(tuple(corners))
    return tuple(polygons)


def with_corners(polygon: Sequence[tuple[float, float]], count: int) -> Polygon:
    """A polygon of exactly `count` corners: while there are more, the corner goes that spans the least triangle with
    its neighbours (Visvalingam and Whyatt 1993); while there are fewer, the longest side gets one in its middle.

    Raises:
        InputError: fewer than three corners are wanted, or given.
    """
    corners = np.asarray(polygon, np.float64)
    if min(count, len(corners)) < 3:
        raise InputError(
            f"wanted a polygon of at least 3 corners, got {len(corners)} and to make {count} of them"
        )
    while len(corners) > count:
        before, after = np.roll(corners, 1, 0) - corners, np.roll(corners, -1, 0) - corners
        areas = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0])
        corners = np.delete(corners, int(areas.argmin()), 0)
    while len(corners) < count:
        ends = np.roll(corners, -1, 0)
        longest = int(np.hypot(*(ends - corners).T).argmax())
        corners = np.insert(corners, longest + 1, (corners[longest] + ends[longest]) / 2, 0)
    return tuple(map(tuple, corners.tolist()))


def area(polygon: Sequence[tuple[float, float]]) -> float:
    """In square pixels, by the corners alone (the shoelace formula); 0 for a line."""
    x, y = np.asarray(polygon, np.float64).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
