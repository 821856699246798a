"""A running service: what its routes work with."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request

import spae
from spae.service.batching import Batcher
from spae.service.limits import Memory
from spae.service.models import upstream
from spae.service.models.upstream import Upstream
from spae.service.remote import RemoteImages
from spae.service.settings import Settings
from spae.service.telemetry import Telemetry
from spae.sources.clips import refuse_clips
from spae.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """All that requests share; `start` makes one, and a route gets it with `service_of`."""

    settings: Settings
    telemetry: Telemetry
    memory: Memory  # that bodies of requests may take
    tokenizer: Tokenizer
    fingerprint: str  # of the tokenizer
    batcher: Batcher
    threads: ThreadPoolExecutor  # for work on images and JSON
    upstream: Upstream  # the language model
    remote_images: RemoteImages

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """The result of work that would hold up other requests."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *arguments)


def service_of(request: Request) -> Service:
    """The service that a request is to; there from the first request on."""
    return request.app.state.service


@asynccontextmanager
async def start(settings: Settings, telemetry: Telemetry) -> AsyncIterator[Service]:
    """Load the models, compile what one image takes, and end all of it on leaving.

    Raises:
        InputError, BundleError: the bundle or the language model is not there, or is none for a service.
    """
    # In threads: the server must hear signals meanwhile.
    tokenizer = await asyncio.to_thread(spae.load, settings.bundle)
    refuse_clips(tokenizer, "the service")
    model = await asyncio.to_thread(upstream.open_upstream, settings, tokenizer.vocabulary)
    service = Service(
        settings=settings,
        telemetry=telemetry,
        memory=Memory(settings.max_held_bytes),
        tokenizer=tokenizer,
        fingerprint=await asyncio.to_thread(lambda: tokenizer.fingerprint),
        batcher=Batcher(tokenizer, telemetry, queue=settings.queue, max_wait_s=settings.max_wait_ms / 1000),
        threads=ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="spae-images"),
        upstream=model,
        remote_images=RemoteImages(settings),
    )
    try:
        await service.batcher.start()
        yield service
    finally:
        await service.batcher.close()
        await service.upstream.close()
        await service.remote_images.close()
        service.threads.shutdown()
