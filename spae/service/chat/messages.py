"""Conversations with images as conversations of text alone; pure functions.

Going in, every image part becomes the words of its pyramid between marks: `<image> dog park .. </image>`, and a
preamble tells the model what these words are. A message of text and image parts becomes one string, its parts
joined by line breaks, in their order.

Coming back, a picture that the model writes between the marks stays in the message's `content`, as the model
wrote it, and the picture itself is beside it in `images`, in the shape of an image part:

    {"role": "assistant", "content": "Here it is: <image> dog park .. </image>",
     "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,.."}, "index": 0}],
     "spae": {"images": [{"index": 0, "layers": 2, "words": "dog park ..", "repairs": [..], "error": null}]}}

`images` is what OpenRouter, LiteLLM and Vercel's gateway return, so it is where clients look; `content` is a string
for every client. The words stay in it because most clients send back nothing else: so a picture stays in the
conversation, exactly. (Where a message comes back with `images` and no words, its images are read like others.)

An image part may name regions of its image, `"spae": {"regions": [[x, y, width, height], ..]}` in pixels: behind the
words of the image stands a line for each, `Region 1: cat fur ..`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spae.errors import InputError
from spae.pyramid import PyramidShape
from spae.service.boxes import Box, read_boxes
from spae.service.errors import short
from spae.service.marks import CLOSE, OPEN

DEFAULT_LAYERS = 2
# Of OpenAI's two interfaces: clients write the parts of one into requests of the other.
TEXT_PARTS = ("text", "input_text", "output_text")
IMAGE_PARTS = ("image_url", "input_image")
_MOST_PARTS = 10_000  # messages, and parts of messages
Message = Mapping[str, Any]
Regions = tuple[str, tuple[Box, ...]]  # an image's address, and boxes on it


@dataclass(frozen=True)
class Options:
    """What a request says to this service alone.

    `layers`: of every image that goes in; `preamble`: instead of the usual one, "" for none; `draw`: an image is
    wanted in the answer (the request's `modalities` name "image"), `text`: and text too.
    """

    layers: int = DEFAULT_LAYERS
    preamble: str | None = None
    draw: bool = False
    text: bool = True


def read_options(body: Mapping[str, Any], shape: PyramidShape, preamble: str | None = None) -> Options:
    """The options in the request's `spae` and `modalities`; `preamble` is for those that have none of their own.

    Raises:
        InputError: others than there are.
    """
    if not isinstance(body.get("stream"), bool | None):
        raise InputError(f"stream: wanted true or false; got {short(body['stream'])}")
    own = body.get("spae")
    own = {} if own is None else own
    if not isinstance(own, Mapping) or not own.keys() <= {"layers", "preamble"}:
        raise InputError(
            f'spae: wanted an object such as {{"layers": 2, "preamble": ".."}}; got {short(own)}'
        )
    preamble = preamble if own.get("preamble") is None else own["preamble"]
    if preamble is not None and not isinstance(preamble, str):
        raise InputError(f"spae.preamble: wanted a string; got {short(preamble)}")
    modalities = body.get("modalities") or []
    if not isinstance(modalities, list) or not all(isinstance(one, str) for one in modalities):
        raise InputError(f'modalities: wanted a list such as ["text", "image"]; got {short(modalities)}')
    layers = own.get("layers")
    layers = min(DEFAULT_LAYERS, len(shape)) if layers is None else shape.check_layers(layers)
    draw = "image" in modalities
    return Options(layers, preamble, draw, "text" in modalities or not draw)


def for_upstream(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request without what is for this service alone; "image" is no modality of a text model."""
    rest = {key: value for key, value in body.items() if key != "spae"}
    if "modalities" in rest:
        modalities = [one for one in rest.pop("modalities") or [] if one != "image"]
        if modalities not in ([], ["text"]):
            rest["modalities"] = modalities
    return rest


def check_messages(messages: Any) -> list[Message]:
    """`messages` of a request.

    Raises:
        InputError: what is no list of messages of the OpenAI shape.
    """
    if not isinstance(messages, list) or not messages:
        raise InputError(f"messages: wanted a list of at least one message; got {short(messages)}")
    left = _MOST_PARTS
    for place, message in enumerate(messages):
        left -= _check_message(message, f"messages[{place}]")
        if left < 0:
            raise InputError(f"messages: wanted at most {_MOST_PARTS:,} messages and parts; got more")
    return messages


def image_places(messages: Sequence[Message]) -> dict[str, str]:
    """Every address (data: or http) of an image in checked messages, and the place where it stands first."""
    places: dict[str, str] = {}
    for place, message in enumerate(messages):
        for name, part in _parts(message):
            if _is_image(part):
                places.setdefault(_url(part, name), f"messages[{place}].{name}")
    return places


def region_places(messages: Sequence[Message]) -> dict[Regions, str]:
    """Of checked messages every image's address with regions of it, and the place where those stand first."""
    places: dict[Regions, str] = {}
    for place, message in enumerate(messages):
        for name, part in _parts(message):
            if _is_image(part) and (boxes := _boxes(part, name)):
                places.setdefault((_url(part, name), boxes), f"messages[{place}].{name}.spae.regions")
    return places


def images_size(messages: Sequence[Message]) -> int:
    """How many characters of checked messages are images in them."""
    size = 0
    for message in messages:
        content = message.get("content")
        parts = [*(content if isinstance(content, list) else []), *(message.get("images") or [])]
        size += sum(len(_url(part, "image")) for part in parts if _is_image(part))
    return size


def to_text(
    messages: Sequence[Message], words: Mapping[str, str], regions: Mapping[Regions, Sequence[Sequence[str]]]
) -> list[dict[str, Any]]:
    """The messages with text instead of images: `words` has those of every address of `image_places`, `regions` those
    of each region of `region_places`."""
    converted = []
    for message in messages:
        plain = {key: value for key, value in message.items() if key not in ("images", "spae")}
        parts = [_as_text(part, words, regions) for _, part in _parts(message)]
        if all(part["type"] == "text" for part in parts):
            if parts or message.get("content") == []:
                plain["content"] = "\n".join(part["text"] for part in parts if part["text"])
        else:
            # Sound, files, refusals: whether it takes them is the model's business.
            plain["content"] = parts
        converted.append(plain)
    return converted


def preamble(shape: PyramidShape, options: Options, regions: bool = False) -> str:
    """What tells the model, in a few sentences, how pictures are written, and `regions` of them."""
    if options.preamble is not None:
        return options.preamble
    grids = [" x ".join(map(str, grid)) for grid in shape.layers[: options.layers]]
    first, *finer = [
        f"{shape.tokens(1)} word for the whole" if shape.tokens(1) == 1 else f"{grids[0]} words",
        *(f"{grid} words for its parts, row by row" for grid in grids[1:]),
    ]
    order = ", then ".join([first, *finer])
    text = (
        f"Pictures appear in this conversation as words between {OPEN} and {CLOSE}: {order}. "
        "The words say what is seen there. "
        f"To show a picture, write its {shape.tokens(options.layers)} words between the same marks."
    )
    if regions:
        text += " Regions of a picture stand behind it, each with words of what is seen there."
    if not options.draw:
        return text
    return text + (" End your answer with a picture." if options.text else " Answer with a picture alone.")


def with_preamble(messages: Sequence[Message], text: str) -> list[dict[str, Any]]:
    """The messages with the preamble in front: in the system message that is there, since many models take only
    one, or in one of its own. None for an empty preamble."""
    first, rest = dict(messages[0]), [dict(message) for message in messages[1:]]
    if not text:
        return [first, *rest]
    if first["role"] in ("system", "developer") and isinstance(first.get("content"), str):
        return [first | {"content": f"{text}\n\n{first['content']}"}, *rest]
    return [{"role": "system", "content": text}, first, *rest]


def image_part(url: str) -> dict[str, Any]:
    """An image in the shape in which clients of OpenAI's interface send images."""
    return {"type": "image_url", "image_url": {"url": url}}


def _parts(message: Message) -> list[tuple[str, Mapping[str, Any]]]:
    """Content as parts with their places in the message, and the images that an answer of an earlier turn has beside
    it."""
    content = message.get("content")
    if isinstance(content, str):
        parts: list[tuple[str, Mapping[str, Any]]] = [("content", {"type": "text", "text": content})]
    else:
        parts = [(f"content[{i}]", part) for i, part in enumerate(content or [])]
    # The words of the picture are in the content already if this service gave the answer.
    written = any(part["type"] in TEXT_PARTS and OPEN in part["text"] for _, part in parts)
    images = [] if written else list(message.get("images") or [])
    return parts + [(f"images[{i}]", part) for i, part in enumerate(images)]


def _as_text(
    part: Mapping[str, Any],
    words: Mapping[str, str],
    regions: Mapping[Regions, Sequence[Sequence[str]]],
) -> Mapping[str, Any]:
    if _is_image(part):
        url, boxes = _url(part, "image"), _boxes(part, "image")
        lines = [f"{OPEN} {words[url]} {CLOSE}"]
        if boxes:
            lines += [
                f"Region {n}: {' '.join(of_box)}" for n, of_box in enumerate(regions[url, boxes], start=1)
            ]
        return {"type": "text", "text": "\n".join(lines)}
    if part["type"] in TEXT_PARTS and part["type"] != "text":
        return {"type": "text", "text": part["text"]}
    return part


def _boxes(part: Mapping[str, Any], name: str) -> tuple[Box, ...]:
    """The regions that an image part names. Raises InputError."""
    own = part.get("spae")
    if own is None:
        return ()
    if not isinstance(own, Mapping) or own.keys() != {"regions"}:
        raise InputError(f'{name}.spae: wanted {{"regions": [[x, y, width, height], ..]}}; got {short(own)}')
    return read_boxes(own["regions"], f"{name}.spae.regions")


def _is_image(part: Mapping[str, Any]) -> bool:
    return part["type"] in IMAGE_PARTS


def _check_message(message: Any, name: str) -> int:
    """How many parts it is, itself among them.

    Raises:
        InputError: it is none.
    """
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InputError(f'{name}: wanted an object with a "role"; got {short(message)}')
    content = message.get("content")
    if content is not None and not isinstance(content, str | list):
        raise InputError(f"{name}.content: wanted a string or a list of parts; got {short(content)}")
    parts = content if isinstance(content, list) else []
    for place, part in enumerate(parts):
        _check_part(part, f"{name}.content[{place}]")
    images = message.get("images")
    if images is not None and not isinstance(images, list):
        raise InputError(f"{name}.images: wanted a list of image parts; got {short(images)}")
    for place, part in enumerate(images or []):
        _url(part, f"{name}.images[{place}]")
        _boxes(part, f"{name}.images[{place}]")
    return 1 + len(parts) + len(images or [])


def _check_part(part: Any, name: str) -> None:
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise InputError(f'{name}: wanted an object with a "type"; got {short(part)}')
    if part["type"] in TEXT_PARTS and not isinstance(part.get("text"), str):
        wanted = f'wanted {{"type": "{part["type"]}", "text": ".."}}'
        raise InputError(f"{name}: {wanted}; got {short(part)}, text being {short(part.get('text'))}")
    if _is_image(part):
        _url(part, name)
        _boxes(part, name)


def _url(part: Any, name: str) -> str:
    """Of an image part; some clients write the address itself for the object around it, as Responses has it."""
    image = part.get("image_url") if isinstance(part, Mapping) else None
    url = image.get("url") if isinstance(image, Mapping) else image
    if not isinstance(url, str) or part.get("type") not in IMAGE_PARTS:
        raise InputError(
            f'{name}: wanted {{"type": "image_url", "image_url": {{"url": "data:image/jpeg;base64,.."}}}}; '
            f"got {short(part)}" + (f" of the type {short(part['type'])}" if _has_type(part) else "")
        )
    return url


def _has_type(part: Any) -> bool:
    return isinstance(part, Mapping) and "type" in part
