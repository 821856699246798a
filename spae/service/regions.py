"""POST /v1/regions: words of what is in parts of an image; and how images are opened for it."""

from collections.abc import Sequence

import numpy as np
from fastapi import APIRouter, Request, Response
from jaxtyping import UInt8
from PIL import Image
from starlette.responses import JSONResponse

from spae import region
from spae.errors import InputError
from spae.images import open_image, to_rgb
from spae.service import schemas
from spae.service.boxes import Box, read_boxes
from spae.service.clients import until_gone
from spae.service.errors import ApiError
from spae.service.images_in import check_file, from_data_url
from spae.service.running import Service, service_of
from spae.service.schemas import EXAMPLE_IMAGE, RegionsRequest

router = APIRouter(tags=["tokenizer"])

LARGEST_SIDE = 1024  # of the image that regions are looked at in, pixels; the trunk sees less


@router.post(
    "/v1/regions",
    summary="Words of regions",
    response_model=schemas.RegionsResponse,
    openapi_extra=schemas.json_body(RegionsRequest, {"image": EXAMPLE_IMAGE, "regions": [[0, 0, 4, 4]]}),
)
async def regions(request: Request) -> Response:
    """Boxes of an image (x, y, width, height in pixels of the image, upright) to words of what is in each. They may lie
    outside of the central square that is tokenized; the image is then looked at as a whole."""
    service = service_of(request)
    with service.batcher.places() as held, service.memory.share() as share:
        with service.telemetry.timed("read"):
            wanted = await schemas.read(request, RegionsRequest, share)
            boxes = read_boxes(wanted.regions, "regions")
        with service.telemetry.timed("open"):
            image, scaled = await service.in_thread(_opened, service, wanted.image, boxes)
        found = await until_gone(request, service.batcher.regions(image, scaled, held))
        request.state.log["images"] = 1
    data = [
        {"object": "region", "index": index, "region": list(box), "words": words}
        for index, (box, words) in enumerate(zip(boxes, found, strict=True))
    ]
    return JSONResponse({"object": "list", "model": service.settings.model, "data": data})


def open_image_of(
    data: bytes, boxes: Sequence[Box], service: Service, name: str
) -> tuple[UInt8[np.ndarray, "h w 3"], list[Box]]:
    """An encoded image, reduced to LARGEST_SIDE, and the boxes on it; runs in a thread, it is work.

    Raises:
        ApiError: as `images_in.open_square`; 422 a box, named by its place, that is empty, inverted or not on the
            image.
    """
    settings = service.settings
    check_file(data, settings)
    try:
        image = open_image(data, max_pixels=settings.max_pixels)
    except InputError as error:
        raise ApiError(422, str(error), code="invalid_image") from error
    for place, box in enumerate(boxes):
        try:
            region.check(box, image.height, image.width)
        except InputError as error:
            raise ApiError(
                422, f"{name}[{place}]: {error}", code="invalid_region", param=f"{name}[{place}]"
            ) from error
    largest = max(image.size)
    if largest <= LARGEST_SIDE:
        return to_rgb(image), list(boxes)
    size = [max(1, round(side * LARGEST_SIDE / largest)) for side in image.size]
    across, down = size[0] / image.width, size[1] / image.height
    small = image.resize((size[0], size[1]), Image.Resampling.BOX, reducing_gap=2)
    scaled = [
        (*_scaled(x, width, across, size[0]), *_scaled(y, height, down, size[1]))
        for x, y, width, height in boxes
    ]
    return to_rgb(small), [(x, y, width, height) for x, width, y, height in scaled]


def _scaled(start: float, length: float, scale: float, end: int) -> tuple[float, float]:
    """A side of a box on a smaller image. What was a region stays one: none leaves the image by a rounding error, or
    becomes too small to be one."""
    least = 2 * region.LEAST  # so that no rounding makes it less than one
    longer, start = max(length * scale, least), min(start * scale, end - least)
    return start, min(longer, end - start)


def _opened(service: Service, url: str, boxes: Sequence[Box]) -> tuple[UInt8[np.ndarray, "h w 3"], list[Box]]:
    try:
        data = from_data_url(url, service.settings)
    except ApiError as error:
        raise error.at("image") from error
    return open_image_of(data, boxes, service, "regions")
