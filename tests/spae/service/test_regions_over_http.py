"""Words of regions over HTTP: the right pixels are looked at, and every bad box is refused by its place."""

import io

import numpy as np
import pytest
from PIL import Image
from some_images import data_url, encoded
from starlette.testclient import TestClient

import spae
from spae.service.app import create_app
from spae.service.regions import LARGEST_SIDE
from spae.service.settings import Settings


def _halves(width: int = 40, height: int = 20, **options) -> str:
    """Black on the left, white on the right."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, width // 2 :] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return data_url(buffer.getvalue())


def _ask(client, regions, image=None):
    return client.post("/v1/regions", json={"image": image or _halves(), "regions": regions})


def test_words_of_each_region(client):
    answer = _ask(client, [[0, 0, 10, 20], [25.5, 3, 1, 1], [0, 0, 40, 20]]).json()
    assert (answer["object"], answer["model"]) == ("list", "default")
    first, second, whole = answer["data"]
    assert first == {
        "object": "region",
        "index": 0,
        "region": [0, 0, 10, 20],
        "words": ["black", "coal", "dusk", "grey", "mist"],
    }
    assert second["words"][0] == "white"
    assert whole["words"][0] == "grey"


def test_large_images_are_reduced_and_their_boxes_with_them(client):
    large = _halves(3 * LARGEST_SIDE, LARGEST_SIDE)
    width, height = 3 * LARGEST_SIDE, LARGEST_SIDE
    answer = _ask(client, [[0, 0, width / 2, height], [width - 3, height - 3, 3, 3]], large).json()
    assert [one["words"][0] for one in answer["data"]] == ["black", "white"]


def test_an_image_that_is_stored_turned_is_measured_upright(client):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what was left is on top
    turned = _halves(exif=exif)
    answer = _ask(client, [[0, 0, 20, 10], [0, 25, 20, 15]], turned).json()
    assert [one["words"][0] for one in answer["data"]] == ["black", "white"]
    assert _ask(client, [[0, 0, 40, 20]], turned).status_code == 422


BAD = [
    ([[0, 0, 41, 20]], "regions[0]: wanted a box (x, y, width, height) on the image of 40 x 20 pixels"),
    ([[0, 0, 5, 5], [-1, 0, 5, 5]], "regions[1]: wanted a box"),
    ([[5, 5, 0, 5]], "regions[0]: wanted a box"),
    ([[15, 5, -10, 5]], "regions[0]: wanted a box"),
    ([[1, 2, 3]], "regions[0]: wanted a box of four numbers"),
    ([[0, 0, 5, 5]] * 50, "wanted at most 32 regions, got 50"),
]


@pytest.mark.parametrize(("regions", "message"), BAD)
def test_bad_boxes(client, regions, message):
    answer = _ask(client, regions)
    assert answer.status_code == 422
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize("regions", [[], None, [["0", 0, 5, 5]], [[True, 0, 5, 5]], "all", [5]])
def test_what_are_no_boxes(client, regions):
    answer = _ask(client, regions)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith("regions")


def test_the_image_is_checked_like_any(client):
    assert _ask(client, [[0, 0, 1, 1]], data_url(b"GIF89a")).status_code == 415
    damaged = _ask(client, [[0, 0, 1, 1]], data_url(encoded()[:60]))
    assert damaged.status_code == 422
    assert damaged.json()["error"]["code"] == "invalid_image"


def test_a_tokenizer_without_words_of_regions(fakes, monkeypatch):
    monkeypatch.setattr(type(spae.load("default")), "pursuit", None)
    with TestClient(create_app(Settings()), base_url="http://localhost") as client:
        answer = _ask(client, [[0, 0, 5, 5]])
        assert answer.status_code == 422
        assert "no words of regions" in answer.json()["error"]["message"]
        assert client.post("/v1/tokenize", json={"image": _halves()}).status_code == 200


def test_a_region_of_a_reduced_image_stays_one(client):
    """What is allowed on the image as sent is so on the one that is looked at."""
    image = _halves(4 * LARGEST_SIDE, 10)
    answer = _ask(client, [[0, 0, 0.002, 1], [4 * LARGEST_SIDE - 0.002, 9.99, 0.002, 0.01]], image)
    assert answer.status_code == 200
    assert [one["words"][0] for one in answer.json()["data"]] == ["black", "white"]
