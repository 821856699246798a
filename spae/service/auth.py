"""Who may call: keys, how many requests at a time each of them, and the names that a local service answers to.

A file of keys and a counter: what libraries of authentication add (users, sessions, tokens that expire) is the business
of a proxy in front.
"""

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from spae.errors import InputError
from spae.service.errors import ApiError
from spae.service.settings import Settings, is_loopback

_HASHED = re.compile(r"sha256:([0-9a-f]{64})")
# The page, its files and the documentation hold nothing of anybody's.
_GUARDED = ("/v1/", "/metrics")


class Keys:
    """The keys that may call, kept as their sha256 only."""

    def __init__(self, digests: Sequence[bytes]):
        self._digests = tuple(digests)

    @classmethod
    def read(cls, path: str | Path) -> "Keys":
        """Of a file with a key on each line, or its digest as `sha256:` and 64 hexadecimal digits; lines that are
        empty or begin with # are passed over.

        Raises:
            InputError: no file, no keys, or a key that is too short or has spaces.
        """
        try:
            lines = Path(path).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
            raise InputError(f"cannot read the keys in {path}: {reason}") from None
        digests = []
        for number, line in enumerate(lines, 1):
            key = line.strip()
            if not key or key.startswith("#"):
                continue
            hashed = _HASHED.fullmatch(key)
            if hashed:
                digests.append(bytes.fromhex(hashed[1]))
            elif key.startswith("sha256:") or len(key) < 16 or not key.isascii() or " " in key:
                # Without the key itself: this goes to a log.
                raise InputError(
                    f"{path}, line {number}: wanted a key of at least 16 ASCII characters without spaces, or "
                    "sha256: and 64 hexadecimal digits (small letters)"
                )
            else:
                digests.append(hashlib.sha256(key.encode()).digest())
        if not digests:
            raise InputError(f"wanted at least one key in {path}, got none")
        return cls(digests)

    def find(self, key: str) -> int | None:
        """The number of a key, None for an unknown one, in a time that does not depend on which."""
        digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        found = None
        for number, known in enumerate(self._digests):
            if hmac.compare_digest(digest, known):
                found = number
        return found


class Guard:
    """ASGI middleware: 401 without a key that is known, 429 for too many requests of one key at a time.

    A service on a loopback address without keys answers only to this machine's own names: otherwise a page in the
    user's browser could reach it under a name of its own that it points there (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, settings: Settings, keys: Keys | None):
        self.app = app
        self.keys = keys
        self.limit = settings.max_concurrent_per_key
        self.local_names_only = settings.is_local and keys is None and not settings.no_auth
        self._running: Counter[int] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            caller = self._admit(scope)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        if caller is None:
            await self.app(scope, receive, send)
            return
        self._running[caller] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._running[caller] -= 1

    def _admit(self, scope: Scope) -> int | None:
        """The number of the caller's key (-1 where none is needed); None for what anybody may see."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self.local_names_only and not is_loopback(_host(headers.get(b"host", ""))):
            raise ApiError(
                421,
                "this service answers only as localhost or 127.0.0.1: call it so, or start it with --api-keys or "
                "--no-auth",
                code="misdirected_request",
            )
        if not scope["path"].startswith(_GUARDED):
            return None
        caller = -1
        if self.keys is not None:
            scheme, _, key = headers.get(b"authorization", "").partition(" ")
            found = self.keys.find(key.strip()) if scheme.lower() == "bearer" else None
            if found is None:
                raise ApiError(
                    401,
                    "wanted a header Authorization: Bearer and a key of this service, got "
                    + ("an unknown key" if key else "none"),
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            caller = found
            if self._running[caller] >= self.limit:
                raise ApiError(
                    429,
                    f"at most {self.limit} requests at a time are taken of one key: wait for one to end",
                    code="too_many_requests",
                    retry_after_s=1,
                )
        return caller


def _host(header: str) -> str:
    """The name without the port: 'localhost:8000', '[::1]:8000'."""
    if header.startswith("["):
        return header.partition("]")[0][1:]
    return header.partition(":")[0]
