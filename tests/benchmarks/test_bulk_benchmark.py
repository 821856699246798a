"""Both engines beside the tokenizer on a tiny bundle: every figure is there. No timing is judged."""

import json

import numpy as np
import pytest
from drawn import drawn

from benchmarks.bulk import bulk_engines
from benchmarks.timing import table
from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    config = AutoencoderConfig(
        image_size=8, pyramid=(1, 2, 4), filters=4, multipliers=(1,), blocks=1, downsamplings=1
    )
    embeddings = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    views = {"meaning": View.raw(), "appearance": View.whitened(embeddings, 4)}
    words = tuple(f"{a}{b}" for a in "abcde" for b in "klmnop")
    vocabulary = Vocabulary(words, np.arange(30), embeddings, views, {})
    folder = tmp_path_factory.mktemp("bulk") / "bundle"
    model = drawn(lambda rngs: Autoencoder(config, 4, 8, rngs=rngs))
    Tokenizer(config, vocabulary, model).save(folder)
    return str(folder)


def test_every_figure_is_there(bundle):
    engines = ("in memory", "one process")
    found = bulk_engines(bundle, 2, part_size=2, engines=engines)
    assert list(found) == list(engines)
    for entry in found.values():
        assert entry["repeats"] == 2
        assert entry["seconds"]["min"] > 0
        assert entry["images_per_s"]["median"] == pytest.approx(2 / entry["seconds"]["median"])
        assert entry["start_s"]["min"] > 0
    assert "images/s" in table({"bulk": found})
    json.dumps(found)


def test_without_ray(bundle, monkeypatch):
    monkeypatch.setattr("benchmarks.bulk.find_spec", lambda name: None)
    found = bulk_engines(bundle, 1, engines=("Ray Data",))
    assert found == {"Ray Data": {"seconds": None, "reason": "Ray is not installed"}}
    assert "Ray is not installed" in table({"bulk": found})


def test_an_engine_that_fails_is_said_to():
    with pytest.raises(RuntimeError, match=r"(?s)one process failed: .*wanted a bundle"):
        bulk_engines("nowhere", 1, engines=("one process",))
