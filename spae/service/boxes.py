"""Regions of images as requests write them: boxes, [x, y, width, height] in pixels of the upright image."""

from typing import Any

from spae.errors import InputError
from spae.service.errors import short

Box = tuple[float, float, float, float]  # x, y, width, height
MOST_REGIONS = 32  # of a request


def read_boxes(value: Any, name: str) -> tuple[Box, ...]:
    """The boxes of a request, as yet on no image.

    Raises:
        InputError: no list of boxes of four numbers, or more than MOST_REGIONS.
    """
    if not isinstance(value, list):
        raise InputError(f"{name}: wanted a list of boxes [x, y, width, height]; got {short(value)}")
    if len(value) > MOST_REGIONS:
        raise InputError(f"{name}: wanted at most {MOST_REGIONS} regions, got {len(value)}: ask for fewer")
    boxes = []
    for place, box in enumerate(value):
        numbers = isinstance(box, list) and all(type(one) in (int, float) for one in box)
        if not numbers or len(box) != 4:
            raise InputError(
                f"{name}[{place}]: wanted a box of four numbers [x, y, width, height]; got {short(box)}"
            )
        try:
            x, y, width, height = map(float, box)
        except OverflowError:
            raise InputError(f"{name}[{place}]: wanted numbers of pixels; got {short(box)}") from None
        boxes.append((x, y, width, height))
    return tuple(boxes)
