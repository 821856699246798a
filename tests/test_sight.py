"""The trunk sees the photograph at its own size, by whichever door it came in: the same words everywhere, and others
than those of the photograph reduced to what is encoded, which is nearly grey here."""

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn
from PIL import Image

import spae
from icl_runner.data.pyramids import Pyramids
from icl_runner.data.sets import labelled
from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.bulk.job import open_job
from spae.bulk.run import run
from spae.cli import main
from spae.guidance.clip.towers import ClipImageTower, ImageSizes
from spae.images import to_array
from spae.service import app, running
from spae.service.batching import Batcher
from spae.service.models import upstream
from spae.service.settings import Settings
from spae.sources import open_source
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary
from tokenizer_train.evaluation import evaluate
from tokenizer_train.evaluation.word_use import Words

SIDE, SIGHT = 16, 32
CONFIG = AutoencoderConfig(
    image_size=SIDE,
    pyramid=(1, 2, 8),
    filters=4,
    multipliers=(1,),
    blocks=1,
    downsamplings=1,
    meaning_layers=2,
    meaning="ranked",
    trunk="clip",
)
TRUNK = ImageSizes(
    width=8,
    inner=12,
    layers=1,
    heads=2,
    activation="gelu",
    image_size=SIGHT,
    patch=8,
    out=6,
    mean=(0.5, 0.5, 0.5),
    deviation=(0.1, 0.1, 0.1),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    embeddings = np.random.default_rng(0).normal(size=(200, TRUNK.out)).astype(np.float32)
    views = {"meaning": View.raw(), "appearance": View.whitened(embeddings, 4)}
    words = tuple(f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrstuvwxyzABCD")
    trunk = drawn(lambda rngs: ClipImageTower(TRUNK, rngs=rngs), 1)
    model = drawn(lambda rngs: Autoencoder(CONFIG, 4, TRUNK.out, trunk.width, rngs=rngs))
    folder = tmp_path_factory.mktemp("sight") / "bundle"
    Tokenizer(CONFIG, Vocabulary(words, np.arange(200), embeddings, views, {}), model, trunk).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tokenizer(bundle) -> Tokenizer:
    return spae.load(bundle)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Fine patterns, each of its own, that are grey from afar; and last a picture no larger than what is encoded."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(3):
        rng = np.random.default_rng(number)
        # Blocks of 3 x 3, every second one the negative of its neighbour: each 6 x 6 is grey on the mean.
        half = rng.uniform(-120, 120, (16, 24, 3))
        pattern = np.stack([half, -half], axis=2).reshape(16, 48, 3).repeat(2, axis=0)
        pattern[1::2] *= -1
        pixels = (128 + pattern).astype(np.uint8).repeat(3, axis=0).repeat(3, axis=1)
        (folder / f"class{number % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"class{number % 2}" / f"{number}.png")
    small = np.random.default_rng(9).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(small).save(folder / "class1" / "9.png")
    return folder


@pytest.fixture(scope="module")
def expected(tokenizer, photographs) -> dict[str, str]:
    """Key -> words, of images encoded one by one."""
    return {record.key: tokenizer.encode(record.image).text() for record in open_source(photographs)}


def test_the_words_need_the_full_size(tokenizer, photographs, expected):
    assert tokenizer.sight == SIGHT
    for record in open_source(photographs):
        reduced = tokenizer.encode(to_array(record.image, SIDE)).text()
        assert (reduced == expected[record.key]) == (record.image.shape[0] == SIDE)
        assert tokenizer.encode(tokenizer.square(record.image)).text() == expected[record.key]
    together = tokenizer.encode([record.image for record in open_source(photographs)])
    assert [pyramid.text() for pyramid in together] == list(expected.values())


def test_of_spae_encode(bundle, photographs, expected, capsys):
    files = [str(photographs / key) for key in expected]
    assert main(["encode", *files, "--json", "--bundle", bundle]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [" ".join(word for layer in record["layers"] for word in layer["words"]) for record in records]
    assert found == list(expected.values())


def test_of_spae_bulk(bundle, photographs, expected, tmp_path):
    job = open_job(photographs, bundle)
    assert job.source.size == SIGHT
    run(job, tmp_path / "words")
    lines = [line for part in sorted(tmp_path.glob("words/part-*")) for line in part.read_text().splitlines()]
    assert {row["key"]: row["text"] for row in map(json.loads, lines)} == expected


def test_of_the_service_which_compiles_nothing_for_a_request_once_it_is_warm(
    bundle, photographs, expected, monkeypatch
):
    starlette = pytest.importorskip("starlette.testclient")

    class NoModel:
        async def close(self):
            pass

    monkeypatch.setattr(upstream, "open_upstream", lambda settings, vocabulary: NoModel())
    monkeypatch.setattr(running, "Batcher", partial(Batcher, sizes=(1, 2)))
    files = [("image", (key, (photographs / key).read_bytes())) for key in expected]
    service = app.create_app(Settings(bundle=bundle))
    with starlette.TestClient(service, base_url="http://localhost") as client:
        while not service.state.service.batcher.warm:
            time.sleep(0.01)
        own = service.state.service.tokenizer._compiled
        compiled = [own._look, own._encode, own._next_words, own._nearest_few]
        before = [function._cache_size() for function in compiled]
        answer = client.post("/v1/tokenize", files=files).json()
        one = client.post("/v1/tokenize", files=files[:1], data={"rivals": "2"}).json()
        assert client.post("/v1/tokenize", files=files[-1:], data={"rivals": "2"}).status_code == 200
        assert [function._cache_size() for function in compiled] == before
    assert [entry["text"] for entry in answer["data"]] == list(expected.values())
    assert one["data"][0]["text"] == next(iter(expected.values()))


def test_of_spae_train_eval(bundle, photographs, expected, monkeypatch, tokenizer):
    seen: dict[int, str] = {}
    add = Words.add

    def noting(self, places_b, pyramids):
        seen.update((int(place), one.text()) for place, one in zip(places_b, pyramids, strict=False))
        add(self, places_b, pyramids)

    monkeypatch.setattr(Words, "add", noting)
    options = evaluate.Options(
        bundle=bundle,
        data=str(photographs),
        batch_size=2,
        skip=("stlpips", "frechet", "guidance", "codecs"),
    )
    result = evaluate.evaluate(tokenizer, evaluate._opened(tokenizer, options), options)
    order = np.random.default_rng(0).permutation(len(expected))
    assert [seen[place] for place in range(len(order))] == [list(expected.values())[i] for i in order]
    assert result["image_size"] == SIDE
    assert np.isfinite(result["prefixes"][-1]["psnr"])


def test_of_the_experiments(tokenizer, photographs, expected, tmp_path):
    examples = labelled(photographs)
    pyramids = Pyramids(tokenizer, examples, tmp_path)([one.image_key for one in examples.examples])
    assert {key: pyramid.text() for key, pyramid in pyramids.items()} == expected
