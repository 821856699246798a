"""A service on the tokenizer without networks, in this process."""

import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import spae
from spae.service import upstream
from spae.service.app import create_app
from spae.service.settings import Settings

# fake_tokenizer stands beside the tests of the tokenizer.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fake_tokenizer import load_fake


class SilentModel:
    """A language model that has nothing to say."""

    async def chat(self, body, headers):
        message = {"role": "assistant", "content": ""}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"id": "0", "object": "chat.completion", "created": 0, "model": "silent", "choices": [choice]}

    @asynccontextmanager
    async def stream(self, body, headers):
        async def chunks():
            delta = {"role": "assistant", "content": ""}
            choice = {"index": 0, "delta": delta, "finish_reason": "stop"}
            yield {
                "id": "0",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": "silent",
                "choices": [choice],
            }

        yield chunks()

    async def models(self, headers=None):
        return [{"id": "silent", "object": "model", "created": 0, "owned_by": "nobody"}]

    async def close(self):
        pass


@pytest.fixture
def fakes(monkeypatch):
    """The service's tokenizer and language model are fakes."""
    monkeypatch.setattr(spae, "load", load_fake)
    monkeypatch.setattr(upstream, "open_upstream", lambda settings, vocabulary: SilentModel())


@pytest.fixture
def client(fakes):
    """A client of a running service with the settings as they are."""
    with TestClient(create_app(Settings()), base_url="http://localhost") as client:
        yield client
