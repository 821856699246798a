"""Images and bodies as they come in: limits while reading, formats and pixels before decoding.

The form is read by hand over python_multipart's parser: Starlette's own `form()` bounds how many files there are, but
neither the bytes of one nor those that all requests hold together, and writes large ones to disk.
"""

import base64
import binascii
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import numpy as np
import python_multipart
from jaxtyping import UInt8
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from spae.errors import InputError
from spae.images import open_image
from spae.service.errors import ApiError
from spae.service.limits import Share
from spae.service.settings import Settings
from spae.tokenizer import Tokenizer

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_DATA_URL = re.compile(r"\s*data:([^,]*),", re.IGNORECASE)
_LONGEST_HEAD = 1000  # characters before the comma
_BASE64_BEGINS = ("/9j/", "iVBORw0KGgo", "UklGR")  # of JPEG, PNG and WebP; some clients send it so
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_LONGEST_FIELD = 64  # bytes of a form's field that is no file; `layers` is a number


def open_square(data: bytes, settings: Settings, tokenizer: Tokenizer) -> UInt8[np.ndarray, "s s 3"]:
    """An encoded image as the square that the tokenizer looks at; runs in a thread, it is work.

    What the image is, its bytes say: labels may be wrong.

    Raises:
        ApiError: 413 too many bytes, 415 none of the formats, 422 damaged or too many pixels.
    """
    check_file(data, settings)
    try:
        return tokenizer.square(open_image(data, tokenizer.sight, max_pixels=settings.max_pixels))
    except InputError as error:
        raise ApiError(422, str(error), code="invalid_image") from error


def check_file(data: bytes, settings: Settings) -> None:
    """Raises ApiError: 413 too many bytes, 415 the beginning of none of the formats."""
    if len(data) > settings.max_image_bytes:
        raise too_large("an image", settings.max_image_bytes)
    if data and not _is_known(data):
        message = "wanted a JPEG, PNG or WebP image, got something else: convert it to one of these"
        raise ApiError(415, message, code="unsupported_image")


def is_inline(url: str) -> bool:
    """Whether an image's URL holds the image: a data URL, or its base64 and nothing around it."""
    return url[:200].lstrip()[:5].lower() == "data:" or url[:200].lstrip().startswith(_BASE64_BEGINS)


def from_data_url(url: str, settings: Settings) -> bytes:
    """The bytes of `data:image/jpeg;base64,..`, as RFC 2397 has it and as people write it: any media type or none,
    percent-encoded with or without base64; base64 in its usual or its URL-safe letters, with line breaks, without
    padding, or without the URL around it.

    Raises:
        ApiError: 413 too many bytes, 422 not a data URL or not base64.
    """
    limit = settings.max_image_bytes
    # A byte is at most three characters, percent-encoded, and base64 makes four letters of three bytes.
    if len(url) > 4 * limit + _LONGEST_HEAD:
        raise too_large("an image", limit)
    head = _DATA_URL.match(url, 0, _LONGEST_HEAD)
    if head is None and not is_inline(url):
        wanted = "wanted an image as data:image/jpeg;base64,.. (or png, webp)"
        raise ApiError(422, f"{wanted}, got no such URL", code="invalid_image_url")
    try:
        data = url[head.end() if head else 0 :].encode("ascii")
        if b"%" in data:
            data = unquote_to_bytes(data)
        if head is None or ";base64" in "".join(head[1].lower().split()):
            data = _from_base64(data, limit)
    except (binascii.Error, ValueError):
        message = "the data URL is not base64: encode the image's bytes with it"
        raise ApiError(422, message, code="invalid_image_url") from None
    if len(data) > limit:
        raise too_large("an image", limit)
    return data


def _from_base64(letters: bytes, limit: int) -> bytes:
    letters = letters.translate(_URL_SAFE, b" \t\r\n\f\v").rstrip(b"=")
    if len(letters) * 3 // 4 > limit:
        raise too_large("an image", limit)
    return base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)


@dataclass
class Form:
    """A multipart form: its files, and its other fields as text."""

    files: list[bytes] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


async def read_form(request: Request, settings: Settings, share: Share, files: tuple[str, ...]) -> Form:
    """A multipart form, its limits checked while it comes.

    `files`: the names under which files are taken.

    Raises:
        ApiError: 400 not such a form, 413 a file or all of it too large, or too many files.
        Overloaded: the bodies of all requests are too large together.
    """
    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if not boundary:
        raise _bad_form("its Content-Type names no boundary")
    reader = _FormReader(settings, files)
    try:
        parser = python_multipart.MultipartParser(boundary, reader.callbacks())
        async for chunk in chunks(request, settings, share):
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise _bad_form("it is damaged") from error
    if not reader.ended:
        raise _bad_form("it breaks off before its last boundary")
    return reader.form


class _FormReader:
    """Collects the parts of a form as the parser finds them."""

    def __init__(self, settings: Settings, files: tuple[str, ...]):
        self.settings = settings
        self.names = files
        self.form = Form()
        self.ended = False
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._name = ""
        self._is_file = False
        self._data = bytearray()

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._header, self._value, self._disposition, self._data = b"", b"", b"", bytearray()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = b"filename" in options or self._name in self.names
        if self._is_file and self._name not in self.names:
            raise _bad_form(f"wanted files under the name {self.names[0]}, got one under another")
        if self._is_file and len(self.form.files) == self.settings.max_images:
            raise too_many(self.settings.max_images, self.names[0])
        if self._name in self.form.fields or len(self.form.fields) == 16:
            raise _bad_form("a field occurs twice, or there are too many")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        size = len(self._data) + end - start
        if self._is_file and size > self.settings.max_image_bytes:
            raise too_large("an image", self.settings.max_image_bytes, self.names[0])
        if not self._is_file and size > _LONGEST_FIELD:
            message = f"wanted fields of at most {_LONGEST_FIELD} bytes beside the files, got a longer one"
            raise ApiError(422, message, code="invalid_value", param="form")
        self._data += data[start:end]

    def _part_end(self) -> None:
        if self._is_file:
            self.form.files.append(bytes(self._data))
        else:
            self.form.fields[self._name] = self._data.decode("utf-8", "replace")

    def _end(self) -> None:
        self.ended = True


async def chunks(request: Request, settings: Settings, share: Share) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        ApiError: 413 too large, 415 compressed.
        Overloaded: the bodies of all requests are too large together.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(
            415, "wanted a body that is not compressed: send it as it is", code="unsupported_encoding"
        )
    limit = settings.max_request_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise too_large("the request", limit)
    read = 0
    async for chunk in request.stream():
        read += len(chunk)
        if read > limit:
            raise too_large("the request", limit)
        share.take(len(chunk))
        yield chunk


def too_large(what: str, limit: int, param: str | None = None) -> ApiError:
    message = f"wanted {what} of at most {limit:,} bytes, got more: reduce it, or send less at a time"
    return ApiError(413, message, code="too_large", param=param)


def too_many(limit: int, param: str) -> ApiError:
    message = f"wanted at most {limit} images in a request, got more: send several requests"
    return ApiError(413, message, code="too_many_images", param=param)


def _bad_form(reason: str) -> ApiError:
    message = f"wanted a multipart form with files under the name image; {reason}"
    return ApiError(400, message, code="invalid_form")


def _is_known(data: bytes) -> bool:
    """Whether the first bytes are those of a format that is taken."""
    return data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (
        data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    )
