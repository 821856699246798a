"""Metrics and logs: what is counted, and that nothing of a user's gets in."""

import json
import logging

import pytest
from some_images import data_url, encoded
from starlette.testclient import TestClient

from spae.service.app import create_app
from spae.service.settings import Settings
from spae.service.telemetry import JsonLines

KEY = "spae-very-secret-0123456789"
WORDS = "Black zanzibar snow"


@pytest.fixture
def logs(caplog):
    """Every line that has been logged, as it would be written."""
    caplog.set_level(logging.DEBUG)

    def lines():
        return [
            json.loads(JsonLines().format(record)) for record in caplog.records if record.name[:4] == "spae"
        ]

    return lines


def value(client, name: str, **labels) -> float | None:
    return client.app.state.service.telemetry.registry.get_sample_value(name, labels)


def test_what_is_counted(client):
    image = encoded()
    client.post("/v1/tokenize", json={"images": [data_url(image)] * 3, "layers": 2})
    client.post("/v1/detokenize", json={"text": "Black, coal"})
    client.post("/v1/tokenize", json={})
    client.get("/wp-admin/secret")
    route = {"method": "POST", "route": "/v1/tokenize"}
    assert value(client, "spae_requests_total", status="200", **route) == 1
    assert value(client, "spae_requests_total", status="422", **route) == 1
    assert value(client, "spae_requests_total", method="GET", route="other", status="404") == 1
    assert value(client, "spae_request_seconds_count", route="/v1/tokenize") == 2
    assert value(client, "spae_images_total", direction="in") == 3
    assert value(client, "spae_images_total", direction="out") == 1
    assert value(client, "spae_words_total", direction="out") == 15
    assert value(client, "spae_words_total", direction="in") == 5
    assert value(client, "spae_batch_images_sum", work="encode") == 3
    assert value(client, "spae_repairs_total", kind="missing") == 3
    for stage in ("read", "open", "queue", "encode", "decode", "parse", "write"):
        assert value(client, "spae_stage_seconds_count", stage=stage) >= 1, stage
    assert value(client, "spae_queue_images") == 0
    text = client.get("/metrics").text
    assert 'spae_requests_total{method="POST",route="/v1/tokenize",status="200"} 1.0' in text


def test_a_request_id_goes_in_and_out(client, logs):
    given = client.get("/health", headers={"X-Request-ID": "run-7_a.b"})
    assert given.headers["x-request-id"] == "run-7_a.b"
    made = [
        client.get("/health", headers={"X-Request-ID": bad}).headers["x-request-id"]
        for bad in ("", "a b", "x" * 65)
    ]
    assert all(len(one) == 32 for one in made)
    assert len(set(made)) == 3
    error = client.get("/nothing", headers={"X-Request-ID": "e1"})
    assert error.headers["x-request-id"] == "e1"
    requests = [line for line in logs() if line["event"] == "request"]
    assert [line["request_id"] for line in requests] == ["run-7_a.b", *made, "e1"]
    assert requests[-1]["status"] == 404
    assert requests[0]["route"] == "/health"


def test_nothing_of_a_user_is_logged_or_counted(fakes, tmp_path, logs, monkeypatch):
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    image = encoded()
    with TestClient(create_app(Settings(api_keys_file=str(keys)))) as client:
        client.headers = {"Authorization": f"Bearer {KEY}"}
        client.post("/v1/tokenize", files={"image": ("holiday.png", image)})
        client.post("/v1/tokenize", json={"image": data_url(image)})
        client.post("/v1/tokenize", json={"image": "zanzibar"})
        client.post("/v1/detokenize", json={"text": WORDS})
        client.get("/v1/zanzibar?holiday=1")
        client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}wrong"})
        client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": WORDS}]})

        def broken(text, layers=None):
            raise RuntimeError(f"cannot read {text}")

        monkeypatch.setattr(client.app.state.service.tokenizer, "parse", broken, raising=False)
        answer = client.post("/v1/detokenize", json={"text": WORDS})
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        metrics = client.get("/metrics").text
    lines = logs()
    assert sum(line["event"] == "request" for line in lines) == 9
    (failure,) = [line for line in lines if line["event"] == "a request failed"]
    assert failure["error"] == "RuntimeError"
    assert any("broken" in place for place in failure["at"])
    assert failure["request_id"] == answer.headers["x-request-id"]
    for secret in ("zanzibar", "holiday", KEY, data_url(image)[30:60], "Bearer"):
        assert secret not in json.dumps(lines) + metrics + answer.text


def test_logs_of_others_are_json_without_their_messages():
    try:
        raise ValueError("zanzibar")
    except ValueError as error:
        record = logging.makeLogRecord(
            {
                "name": "somebody.else",
                "msg": "zanzibar failed",
                "levelname": "ERROR",
                "pathname": "else.py",
                "exc_info": (type(error), error, error.__traceback__),
            }
        )
    line = json.loads(JsonLines().format(record))
    assert (line["event"], line["level"], line["error"]) == ("a library's message", "error", "ValueError")
    assert "zanzibar" not in json.dumps(line)
