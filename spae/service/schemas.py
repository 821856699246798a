"""What goes in and comes out, as pydantic models: they check requests and make the OpenAPI document."""

from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from spae.errors import InputError
from spae.pyramid import Pyramid, PyramidShape
from spae.service.batching import MOST_RIVALS
from spae.service.boxes import MOST_REGIONS
from spae.service.errors import ApiError
from spae.service.json_body import LARGE, name_half_pair, read_body
from spae.service.limits import Share
from spae.service.running import service_of

Rivals = Annotated[
    int,
    Field(ge=1, le=MOST_RIVALS, description="So many next nearest words of every place, of one image alone"),
]
Layers = Annotated[int, Field(ge=1, le=64, description="Only the first so many layers; all by default")]
DataUrl = Annotated[
    str,
    Field(description="data:image/jpeg;base64,.. (or png, webp)", json_schema_extra={"format": "data-url"}),
]
# A pyramid of the default tokenizer in words is some 4,000 characters.
LONGEST_TEXT = 65_536
MOST_WORDS = 16_384
Word = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Model = TypeVar("Model", bound=BaseModel)
Id = Annotated[int, Field(ge=0, le=2**31 - 1)]


# A red square of 8 x 8 pixels, so that the examples run as they stand.
EXAMPLE_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAA"
    "AElFTkSuQmCC"
)


class _Request(BaseModel):
    # Strict: "2" is not a number of layers. Unknown fields are mistakes.
    model_config = ConfigDict(extra="forbid", strict=True)


class TokenizeRequest(_Request):
    """An image, or several."""

    image: DataUrl | None = None
    images: Annotated[list[DataUrl], Field(min_length=1)] | None = None
    layers: Layers | None = None
    rivals: Rivals | None = None


class WrittenPyramid(_Request):
    """A pyramid as text, as words or as ids: one of them."""

    text: Annotated[
        str | None,
        Field(max_length=LONGEST_TEXT, description="Words; what is not as it should be is repaired"),
    ] = None
    words: Annotated[
        list[Word] | list[list[Word]] | None,
        Field(
            max_length=MOST_WORDS,
            description="Words, in one list or in one for each layer; repaired like text",
        ),
    ] = None
    ids: Annotated[
        list[Id] | list[list[Id]] | None,
        Field(
            max_length=MOST_WORDS,
            description="Ids of words, in one list or in one for each layer, exactly as many as whole layers hold",
        ),
    ] = None


class DetokenizeRequest(WrittenPyramid):
    """A pyramid as text, words or ids; or several in `inputs`."""

    inputs: Annotated[list[WrittenPyramid], Field(min_length=1)] | None = None
    layers: Layers | None = None


class RegionsRequest(_Request):
    """An image, and boxes on it."""

    image: DataUrl
    regions: Annotated[
        list[list[float]],
        Field(
            min_length=1,
            description=f"[x, y, width, height] of each in pixels of the upright image; {MOST_REGIONS} at most",
        ),
    ]


class LayerOut(BaseModel):
    """One layer: its grid, and its words and their ids row by row."""

    height: int
    width: int
    words: list[str]
    ids: list[int]
    rivals: Annotated[
        list[list[str]] | None,
        Field(description="If asked for: of each word those that fit its place next best, the best first"),
    ] = None


class PyramidOut(BaseModel):
    """One image in words."""

    object: Literal["pyramid"]
    index: Annotated[int, Field(description="Which of the request's images")]
    count: Annotated[int, Field(description="How many words")]
    text: Annotated[str, Field(description="All words, the top layer first: what goes into a prompt")]
    layers: list[LayerOut]


class TokenizeResponse(BaseModel):
    """The pyramids of the images, in their order."""

    object: Literal["list"]
    model: str
    data: list[PyramidOut]


class RegionOut(BaseModel):
    """One region, and words of what is there, the first of which says most."""

    object: Literal["region"]
    index: Annotated[int, Field(description="Which of the request's regions")]
    region: Annotated[list[float], Field(description="As it was sent")]
    words: list[str]


class RegionsResponse(BaseModel):
    """The words of the regions, in their order."""

    object: Literal["list"]
    model: str
    data: list[RegionOut]


class RepairOut(BaseModel):
    """One thing that was not as it should be, and what was done."""

    kind: Literal[
        "case", "punctuation", "numbering", "whitespace", "wrapping", "unknown", "missing", "surplus"
    ]
    position: Annotated[int, Field(description="Among the pyramid's words, from 0")]
    found: str
    used: Annotated[str, Field(description="The word taken instead; empty for something left out")]


class ImageOut(PyramidOut):
    """One image, the words that it was made of, and the repairs they needed."""

    object: Literal["image"]  # type: ignore[assignment]
    url: Annotated[str, Field(description="The image as data:image/png;base64,..")]
    repairs: list[RepairOut]


class DetokenizeResponse(BaseModel):
    """The images of the inputs, in their order."""

    object: Literal["list"]
    model: str
    data: list[ImageOut]


class VocabularyResponse(BaseModel):
    """Words in the order of the vocabulary: of the shipped one the most frequent in English first."""

    object: Literal["list"]
    model: str
    data: list[str]


class PromptResponse(BaseModel):
    """A text to paste into a chat."""

    object: Literal["prompt"]
    model: str
    text: str


class TokenizerOut(BaseModel):
    """What a tokenizer takes and gives."""

    image_size: Annotated[int, Field(description="Side in pixels of what is encoded and decoded")]
    layers: Annotated[list[list[int]], Field(description="The grid of every layer")]
    words_per_image: int
    meaning_layers: Annotated[
        int,
        Field(
            description="In so many first layers words say what is seen, in the others they serve as paint"
        ),
    ]
    vocabulary: Annotated[int, Field(description="How many words there are")]
    fingerprint: Annotated[str, Field(description="The same one gives the same words and pixels")]


class ModelOut(BaseModel):
    """A tokenizer of this service, or a language model behind it."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    tokenizer: TokenizerOut | None = None


class ModelsResponse(BaseModel):
    """The tokenizer first, then the language models that chat; `chat_error` when those could not be asked."""

    object: Literal["list"]
    data: list[ModelOut]
    chat_error: str | None = None


class HealthResponse(BaseModel):
    """Whether the service can work."""

    status: Literal["ready", "unavailable"]
    model: str
    version: str


class ErrorOut(BaseModel):
    message: Annotated[str, Field(description="What was wanted, what came, what to do")]
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """Every answer from 400 on."""

    error: ErrorOut


async def read(request: Request, model: type[Model], share: Share, instead: str = "") -> Model:
    """The body of a request.

    Raises:
        ApiError: as `read_body` and `check`.
        Overloaded: as `read_body`.
    """
    service = service_of(request)
    body = await read_body(request, service.settings, share, instead)
    return await service.in_thread(check, model, body) if len(body) > LARGE else check(model, body)


def check(model: type[Model], body: bytes | bytearray) -> Model:
    """The body as a request.

    Raises:
        ApiError: 400 not JSON, or text that is none; 422 a field is missing, unknown or wrong.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        name_half_pair(body)
        raise ApiError(400, f"the body is not JSON: {first['msg']}", code="invalid_json")
    place = ".".join(str(part) for part in first["loc"])
    raise ApiError(422, f"{place or 'the body'}: {first['msg']}", code="invalid_value", param=place or None)


def check_layers(layers: int | None, shape: PyramidShape) -> None:
    """Refuse a number of layers.

    Raises:
        ApiError: 422 the pyramid does not have so many.
    """
    try:
        shape.check_layers(layers)
    except InputError as error:
        raise ApiError(422, str(error), code="invalid_value", param="layers") from error


def described(pyramid: Pyramid, index: int, layers: int | None) -> dict[str, Any]:
    """The fields of a PyramidOut, but for `object`."""
    entries = pyramid.json(layers)
    words = [word for entry in entries for word in entry["words"]]
    return {"index": index, "count": len(words), "text": " ".join(words), "layers": entries}


def query_parameter(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI entry of a parameter that a route reads by itself."""
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def json_body(model: type[BaseModel], example: Any, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """The OpenAPI entry of a body that a route reads by itself; `more`: its other media types."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content: dict[str, Any] = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content | (more or {})}}


def components(*models: type[BaseModel]) -> dict[str, Any]:
    """The schemas of models and of what they hold, for `#/components/schemas`."""
    found: dict[str, Any] = {}
    for model in models:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        found |= schema.pop("$defs", {})
        found[model.__name__] = schema
    return found
