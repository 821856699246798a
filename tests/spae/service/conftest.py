"""A service on the tokenizer without networks, in this process."""

import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import spae
from spae.service.app import create_app
from spae.service.models import upstream
from spae.service.settings import Settings

# fake_tokenizer stands beside the tests of the tokenizer.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fake_tokenizer import load_fake
from silent_model import SilentModel


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
