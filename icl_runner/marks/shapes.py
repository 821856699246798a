"""The eight shapes of visual prompts, over a box or a mask.

As ViP-LLaVA draws them (arXiv 2312.00784, section 3.1 and its published code), in units of u = longest side of the
image / 336. Where we part from it: no shape stands in for another (a mask that is asked for over a box is an error;
there it is the box, filled); points, triangles, scribbles and tips of arrows begin and end inside of the region,
whatever its form; an arrow's shaft is at least one and a half times as long as its head, and lies within the image
where an angle for that is found.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from icl_runner.dice import Dice
from spae.errors import InputError
from spae.polygons import Box, box_of, outlines
from spae.region import Region, check

# Shape -> the word before it in a phrase.
SHAPES = {
    "rectangle": "within",
    "ellipse": "within",
    "triangle": "with",
    "point": "at",
    "scribble": "with",
    "mask contour": "with",
    "mask": "with",
    "arrow": "pointed to by",
}
_OF_MASKS = ("mask", "mask contour")
LINES = {  # least and most width in units of u
    "rectangle": (2, 8),
    "ellipse": (2, 8),
    "triangle": (2, 8),
    "scribble": (2, 12),
    "mask contour": (1, 2),
    "arrow": (1, 6),
}
_TRIES = 50


class Place:
    """A region of an image of `height` x `width` pixels, and how each shape is drawn over it.

    Points are whole pixels here, as in Pillow, whose coordinates are those of pixels' middles.

    Raises:
        InputError: as `spae.region.check`.
    """

    def __init__(self, region: Region, height: int, width: int) -> None:
        checked = check(region, height, width)
        self.height, self.width = height, width
        self.unit = max(height, width) / 336
        self.of_mask = isinstance(checked, np.ndarray)
        if isinstance(checked, np.ndarray):
            self.mask = checked
        else:
            x, y, w, h = checked
            self.mask = np.zeros((height, width), bool)
            # Every pixel that the box touches.
            self.mask[math.floor(y) : math.ceil(y + h), math.floor(x) : math.ceil(x + w)] = True
        self.box: Box = box_of(self.mask)

    @property
    def shapes(self) -> tuple[str, ...]:
        """Those that can be drawn: masks over masks, and a triangle where there is room for one."""
        return tuple(
            shape
            for shape in SHAPES
            if (self.of_mask or shape not in _OF_MASKS) and (shape != "triangle" or self._some_triangle)
        )

    def draw(self, shape: str, line: int, dice: Dice) -> Bool[np.ndarray, "h w"]:
        """The pixels of a shape whose lines are `line` pixels wide.

        Raises:
            InputError: it needs a mask, and this is a box; a triangle, and no room for one.
        """
        if shape in _OF_MASKS and not self.of_mask:
            raise InputError(
                f"the shape {shape!r} needs the region as a mask, got a box: give a mask, or draw a rectangle"
            )
        if shape == "mask":
            return self.mask
        canvas = Image.new("1", (self.width, self.height))
        pen = ImageDraw.Draw(canvas)
        ways: dict[str, Callable[[ImageDraw.ImageDraw, int, Dice], None]] = {
            "rectangle": self._rectangle,
            "ellipse": self._ellipse,
            "triangle": self._triangle,
            "point": self._point,
            "scribble": self._scribble,
            "mask contour": self._contour,
            "arrow": self._arrow,
        }
        ways[shape](pen, line, dice)
        return np.array(canvas)

    def _rectangle(self, pen: ImageDraw.ImageDraw, line: int, dice: Dice) -> None:
        x1, y1, x2, y2 = self.box.corners
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=1, width=line)

    def _ellipse(self, pen: ImageDraw.ImageDraw, line: int, dice: Dice) -> None:
        size = dice.uniform("ellipse", 1, 1.5)
        x, y = self._middle
        across, down = size * (self.box.width - 1) / 2, size * (self.box.height - 1) / 2
        # One that goes round the whole image cannot be seen: then it touches the box.
        inner = max(across - line, 1e-6), max(down - line, 1e-6)
        farthest = max(x, self.width - 1 - x), max(y, self.height - 1 - y)
        if (farthest[0] / inner[0]) ** 2 + (farthest[1] / inner[1]) ** 2 < 1:
            across, down = across / size, down / size
        pen.ellipse((x - across, y - down, x + across, y + down), outline=1, width=line)

    def _triangle(self, pen: ImageDraw.ImageDraw, line: int, dice: Dice) -> None:
        corners = self._corners(dice, _TRIES) or self._some_triangle
        if corners is None:
            raise InputError(
                f"found no triangle without a flat corner in a region of {self.mask.sum()} pixels, {self.box.width:g} "
                f"x {self.box.height:g}: give a larger region, or another shape"
            )
        pen.line([*corners, *corners[:2]], fill=1, width=line, joint="curve")

    def _corners(self, dice: Dice, tries: int) -> list[tuple[int, int]] | None:
        """Of a triangle in the region, no corner of which is flat; None if so many throws find none."""
        for number in range(tries):
            corners = [self._anywhere(dice, f"corner {corner} {number}") for corner in range(3)]
            if max(_angles(corners)) <= 150:
                return corners
        return None

    @cached_property
    def _some_triangle(self) -> list[tuple[int, int]] | None:
        """The same for every dice: whether there is room for one, and what is drawn if a dice finds none."""
        return self._corners(Dice("triangle"), 10 * _TRIES)

    def _point(self, pen: ImageDraw.ImageDraw, line: int, dice: Dice) -> None:
        # The published variances are an eighth of the box's sides.
        x, y = self._middle
        x, y = self._inside(
            dice.normal("point x", x, math.sqrt(self.box.width / 8)),
            dice.normal("point y", y, math.sqrt(self.box.height / 8)),
        )
        radius = max(1, dice.whole("radius", int(5 * self.unit), int(20 * self.unit)))
        aspect = dice.uniform("aspect", 0.5, 2) if dice.whole("is no circle", 0, 1) else 1.0
        across, down = radius * aspect, radius / aspect
        pen.ellipse((x - across, y - down, x + across, y + down), fill=1)

    def _scribble(self, pen: ImageDraw.ImageDraw, line: int, dice: Dice) -> None:
        """A cubic Bezier curve, from one point of the region to another."""
        p = np.array([self._anywhere(dice, f"scribble {number}") for number in range(4)], np.float64)
        t = np.linspace(0, 1, max(2, int(1000 * self.unit)))[:, None]
        curve = (1 - t) ** 3 * p[0] + 3 * (1 - t) ** 2 * t * p[1] + 3 * (1 - t) * t**2 * p[2] + t**3 * p[3]
        # Many of them lie in one pixel.
        steps = list(dict.fromkeys(map(tuple, np.rint(curve).astype(int).tolist())))
        pen.line(steps if len(steps) > 1 else steps * 2, fill=1, width=line, joint="curve")
        pen.point(steps, fill=1)  # a line from a point to itself is nothing

    def _contour(self, pen: ImageDraw.ImageDraw, line: int, dice: Dice) -> None:
        """As wide as `line` to both sides of the edge."""
        for polygon in outlines(self.mask):
            closed = [(x - 0.5, y - 0.5) for x, y in (*polygon, *polygon[:2])]
            pen.line(closed, fill=1, width=2 * line, joint="curve")

    def _arrow(self, pen: ImageDraw.ImageDraw, line: int, dice: Dice) -> None:
        x, y = self._middle
        tip = self._inside(
            x + dice.uniform("tip x", -0.25, 0.25) * self.box.width,
            y + dice.uniform("tip y", -0.25, 0.25) * self.box.height,
        )
        length = dice.uniform("length", 0.8 * min(self.box.width, self.box.height), 50 * self.unit)
        head = max(dice.uniform("head", 0.2, 0.5) * length, 6 * self.unit)
        length = max(length, 1.5 * head)
        angles = [dice.uniform(f"angle {number}", 0, math.tau) for number in range(_TRIES)]

        def away(angle: float, distance: float) -> tuple[float, float]:
            return tip[0] + distance * math.cos(angle), tip[1] + distance * math.sin(angle)

        def on_image(point: tuple[float, float]) -> bool:
            return 0 <= point[0] < self.width and 0 <= point[1] < self.height

        angle = next((angle for angle in angles if on_image(away(angle, length))), angles[0])
        shaft = [tip, away(angle, length)]
        if dice.whole("wobbles", 0, 1):
            x, y = away(angle, length / 2)
            wobble = 5 * self.unit
            middle = (
                x + dice.uniform("wobble x", -wobble, wobble),
                y + dice.uniform("wobble y", -wobble, wobble),
            )
            shaft.insert(1, middle)
        pen.line(shaft, fill=1, width=line, joint="curve")
        barbs = [away(angle + math.pi / 3, head), tip, away(angle - math.pi / 3, head)]
        if dice.whole("is filled", 0, 1):
            pen.polygon(barbs, fill=1)
        else:
            pen.line(barbs, fill=1, width=line, joint="curve")
        pen.point(tip, fill=1)

    @property
    def _middle(self) -> tuple[float, float]:
        return self.box.x + (self.box.width - 1) / 2, self.box.y + (self.box.height - 1) / 2

    @cached_property
    def _pixels(self) -> np.ndarray:
        """(n, 2): y, x of the pixels of the region."""
        return np.argwhere(self.mask)

    def _anywhere(self, dice: Dice, purpose: str) -> tuple[int, int]:
        """A pixel of the region, any of them alike."""
        y, x = self._pixels[dice.whole(purpose, 0, len(self._pixels) - 1)].tolist()
        return x, y

    def _inside(self, x: float, y: float) -> tuple[int, int]:
        """The pixel of the region that is nearest to a point."""
        nearest = int(((self._pixels - (y, x)) ** 2).sum(1).argmin())
        row, column = self._pixels[nearest].tolist()
        return column, row


def _angles(corners: Sequence[tuple[int, int]]) -> list[float]:
    """Of a triangle, in degrees; 180 where corners coincide."""
    found = []
    for number in range(3):
        a, b, c = (np.array(corners[(number + step) % 3], np.float64) for step in range(3))
        one, two = b - a, c - a
        size = np.hypot(*one) * np.hypot(*two)
        found.append(math.degrees(math.acos(float(np.clip(one @ two / size, -1, 1)))) if size else 180.0)
    return found
