"""What the operator of the service chooses."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from spae.errors import InputError
from spae.unicode import check_unicode

MEBIBYTE = 1 << 20
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the service.

    Raises InputError: a number out of its range, an address that others can reach without keys, a bad URL.
    """

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    bundle: str = "default"  # the tokenizer: a shipped bundle's name, or a path
    upstream: str | None = None  # base URL of an OpenAI-compatible server, with /v1; None: the embedded model
    upstream_model: str | None = (
        None  # what the upstream calls its model; None: the name that a request gives
    )
    lm: str = "default"  # the embedded model
    served_model_names: tuple[str, ...] = ()  # further names that requests may call the language model by
    preamble: str | None = None  # tells the model what the words are; "": nothing does; None: the usual one
    api_keys_file: str | None = None  # a line each: a key, or sha256: and the hexadecimal digest of one
    no_auth: bool = False  # others may reach the address without keys
    allow_hosts: tuple[str, ...] = ()  # from which images may be fetched, by name
    max_image_bytes: int = 10 * MEBIBYTE  # of an encoded image
    max_request_bytes: int = 64 * MEBIBYTE  # of a request's body
    max_text_bytes: int = 8 * MEBIBYTE  # of a conversation or a prompt, beside its images
    max_held_bytes: int = 512 * MEBIBYTE  # of all bodies that are in memory at once
    max_pixels: int = 1 << 25  # of an image, 8192 x 4096; looked at before it is decoded
    max_images: int = 16  # of a request
    queue: int = 80  # images in the service at once: a largest batch in work, another and a half waiting
    max_wait_ms: float = 5.0  # that an image waits for others to fill its batch
    timeout_s: float = 60.0  # without an answer, or between two parts of a streamed one
    max_concurrent_per_key: int = 64  # requests
    cors_origins: tuple[str, ...] = ()  # web pages elsewhere that may call, such as https://example.org

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"wanted a port from 0 to 65535, got {self.port}")
        for name in (
            "max_image_bytes",
            "max_request_bytes",
            "max_text_bytes",
            "max_pixels",
            "max_images",
            "queue",
        ):
            _from_one(name, getattr(self, name))
        _from_one("max_concurrent_per_key", self.max_concurrent_per_key)
        if not self.max_request_bytes <= self.max_held_bytes:
            raise InputError("wanted max_held_bytes of at least max_request_bytes: one request must fit")
        if self.max_images > self.queue:
            raise InputError(
                f"wanted a queue of at least max_images ({self.max_images}), got {self.queue}: "
                "a request of so many images would never be taken"
            )
        if not 0 <= self.max_wait_ms <= 1000:
            raise InputError(f"wanted max_wait_ms from 0 to 1000, got {self.max_wait_ms}")
        if not 0 < self.timeout_s <= 86_400:
            raise InputError(f"wanted a timeout above 0 and up to 86400 seconds, got {self.timeout_s}")
        if self.upstream is not None and not self.upstream.startswith(("http://", "https://")):
            raise InputError(f"wanted an upstream such as http://localhost:8080/v1, got {self.upstream!r}")
        if self.served_model_names and self.upstream is not None and self.upstream_model is None:
            raise InputError(
                "further names of the language model need its own behind an upstream: give --upstream-model"
            )
        if not all(self.served_model_names):
            raise InputError("wanted served model names, got an empty one")
        if self.preamble is not None:
            check_unicode(self.preamble, "preamble")
        if "*" in self.cors_origins:
            raise InputError("wanted the origins that may call by name, such as https://example.org, got *")
        for entry in self.allow_hosts:
            if not _HOST.fullmatch(entry):
                raise InputError(f"wanted a host such as images.example.org (or with :port), got {entry!r}")
        if self.no_auth and self.api_keys_file is not None:
            raise InputError("wanted keys or no_auth, got both: leave one out")
        if not (self.is_local or self.no_auth or self.api_keys_file is not None):
            raise InputError(
                f"others can reach {self.host}: give a file of keys (--api-keys FILE), or say that none are "
                "needed (--no-auth)"
            )

    @property
    def model(self) -> str:
        """What the tokenizer is called: the bundle's name."""
        return Path(self.bundle.rstrip("/")).name

    @property
    def names(self) -> tuple[str, ...]:
        """What requests may call the language model beside its own name."""
        return tuple(dict.fromkeys(("default", self.model, *self.served_model_names)))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host, as a name or an address, is this machine's own."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _from_one(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"wanted {name} of at least 1, got {value}")
