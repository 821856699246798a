"""Where things are, as whole numbers that a language model can write (VisionLLM, arXiv 2305.11175, section 3.2).

The image is divided into `bins` steps across and as many down. *Absolute* locations count them from the left and upper
edge, 0 to `bins`. *Offsets* count them from the middle of the object, -`bins` to `bins`, as VisionLLM's `<p-512>` to
`<p512>` do; a frozen model has no query that already knows the middle, so there the tuple begins with it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from spae.errors import InputError

Size = tuple[int, int]  # width and height of an image in pixels
Points = Sequence[tuple[float, float]]  # x, y in pixels; a box is its upper left and lower right corner

MAX_BINS = 8192


@dataclass(frozen=True, kw_only=True)
class Locations:
    """How locations are counted and spelled.

    Args:
        bins: steps from edge to edge; VisionLLM's 512, or 1000, which reads as thousandths.
        offsets: count from the object's middle, which then stands first.
        tokens: spell `<p37>` and `<c2>`, as VisionLLM does; else plain numbers, which are fewer tokens of most
            vocabularies.

    Raises:
        InputError: bins out of range.
    """

    bins: int = 1000
    offsets: bool = False
    tokens: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bins <= MAX_BINS:
            raise InputError(f"wanted 2 to {MAX_BINS} bins, got {self.bins}")

    def limits(self, count: int) -> list[tuple[int, int]]:
        """Least and most of each of the numbers of `count` points."""
        absolute = (0, self.bins)
        if self.offsets:
            return [absolute] * 2 + [(-self.bins, self.bins)] * (2 * count)
        return [absolute] * (2 * count)

    def encode(self, points: Points, size: Size) -> list[int]:
        """The numbers of points: x and y of each, behind those of the middle where these are offsets. No more than half
        a bin off, but that a box narrower than a bin becomes the bin that its middle lies in: two points are a box.

        Raises:
            InputError: a point outside of the image.
        """
        for x, y in points:
            if not (0 <= x <= size[0] and 0 <= y <= size[1]):
                raise InputError(
                    f"the point {x:g},{y:g} lies outside of the image of {size[0]} x {size[1]} pixels"
                )
        axes = [self._steps([point[axis] * self.bins / size[axis] for point in points]) for axis in range(2)]
        if not self.offsets:
            return [number for pair in zip(*axes, strict=True) for number in pair]
        middle = [(min(steps) + max(steps)) // 2 for steps in axes]
        return middle + [
            number - middle[axis] for pair in zip(*axes, strict=True) for axis, number in enumerate(pair)
        ]

    def decode(self, numbers: Sequence[int], size: Size) -> list[tuple[float, float]]:
        """The points, in pixels, of numbers within their limits. A point that is offset beyond an edge may lie outside
        of the image."""
        if self.offsets:
            middle, numbers = numbers[:2], numbers[2:]
        else:
            middle = (0, 0)
        return [
            ((middle[0] + x) * size[0] / self.bins, (middle[1] + y) * size[1] / self.bins)
            for x, y in zip(numbers[::2], numbers[1::2], strict=True)
        ]

    def spell(self, number: int) -> str:
        """A location as it is written."""
        return f"<p{number}>" if self.tokens else str(number)

    def spell_class(self, number: int) -> str:
        return f"<c{number}>" if self.tokens else str(number)

    def read(self, text: str) -> int | None:
        """The number of a location as `spell` writes it, `<p 37>` too; None if it is none."""
        return _number(text, "p" if self.tokens else "")

    def read_class(self, text: str) -> int | None:
        return _number(text, "c" if self.tokens else "")

    def _steps(self, places: Sequence[float]) -> list[int]:
        steps = [math.floor(place + 0.5) for place in places]
        if len(places) == 2 and steps[0] == steps[1]:
            first = min(math.floor(sum(places) / 2), self.bins - 1)
            return [first, first + 1]
        return steps


def _number(text: str, letter: str) -> int | None:
    pattern = rf"<{letter} ?(-?\d{{1,18}})>" if letter else r"(-?\d{1,18})"
    found = re.fullmatch(pattern, text, re.ASCII)
    return int(found[1]) if found else None
