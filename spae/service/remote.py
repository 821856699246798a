"""Images from addresses that a request names: only from hosts that the operator allows, and never from inside.

A name is looked up once for each connection, and the connection goes to the address that was checked: a name that
points elsewhere a moment later (DNS rebinding) gains nothing. Redirects are followed by the same rules.

On httpcore2, whose pool takes a network of our own; the client of httpx2 above it takes none.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import httpcore2
import httpx2

from spae.service.errors import ApiError
from spae.service.images_in import too_large
from spae.service.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_TIMEOUT_S = 10.0
_REDIRECTS = 3
_REDIRECT = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
# Of IPv6 only what is given out to the world, less what leads to IPv4 addresses by another way (Teredo, 6to4) and
# documentation. Older versions of Python do not know all of these.
_WORLD = ipaddress.IPv6Network("2000::/3")
_NOT_WORLD = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))


def is_public(address: str) -> bool:
    """Whether an address is one of the open network: not private, of this machine, of the link, reserved, shared,
    multicast, or an IPv4 address within an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # with a zone: "fe80::1%eth0"
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        return parsed in _WORLD and parsed.is_global and not any(parsed in net for net in _NOT_WORLD)
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


class RemoteImages:
    """Fetches images over http and https from the hosts in `settings.allow_hosts`.

    An entry is a host's name, or name:port for another port than the scheme's own. Without entries nothing is fetched.
    """

    def __init__(
        self,
        settings: Settings,
        resolve: Resolve | None = None,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ):
        self._allowed = frozenset(entry.lower().rstrip(".") for entry in settings.allow_hosts)
        self._most = settings.max_image_bytes
        self._timeout_s = min(_TIMEOUT_S, settings.timeout_s / 2)
        backend = _CheckedNetwork(resolve or _resolve, network or httpcore2.AnyIOBackend())
        # No proxies of the environment: they would look names up again. No connection is kept for later.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            network_backend=backend,
            max_connections=64,
            max_keepalive_connections=0,
        )

    async def fetch(self, url: str) -> bytes:
        """The bytes at an address; what they are is for `spae.images` to see.

        Raises:
            ApiError: 413 too many bytes, 422 an address that is not allowed, or that gives nothing in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url)
        except TimeoutError:
            raise _refused(
                f"the image did not come within {self._timeout_s:g} s: send it as a data URL"
            ) from None
        except _NotPublic:
            raise _refused(
                "the host has an address inside a private network; its images are not fetched"
            ) from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError):
            raise _refused(
                "the image cannot be fetched: its host does not answer; send it as a data URL"
            ) from None

    async def close(self) -> None:
        await self._pool.aclose()

    async def _follow(self, url: str) -> bytes:
        target = self._checked(url)
        for _ in range(_REDIRECTS + 1):
            answer = await self._get(target)
            if isinstance(answer, bytes):
                return answer
            try:
                target = self._checked(str(target.join(answer)))
            except (httpx2.InvalidURL, ValueError):
                raise _refused("the image's address leads on to something that is no address") from None
        raise _refused(f"the image's address leads on more than {_REDIRECTS} times: give the last address")

    def _checked(self, url: str) -> httpx2.URL:
        try:
            target = httpx2.URL(url)
        except (httpx2.InvalidURL, ValueError):
            raise _refused(
                "wanted an image as data:image/jpeg;base64,.. or an http(s) address; got neither"
            ) from None
        if target.scheme not in _PORTS or not target.host:
            raise _refused("wanted an image as data:image/jpeg;base64,.. or an http(s) address; got neither")
        if target.userinfo:
            raise _refused("wanted an address without a user's name in it")
        host = target.raw_host.decode("ascii").lower().rstrip(".")
        port = target.port or _PORTS[target.scheme]
        entry = host if port == _PORTS[target.scheme] else f"{host}:{port}"
        if entry not in self._allowed:
            raise _refused(
                "images of this host are not fetched: send the image as a data URL (data:image/jpeg;base64,..)"
            )
        return target

    async def _get(self, url: httpx2.URL) -> bytes | str:
        """The body, or where to look instead."""
        async with self._pool.stream(
            "GET",
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers={
                "Host": url.netloc,
                "Accept": "image/jpeg, image/png, image/webp",
                "Accept-Encoding": "identity",
                "User-Agent": "spae",
            },
        ) as response:
            headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in _REDIRECT and b"location" in headers:
                return headers[b"location"]
            if response.status != 200:
                raise _refused(f"the image cannot be fetched: its host answers with status {response.status}")
            if headers.get(b"content-encoding", "identity").strip().lower() != "identity":
                raise _refused("the image's host sends it compressed once more: send it as a data URL")
            length = headers.get(b"content-length", "")
            if length.isdigit() and int(length) > self._most:
                raise too_large("an image", self._most)
            body = bytearray()
            async for part in response.aiter_stream():
                body += part
                if len(body) > self._most:
                    raise too_large("an image", self._most)
            return bytes(body)


class _NotPublic(Exception):
    """A name has an address that is not of the open network."""


class _CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to names by looking them up, checking what comes, and connecting to just that."""

    def __init__(self, resolve: Resolve, network: httpcore2.AsyncNetworkBackend):
        self._resolve = resolve
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await self._resolve(host, port)
        # One inside among several outside is no honest name.
        if not addresses or not all(is_public(address) for address in addresses):
            raise _NotPublic
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _refused(message: str) -> ApiError:
    return ApiError(422, message, code="invalid_image_url")
