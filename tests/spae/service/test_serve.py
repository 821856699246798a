"""`spae serve` as a process: a real socket, signals; and what it refuses in one line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from fake_tokenizer import FakeTokenizer
from PIL import Image
from some_images import encoded

from spae.cli import main
from spae.images import open_image

PATIENCE_S = 60
PROGRAM = """
import sys
import spae
from fake_tokenizer import load_fake
from spae.cli import main
spae.load = load_fake
sys.exit(main())
"""
# It is not asked for anything when the service starts.
UPSTREAM = ["--upstream", "http://127.0.0.1:9/v1"]


@pytest.fixture
def start():
    """Starts a service on the fake tokenizer; gives the process and its address."""
    running = []

    def start(*options):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "serve", "--port", "0", *UPSTREAM, *options],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        line = process.stdout.readline()
        assert line.startswith("spae: ready at http://127.0.0.1:"), line + process.stderr.read()
        return process, line.split()[3]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_it_serves_and_finishes_what_is_in_flight(start):
    process, url = start()
    with httpx2.Client(base_url=url, timeout=PATIENCE_S) as client:
        assert client.get("/health").json()["status"] == "ready"
        # Pillow warns of it, in no place of its own.
        assert client.post("/v1/tokenize", files={"image": with_broken_exif()}).status_code == 200
        words = client.post("/v1/tokenize", files={"image": encoded()}).json()["data"][0]
        assert words["text"] == FakeTokenizer().encode(open_image(encoded())).text()
        answer = client.post("/v1/detokenize", json={"text": words["text"]}, headers={"Accept": "image/png"})
        assert answer.content[:4] == b"\x89PNG"
        models = client.get("/v1/models").json()
        assert models["data"][0]["id"] == "default"
        assert models["chat_error"]  # nobody is there

    body = json.dumps({"text": words["text"]}).encode()
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        head = f"POST /v1/detokenize HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:5])
        _wait_for_request(url)
        process.send_signal(signal.SIGTERM)
        _wait_until_closed(host, int(port))
        connection.sendall(body[5:])
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"data:image/png;base64," in answer
    assert process.wait(PATIENCE_S) == 0
    lines = [json.loads(line) for line in process.stderr.read().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert requests[-1]["route"] == "/v1/detokenize"
    assert requests[-1]["status"] == 200
    assert {line["level"] for line in lines} - {"warning"} == {"info"}
    assert not any("Truncated" in json.dumps(line) for line in lines)


def with_broken_exif() -> bytes:
    """A photograph whose EXIF says that it is longer than it is."""
    exif = Image.Exif()
    exif[0x010E] = "a description"
    exif[0x0112] = 6
    return encoded(form="JPEG", exif=exif.tobytes()[:-12])


def test_the_image_with_broken_exif_makes_pillow_warn():
    with pytest.warns(UserWarning, match="Truncated"):
        open_image(with_broken_exif())


def _wait_for_request(url: str) -> None:
    """Until the half request on the other connection has a place."""
    with httpx2.Client(base_url=url, timeout=PATIENCE_S) as client:
        while "spae_queue_images 1.0" not in client.get("/metrics").text:
            time.sleep(0.05)


def _wait_until_closed(host: str, port: int) -> None:
    while True:
        try:
            socket.create_connection((host, port), timeout=PATIENCE_S).close()
        except OSError:
            return


def test_interrupted(start):
    process, _ = start("--timeout", "5")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    assert "Traceback" not in process.stderr.read()


def fails(capsys, *options: str) -> str:
    """The last line of a service that does not start."""
    assert main(["serve", "--port", "0", *options]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("spae: ")
    return line


def test_what_is_refused_before_it_starts(capsys, tmp_path, monkeypatch):
    assert "(--no-auth)" in fails(capsys, "--host", "0.0.0.0")
    assert "cannot read the keys" in fails(capsys, "--api-keys", str(tmp_path / "none"))
    assert "half a surrogate pair" in fails(capsys, "--preamble", "\ud800")
    assert "--upstream-model" in fails(capsys, "--served-model-name", "gpt-4o", *UPSTREAM)
    assert "wanted an upstream such as" in fails(capsys, "--upstream", "example.org")
    assert "cannot listen on 127.0.0.300" in fails(capsys, "--host", "127.0.0.300", "--no-auth")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "choose another --host or --port" in fails(capsys, "--port", port)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "spae.service.serve", raising=False)
    assert "pip install 'spae[serve]'" in fails(capsys)


def test_a_bundle_that_is_not_there(capsys, tmp_path):
    assert main(["serve", "--port", "0", "--bundle", str(tmp_path / "none"), *UPSTREAM]) == 1
    *logged, line = capsys.readouterr().err.splitlines()
    assert line.startswith("spae: wanted a bundle")
    # Of the server's start at most (inspect-ai turns these logs off where it ran before), and no traceback.
    assert all(json.loads(one)["level"] == "info" for one in logged)
