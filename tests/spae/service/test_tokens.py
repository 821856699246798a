"""Tokenize, detokenize and what stands around them, over HTTP: what comes out, and what every wrong input gets."""

import base64
import io
import json

import httpx2
import numpy as np
import pytest
from fake_tokenizer import WORDS, FakeTokenizer
from PIL import Image
from some_images import data_url, encoded
from starlette.testclient import TestClient

from spae.images import open_image
from spae.service.app import create_app
from spae.service.schemas import EXAMPLE_IMAGE
from spae.service.settings import Settings

IMAGE = encoded()
TOKENIZER = FakeTokenizer()


def started(**settings) -> TestClient:
    return TestClient(create_app(Settings(**settings)), base_url="http://localhost")


def refused(response, status: int, code: str, param: str | None = None) -> str:
    """Checks an error's shape; gives its message."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    return error["message"]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_file_becomes_the_words_of_its_image(client, form):
    file = encoded((40, 24), form)
    expected = TOKENIZER.encode(open_image(file, 16))
    found = client.post("/v1/tokenize", files={"image": ("a", file)}, data={"layers": "2"}).json()
    assert found["model"] == "default"
    (entry,) = found["data"]
    assert entry["layers"] == expected.json(2)
    assert (entry["index"], entry["count"], entry["text"]) == (0, 5, expected.text(2))
    by_url = client.post("/v1/tokenize", json={"image": data_url(file, form.lower())}).json()
    assert by_url["data"][0]["layers"] == expected.json()


def test_several_images_keep_their_order(client):
    files = [encoded((16, 16), seed=seed) for seed in range(5)]
    expected = [TOKENIZER.encode(open_image(file)).text() for file in files]
    form = client.post("/v1/tokenize", files=[("images", ("x", file)) for file in files]).json()
    urls = client.post("/v1/tokenize", json={"images": [data_url(file) for file in files]}).json()
    assert [one["text"] for one in form["data"]] == expected
    assert urls == form
    assert [one["index"] for one in form["data"]] == [0, 1, 2, 3, 4]


def test_there_and_back(client):
    words = client.post("/v1/tokenize", files={"image": IMAGE}).json()["data"][0]
    pyramid = TOKENIZER.encode(open_image(IMAGE))
    written = {
        "text": words["text"],
        "words": [layer["words"] for layer in words["layers"]],
        "ids": [layer["ids"] for layer in words["layers"]],
    }
    for key, value in written.items():
        for layers in (None, 1, 2, 3):
            answer = client.post("/v1/detokenize", json={key: value, "layers": layers}).json()
            (image,) = answer["data"]
            head, _, data = image["url"].partition(",")
            assert head == "data:image/png;base64"
            np.testing.assert_array_equal(
                pixels(base64.b64decode(data)), TOKENIZER.decode(pyramid, layers or 3)
            )
            assert len(image["layers"]) == (layers or 3)
            # More words than the layers hold are a surplus, in words; ids are exact.
            assert [r["kind"] for r in image["repairs"]] == (
                ["surplus"] if key != "ids" and layers in (1, 2) else []
            )
    flat = client.post("/v1/detokenize", json={"ids": [i for layer in written["ids"] for i in layer]}).json()
    assert flat["data"][0]["text"] == words["text"]


def test_repairs_are_told(client):
    (image,) = client.post("/v1/detokenize", json={"text": "1. Black, cooal"}).json()["data"]
    found = {(repair["kind"], repair["found"], repair["used"]) for repair in image["repairs"]}
    assert ("case", "Black", "black") in found
    assert ("unknown", "cooal", "coal") in found
    assert image["text"].split()[:2] == ["black", "coal"]
    assert image["count"] == len(image["text"].split()) == 5


def test_png_for_who_asks_for_it(client):
    def ask(accept):
        return client.post(
            "/v1/detokenize", json={"text": "White snow"}, headers={"Accept": accept} if accept else {}
        )

    for accept in ("image/png", "image/*", "image/png, application/json;q=0.9", "text/html, image/png;q=0.1"):
        answer = ask(accept)
        assert answer.headers["content-type"] == "image/png"
        assert pixels(answer.content).shape == (16, 16, 3)
        assert answer.headers["x-spae-repairs"] == "4"
    for accept in (
        "*/*",
        "application/json",
        "image/png;q=0.5, application/json",
        "image/jpeg",
        "image/png;q=x",
    ):
        assert ask(accept).headers["content-type"] == "application/json"
    several = {"inputs": [{"text": "snow"}, {"text": "coal"}]}
    answer = client.post("/v1/detokenize", json=several, headers={"Accept": "image/png"})
    assert "got 2: accept application/json" in refused(answer, 406, "several_images")


def test_several_inputs_of_every_kind(client):
    inputs = [{"text": "snow"}, {"ids": [1, 2, 3, 4, 5]}, {"words": ["coal"]}, {"ids": [[3]]}]
    data = client.post("/v1/detokenize", json={"inputs": inputs}).json()["data"]
    assert [one["index"] for one in data] == [0, 1, 2, 3]
    assert [one["text"] for one in data] == ["snow", " ".join(WORDS[1:6]), "coal", "grey"]
    for one in data:
        expected = TOKENIZER.decode(TOKENIZER.parse(one["text"]).pyramid)
        np.testing.assert_array_equal(pixels(base64.b64decode(one["url"].partition(",")[2])), expected)


@pytest.mark.parametrize(
    ("body", "status", "code", "param", "message"),
    [
        ({}, 422, "no_image", "image", "got both or neither"),
        ({"image": data_url(IMAGE), "images": [data_url(IMAGE)]}, 422, "no_image", "image", "both"),
        ({"images": []}, 422, "invalid_value", "images", "at least 1 item"),
        ({"image": data_url(IMAGE), "layer": 2}, 422, "invalid_value", "layer", "not permitted"),
        ({"image": data_url(IMAGE), "layers": 0}, 422, "invalid_value", "layers", "greater than or equal"),
        ({"image": data_url(IMAGE), "layers": 4}, 422, "invalid_value", "layers", "ask for 1 to 3"),
        ({"image": data_url(IMAGE), "layers": "2"}, 422, "invalid_value", "layers", "valid integer"),
        ({"image": data_url(IMAGE), "layers": True}, 422, "invalid_value", "layers", "valid integer"),
        ({"image": 3}, 422, "invalid_value", "image", "valid string"),
        ({"image": "https://example.org/cat.jpg"}, 422, "invalid_image_url", "image", "image: wanted"),
        ({"image": "data:image/png,abc"}, 415, "unsupported_image", "image", "image: wanted a JPEG"),
        ({"image": "data:image/png;base64,a*b="}, 422, "invalid_image_url", "image", "not base64"),
        ({"image": data_url(b"<svg>")}, 415, "unsupported_image", "image", "convert it"),
        ({"image": data_url(b"")}, 422, "invalid_image", "image", "empty"),
        ({"image": data_url(b"GIF89a" + bytes(20))}, 415, "unsupported_image", "image", "convert it"),
        ({"image": data_url(IMAGE[: len(IMAGE) // 2])}, 422, "invalid_image", "image", "damaged"),
        ({"images": [data_url(IMAGE), data_url(IMAGE[:50])]}, 422, "invalid_image", "images.1", "image is"),
        ({"images": [data_url(IMAGE)] * 17}, 413, "too_many_images", "images", "at most 16"),
        ([1], 422, "invalid_value", None, "the body"),
    ],
)
def test_wrong_images_in_json(client, body, status, code, param, message):
    assert message in refused(client.post("/v1/tokenize", json=body), status, code, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"text": "snow \ud800"}, "text"),
        ({"inputs": [{"text": "snow"}, {"words": ["coal", "\udfff"]}]}, "inputs[1].words[1]"),
    ],
)
def test_words_that_are_no_text(client, body, param):
    headers = {"Content-Type": "application/json"}
    message = refused(
        client.post("/v1/detokenize", content=json.dumps(body), headers=headers), 400, "invalid_text", param
    )
    assert message.startswith(f"{param}: wanted Unicode text")
    raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    refused(client.post("/v1/detokenize", content=raw, headers=headers), 400, "invalid_json")


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "text", "got none"),
        ({"text": "snow", "ids": [1]}, "text", "got text and ids"),
        ({"text": "snow", "inputs": [{"text": "coal"}]}, "inputs", "got several"),
        ({"inputs": []}, "inputs", "at least 1"),
        ({"inputs": [{"text": "snow"}, {}]}, "inputs.1.text", "got none"),
        ({"text": ""}, "text", "got none"),
        ({"text": "xyzzyxyzzy qqqqqq"}, "text", "none of its words"),
        ({"text": "snow", "layers": 9}, "layers", "ask for 1 to 3"),
        ({"text": "a" * 70_000}, "text", "at most 65536"),
        ({"ids": [1, 2]}, "ids", "as whole layers hold, 1, 5, 21; got 2"),
        ({"ids": []}, "ids", "got 0"),
        ({"ids": [8]}, "ids", "ids from 0 to 7"),
        ({"ids": [1], "layers": 2}, "ids", "holds the first 1 of 3"),
        ({"inputs": [{"text": "snow"}, {"ids": [[1], [2]]}]}, "inputs.1.ids", "got 2"),
        ({"words": []}, "words", "got none"),
        ({"words": ["zzzzzzzz"]}, "words", "none of its words"),
    ],
)
def test_wrong_words(client, body, param, message):
    assert message in refused(client.post("/v1/detokenize", json=body), 422, "invalid_value", param)


def test_ids_of_a_wrong_type(client):
    for ids in ([-1], [1.5], ["1"], [True], [2**40], [[1], 2], "1"):
        answer = client.post("/v1/detokenize", json={"ids": ids})
        assert answer.status_code == 422
        assert answer.json()["error"]["param"].startswith("ids")


@pytest.mark.parametrize("path", ["/v1/tokenize", "/v1/detokenize"])
def test_bodies_that_are_no_json(client, path):
    def send(content, kind="application/json", **headers):
        return client.post(path, content=content, headers={"Content-Type": kind} | headers)

    for body in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        refused(send(body), 400, "invalid_json")
    assert "application/json" in refused(send(b"{}", "text/plain"), 415, "unsupported_media_type")
    refused(client.post(path), 415, "unsupported_media_type")
    message = refused(send(b"{}", **{"Content-Encoding": "gzip"}), 415, "unsupported_encoding")
    assert "not compressed" in message


def form(*parts: tuple[bytes, bytes], end=b"--b--\r\n") -> bytes:
    """A multipart body of (disposition parameters, data)."""
    body = b"".join(
        b"--b\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + data + b"\r\n"
        for head, data in parts
    )
    return body + end


@pytest.mark.parametrize(
    ("body", "status", "code", "param", "message"),
    [
        (form((b'name="image"', IMAGE), end=b""), 400, "invalid_form", None, "last boundary"),
        (b"no form", 400, "invalid_form", None, "damaged"),
        (b"", 400, "invalid_form", None, "last boundary"),
        (form((b'name="picture"; filename="a"', IMAGE)), 400, "invalid_form", None, "under the name image"),
        (form((b'name="layers"', b"2")), 422, "no_image", "image", "got none"),
        (form((b'name="image"', IMAGE), (b'name="layers"', b"two")), 422, "invalid_value", "layers", "whole"),
        (form((b'name="image"', IMAGE), (b'name="layers"', b"9")), 422, "invalid_value", "layers", "1 to 3"),
        (form((b'name="image"', IMAGE), (b'name="lay"', b"2")), 422, "invalid_value", "form", "another"),
        (form((b'name="image"', IMAGE), *[(b'name="layers"', b"2")] * 2), 400, "invalid_form", None, "twice"),
        (
            form((b'name="image"', IMAGE), (b'name="layers"', b"2" * 65)),
            422,
            "invalid_value",
            "form",
            "at most 64 bytes",
        ),
        (form((b'name="image"', b"")), 422, "invalid_image", "images.0", "empty"),
        (form(*[(b'name="image"', IMAGE)] * 17), 413, "too_many_images", "image", "at most 16"),
        (form((b"", IMAGE)), 422, "invalid_value", "form", "at most 64"),
    ],
)
def test_wrong_forms(client, body, status, code, param, message):
    answer = client.post(
        "/v1/tokenize", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert message in refused(answer, status, code, param)


def test_a_form_without_a_boundary(client):
    answer = client.post("/v1/tokenize", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert "no boundary" in refused(answer, 400, "invalid_form")


def sent_in_pieces(client, path: str, head: bytes, headers: dict[str, str]):
    """An answer to a body without an end, and how much of it was read."""
    read = 0
    messages = []

    async def receive():
        nonlocal read
        piece = head if read == 0 else b"A" * 1000
        read += len(piece)
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message):
        messages.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost")]
        + [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    client.portal.call(client.app, scope, receive, send)
    return httpx2.Response(messages[0]["status"], content=messages[1]["body"]), read


def test_limits_hold_while_a_body_comes(fakes):
    start = form((b'name="image"; filename="x"', b""), end=b"")[:-2]
    with started(max_image_bytes=20_000, max_request_bytes=50_000) as client:
        for head, kind, most, param in (
            (start, "multipart/form-data; boundary=b", 20_000, "image"),
            (b'{"image": "', "application/json", 50_000, None),
        ):
            answer, read = sent_in_pieces(client, "/v1/tokenize", head, {"Content-Type": kind})
            refused(answer, 413, "too_large", param)
            assert most <= read <= most + 2000
        # What is announced is believed.
        headers = {"Content-Type": "application/json", "Content-Length": "50001"}
        answer, read = sent_in_pieces(client, "/v1/detokenize", b"{", headers)
        refused(answer, 413, "too_large")
        assert read == 0
        large = {"image": data_url(IMAGE + bytes(20_000))}
        refused(client.post("/v1/tokenize", json=large), 413, "too_large", "image")
        exactly = {"image": data_url(IMAGE + bytes(20_000 - len(IMAGE)))}
        assert client.post("/v1/tokenize", json=exactly).status_code == 200
        assert client.app.state.service.memory.held == 0


def test_pixels_are_counted_before_they_are_decoded(fakes):
    with started(max_pixels=24 * 24) as client:
        assert client.post("/v1/tokenize", files={"image": encoded((24, 24))}).status_code == 200
        # Its header alone: had it been decoded, it would be "damaged".
        wide = encoded((25, 24))[:60]
        answer = client.post("/v1/tokenize", files={"image": wide})
        assert "25 x 24 pixels" in refused(answer, 422, "invalid_image", "images.0")


def test_bodies_together_are_bounded(fakes):
    with started(max_request_bytes=5000, max_held_bytes=5000, max_image_bytes=5000) as client:
        memory = client.app.state.service.memory
        with memory.share() as share:
            share.take(4000)
            answer = client.post("/v1/tokenize", files={"image": encoded()})
            refused(answer, 429, "overloaded")
        assert client.post("/v1/tokenize", files={"image": encoded()}).status_code == 200
        assert memory.held == 0


def test_a_full_service_says_so_before_it_reads(fakes):
    with started(queue=2, max_images=2) as client:
        batcher = client.app.state.service.batcher
        with batcher.places(2):
            for path in ("/v1/tokenize", "/v1/detokenize"):
                answer, read = sent_in_pieces(client, path, b"{", {"Content-Type": "application/json"})
                refused(answer, 429, "overloaded")
                assert read == 0
                answer = client.post(path, json={})
                assert answer.json()["error"]["type"] == "rate_limit_error"
                assert int(answer.headers["retry-after"]) >= 1
        with batcher.places(1):
            two = {"images": [data_url(IMAGE)] * 2}
            refused(client.post("/v1/tokenize", json=two), 429, "overloaded")
            assert client.post("/v1/tokenize", files={"image": IMAGE}).status_code == 200
        assert batcher._taken == 0


def test_a_crash_is_503_and_it_recovers(fakes, monkeypatch):
    with started() as client:
        state = client.app.state.service

        def broken(images):
            raise RuntimeError("the device is gone")

        state.tokenizer.encode = broken
        answer = client.post("/v1/tokenize", files={"image": IMAGE})
        assert "started again" in refused(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/health").status_code == 503
        assert client.get("/health").json()["status"] == "unavailable"
        assert client.get("/health/live").status_code == 200
        del state.tokenizer.encode
        for _ in range(1000):
            if client.get("/health").status_code == 200:
                break
        assert client.post("/v1/tokenize", files={"image": IMAGE}).status_code == 200


def test_models(client):
    found = client.get("/v1/models").json()
    assert [model["id"] for model in found["data"]] == ["default", "silent"]
    assert found["chat_error"] is None
    tokenizer = found["data"][0]["tokenizer"]
    assert tokenizer == {
        "image_size": 16,
        "layers": [[1, 1], [2, 2], [4, 4]],
        "words_per_image": 21,
        "meaning_layers": 2,
        "vocabulary": 8,
        "fingerprint": "fake",
    }


def test_what_is_not_there(client):
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/tokenize", 405),
        ("POST", "/health", 405),
    ):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_the_examples_of_the_documentation_run(client):
    document = client.get("/openapi.json").json()
    for path in ("/v1/tokenize", "/v1/detokenize"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        answer = client.post(path, json=content["example"])
        if "dog" in json.dumps(content["example"]):
            # Its words are the default tokenizer's, not the fake one's.
            answer = client.post(path, json=content["example"] | {"text": "snow"})
        assert answer.status_code == 200, answer.text
    assert pixels(base64.b64decode(EXAMPLE_IMAGE.partition(",")[2])).shape == (8, 8, 3)
    for schema in (
        "TokenizeRequest",
        "DetokenizeRequest",
        "WrittenPyramid",
        "ErrorResponse",
        "TokenizeResponse",
    ):
        assert schema in document["components"]["schemas"]
