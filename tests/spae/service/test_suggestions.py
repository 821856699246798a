"""What the page suggests instead of a word: rivals with tokenize, and a look into the vocabulary."""

import pytest
from fake_tokenizer import WORDS, FakeTokenizer
from some_images import data_url, encoded

from spae.images import open_image

FILE = encoded((40, 24))


def test_rivals_come_with_the_words(client):
    plain = client.post("/v1/tokenize", json={"image": data_url(FILE)}).json()["data"][0]
    found = client.post("/v1/tokenize", json={"image": data_url(FILE), "rivals": 3}).json()["data"][0]
    _, expected = FakeTokenizer().rivals(open_image(FILE, 16), 3)
    for layer, ids in zip(found["layers"], expected, strict=True):
        assert layer.pop("rivals") == [[WORDS[i] for i in few] for few in ids.reshape(-1, 3)]
    assert found == plain


def test_rivals_of_a_form_and_of_a_prefix(client):
    by_form = client.post("/v1/tokenize", files={"image": FILE}, data={"rivals": "7", "layers": "2"}).json()[
        "data"
    ][0]
    by_json = client.post("/v1/tokenize", json={"image": data_url(FILE), "rivals": 7, "layers": 2}).json()[
        "data"
    ][0]
    assert by_form == by_json
    assert [len(layer["rivals"]) for layer in by_form["layers"]] == [1, 4]
    for layer in by_form["layers"]:
        for word, others in zip(layer["words"], layer["rivals"], strict=True):
            assert sorted([word, *others]) == sorted(WORDS)


@pytest.mark.parametrize("rivals", [0, 9, "3", 1.5])
def test_counts_of_rivals_that_there_are_not(client, rivals):
    answer = client.post("/v1/tokenize", json={"image": data_url(FILE), "rivals": rivals})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "rivals"
    answer = client.post(
        "/v1/tokenize", files={"image": FILE}, data={"rivals": "0" if rivals == "3" else rivals}
    )
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "rivals"


def test_rivals_are_of_one_image(client):
    body = {"images": [data_url(FILE)] * 2, "rivals": 3}
    error = client.post("/v1/tokenize", json=body).json()["error"]
    assert (error["code"], error["param"]) == ("several_images", "rivals")
    assert "got 2" in error["message"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", list(WORDS)),
        ("?limit=2", ["black", "coal"]),
        ("?prefix=", list(WORDS)),
        ("?prefix=S", ["snow"]),
        ("?prefix=snows", []),
        ("?prefix=%00", []),
    ],
)
def test_words_of_the_vocabulary(client, query, words):
    assert client.get(f"/v1/vocabulary{query}").json() == {
        "object": "list",
        "model": "default",
        "data": words,
    }


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("prefix=" + "a" * 101, "prefix")],
)
def test_questions_about_the_vocabulary_that_make_no_sense(client, query, param):
    answer = client.get(f"/v1/vocabulary?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param


def test_a_prompt_is_the_tokenizers(client):
    tokenizer = FakeTokenizer()
    for query, expected in (
        ("", tokenizer.prompt()),
        ("?layers=3", tokenizer.prompt(3)),
        ("?format=json&layers=1", tokenizer.prompt(1, json=True)),
    ):
        assert client.get(f"/v1/prompt{query}").json() == {
            "object": "prompt",
            "model": "default",
            "text": expected,
        }


@pytest.mark.parametrize(
    ("query", "param"),
    [("layers=0", "layers"), ("layers=4", "layers"), ("layers=x", "layers"), ("format=xml", "format")],
)
def test_prompts_that_there_are_not(client, query, param):
    answer = client.get(f"/v1/prompt?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param


def test_photographs_to_try_with(client):
    answer = client.get("/photographs/cat.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert client.post("/v1/tokenize", files={"image": answer.content}).status_code == 200
