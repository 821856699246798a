"""What the operator of the service chooses."""

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from spae.bounds import Positive, Range, check_fields
from spae.errors import InputError
from spae.unicode import check_unicode

MEBIBYTE = 1 << 20
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?")


def option(default: Any, help: str, metavar: str | None = None, flag: str | None = None) -> Any:
    """A field that is an option of `spae serve`, too: `--its-name`, or `flag`; `help` as argparse has it."""
    return field(default=default, metadata={"help": help, "metavar": metavar, "flag": flag})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the service. Those without an `option` are for who starts it from Python.

    Raises:
        InputError: a number out of its range, an address that others can reach without keys, a bad URL.
    """

    host: str = option("127.0.0.1", "where to listen (%(default)s)", "ADDRESS")
    port: Annotated[int, Range(0, 65535)] = option(8000, "0: any that is free (%(default)s)", "N")
    # A shipped bundle's name, or a path.
    bundle: str = option("default", "the trained tokenizer (%(default)s)", "NAME_OR_PATH")
    upstream: str | None = option(
        None, "an OpenAI-compatible server, with /v1 (none: the model of --lm)", "URL"
    )
    upstream_model: str | None = option(None, "its model (what each request names)", "NAME")
    lm: str = option(
        "default",
        "the embedded language model: default (SmolLM2-135M), a path, or hf:ORG/REPO[/FILE]",
        "NAME_OR_PATH",
    )
    served_model_names: tuple[str, ...] = option(
        (),
        "requests may call the language model so, too; may be repeated (its own name and the bundle's)",
        "NAME",
        flag="--served-model-name",
    )
    preamble: str | None = option(
        None, "what the model is told of pictures in words; '' for nothing (some lines)", "TEXT"
    )
    api_keys_file: str | None = option(
        None, "keys that may call, one a line; or sha256:DIGEST", "FILE", flag="--api-keys"
    )
    no_auth: bool = option(False, "no keys, though others can reach the address")
    # By name.
    allow_hosts: tuple[str, ...] = option(
        (), "images may be fetched from there; may be repeated (nowhere)", "NAME", flag="--allow-host"
    )
    # Such as https://example.org.
    cors_origins: tuple[str, ...] = option(
        (), "web pages of this origin may call; may be repeated (none)", "URL", flag="--cors-origin"
    )
    # Without an answer, or between two parts of a streamed one.
    timeout_s: float = option(60.0, "seconds a request may take (60)", "S", flag="--timeout")
    # A largest batch in work, another and a half waiting.
    queue: Annotated[int, Range(1)] = option(80, "images at once; more get 429 (%(default)s)", "N")
    max_image_bytes: Positive = 10 * MEBIBYTE  # of an encoded image
    max_request_bytes: Positive = 64 * MEBIBYTE  # of a request's body
    max_text_bytes: Positive = 8 * MEBIBYTE  # of a conversation or a prompt, beside its images
    max_held_bytes: int = 512 * MEBIBYTE  # of all bodies that are in memory at once
    max_pixels: Positive = 1 << 25  # of an image, 8192 x 4096; looked at before it is decoded
    max_images: Positive = 16  # of a request
    max_wait_ms: Annotated[float, Range(0, 1000)] = 5.0  # that an image waits for others to fill its batch
    max_concurrent_per_key: Positive = 64  # requests

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.max_request_bytes <= self.max_held_bytes:
            raise InputError("wanted max_held_bytes of at least max_request_bytes: one request must fit")
        if self.max_images > self.queue:
            raise InputError(
                f"wanted a queue of at least max_images ({self.max_images}), got {self.queue}: "
                "a request of so many images would never be taken"
            )
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
