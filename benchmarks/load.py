"""Clients of the service, in a process of their own: `python -m benchmarks.load URL --clients 8 --seconds 5`.

Prints one JSON object: `seconds` of the whole, and of every request its `status`, `seconds` and `retry_after`.
"""

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

import spae

# spae.demo knows them too, but loads JAX, for which the first request would wait.
PHOTOGRAPHS = Path(spae.__file__).with_name("photographs")

BOUNDARY = "load"
TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


async def as_fast_as_answered(url: str, clients: int, seconds: float) -> dict[str, Any]:
    """So many clients, each of which asks again once it is answered, until the time is over; every request is waited
    for."""
    answers: list[dict[str, Any]] = []
    bodies = itertools.cycle(_bodies())
    async with _session() as session:
        start = time.perf_counter()

        async def client() -> None:
            while True:
                answers.append(await _ask(session, url, next(bodies)))
                if time.perf_counter() - start >= seconds:
                    return

        await asyncio.gather(*(client() for _ in range(clients)))
        return {"seconds": time.perf_counter() - start, "answers": answers}


async def at_a_rate(url: str, rate: float, seconds: float) -> dict[str, Any]:
    """So many requests a second, evenly, whatever becomes of those before them."""
    bodies = itertools.cycle(_bodies())
    async with _session() as session:
        start = time.perf_counter()
        requests = []
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
            requests.append(asyncio.ensure_future(_ask(session, url, next(bodies))))
        answers = await asyncio.gather(*requests)
        return {"seconds": time.perf_counter() - start, "answers": answers}


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120)
    )


async def _ask(session: aiohttp.ClientSession, url: str, body: bytes) -> dict[str, Any]:
    start = time.perf_counter()
    async with session.post(f"{url}/v1/tokenize", data=body, headers=TYPE) as response:
        await response.read()
        seconds = time.perf_counter() - start
        return {
            "status": response.status,
            "seconds": seconds,
            "retry_after": response.headers.get("Retry-After"),
        }


def _bodies() -> list[bytes]:
    """A form for each of the photographs, JPEG files of 256 x 256 pixels."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'.encode()
    end = f"\r\n--{BOUNDARY}--\r\n".encode()
    return [head + path.read_bytes() + end for path in sorted(PHOTOGRAPHS.glob("*.jpg"))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("url", metavar="URL", help="of the service, such as http://127.0.0.1:8000")
    load = parser.add_mutually_exclusive_group(required=True)
    load.add_argument("--clients", type=int, metavar="N", help="that ask again once they are answered")
    load.add_argument("--rate", type=float, metavar="R", help="requests a second, answered or not")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="for so long (5)")
    options = parser.parse_args(arguments)
    if options.clients is not None:
        asking = as_fast_as_answered(options.url, options.clients, options.seconds)
    else:
        asking = at_a_rate(options.url, options.rate, options.seconds)
    json.dump(asyncio.run(asking), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
