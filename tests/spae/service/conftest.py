"""A service on the tokenizer without networks, in this process."""

import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import spae
from spae.service.app import create_app
from spae.service.settings import Settings

# fake_tokenizer stands beside the tests of the tokenizer.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fake_tokenizer import load_fake


@pytest.fixture
def fake_bundle(monkeypatch):
    """`spae.load` gives the fake tokenizer."""
    monkeypatch.setattr(spae, "load", load_fake)


@pytest.fixture
def client(fake_bundle):
    """A client of a running service with the settings as they are."""
    with TestClient(create_app(Settings()), base_url="http://localhost") as client:
        yield client
