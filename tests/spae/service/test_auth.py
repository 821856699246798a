"""Keys, limits of each, local names; and which settings are refused."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_tokenizer import FakeTokenizer
from some_images import encoded
from starlette.testclient import TestClient

from spae.errors import InputError
from spae.service.app import create_app
from spae.service.auth import Keys
from spae.service.settings import Settings, is_loopback

KEY, OTHER = "spae-0123456789abcdef", "another-key-of-some-length"
PATIENCE_S = 20


@pytest.fixture
def keys_file(tmp_path):
    digest = hashlib.sha256(OTHER.encode()).hexdigest()
    path = tmp_path / "keys"
    path.write_text(f"# who may call\n\n  {KEY}  \nsha256:{digest}\n")
    return path


def started(base_url="http://localhost", **settings) -> TestClient:
    return TestClient(create_app(Settings(**settings)), base_url=base_url)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_only_known_keys_get_in(fakes, keys_file):
    with started("http://spae.example.org", host="0.0.0.0", api_keys_file=str(keys_file)) as client:
        for key in (KEY, OTHER):
            assert client.get("/v1/models", headers=bearer(key)).status_code == 200
            assert client.get("/v1/models", headers={"Authorization": f"bearer  {key}"}).status_code == 200
        digest = hashlib.sha256(OTHER.encode()).hexdigest()
        wrong = ("", KEY[:-1], KEY + "x", KEY.upper(), digest, f"sha256:{digest}", "k\u00e9y")
        for headers in (
            {},
            {"Authorization": KEY},
            {"Authorization": f"Basic {KEY}"},
            *map(bearer_bytes, wrong),
        ):
            for path in ("/v1/models", "/metrics", "/v1/nothing"):
                answer = client.get(path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["type"] == "authentication_error"
            answer = client.post("/v1/tokenize", files={"image": encoded()}, headers=headers)
            assert answer.status_code == 401
        for path in ("/health", "/health/live", "/openapi.json"):
            assert client.get(path).status_code == 200


def bearer_bytes(key: str) -> dict[str, bytes]:
    return {"Authorization": b"Bearer " + key.encode()}


def test_the_keys_themselves_are_not_kept(keys_file):
    keys = Keys.read(keys_file)
    assert KEY not in str(vars(keys))
    assert [keys.find(KEY), keys.find(OTHER), keys.find("no")] == [0, 1, None]


@pytest.mark.parametrize(
    "line", ["short", "with a space in the middle", "sha256:abc", "sha256:" + "A" * 64, "ké" * 9]
)
def test_bad_lines_of_the_file_are_named_but_not_shown(tmp_path, line):
    path = tmp_path / "keys"
    path.write_text(f"{KEY}\n{line}\n")
    with pytest.raises(InputError, match="line 2: wanted a key") as refused:
        Keys.read(path)
    assert line not in str(refused.value)


def test_a_file_without_keys(tmp_path):
    path = tmp_path / "keys"
    with pytest.raises(InputError, match="cannot read the keys"):
        Keys.read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not text in UTF-8"):
        Keys.read(path)
    path.write_text("# none yet\n")
    with pytest.raises(InputError, match="at least one key"):
        create_app(Settings(api_keys_file=str(path)))


def test_a_key_has_so_many_requests_at_a_time(fakes, keys_file, monkeypatch):
    gate, begun = threading.Event(), threading.Semaphore(0)
    parse = FakeTokenizer.parse

    def slow(self, text, layers=None):
        begun.release()
        assert gate.wait(PATIENCE_S)
        return parse(self, text, layers)

    monkeypatch.setattr(FakeTokenizer, "parse", slow)
    with (
        started(api_keys_file=str(keys_file), max_concurrent_per_key=2) as client,
        ThreadPoolExecutor(2) as pool,
    ):

        def ask(key):
            return client.post("/v1/detokenize", json={"text": "snow"}, headers=bearer(key))

        running = [pool.submit(ask, KEY) for _ in range(2)]
        for _ in running:
            assert begun.acquire(timeout=PATIENCE_S)
        refused = ask(KEY)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "too_many_requests"
        # Another key is not held up, and neither is what needs none.
        assert client.get("/v1/models", headers=bearer(OTHER)).status_code == 200
        assert client.get("/health").status_code == 200
        gate.set()
        assert [one.result(PATIENCE_S).status_code for one in running] == [200, 200]
        assert ask(KEY).status_code == 200


def test_a_local_service_answers_only_to_local_names(fakes, keys_file):
    with started() as client:
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST", "127.0.0.7:80", "localhost."):
            assert client.get("/v1/models", headers={"Host": host}).status_code == 200
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "", "10.0.0.1"):
            for path in ("/v1/models", "/", "/health"):
                answer = client.get(path, headers={"Host": host})
                assert answer.status_code == 421
                assert "answers only as localhost" in answer.json()["error"]["message"]
    for settings in ({"no_auth": True}, {"api_keys_file": str(keys_file)}):
        with started(**settings) as client:
            headers = {"Host": "spae.example"} | bearer(KEY)
            assert client.get("/v1/models", headers=headers).status_code == 200


def test_other_origins_are_answered_only_when_named(fakes):
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    with started() as client:
        assert "access-control-allow-origin" not in client.get("/health", headers=asked).headers
        assert client.options("/v1/tokenize", headers=asked).status_code == 405
    with started(cors_origins=("https://example.org",)) as client:
        # As browsers ask before a call of OpenAI's client, which adds headers of its own.
        own = {"Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang"}
        answer = client.options("/v1/tokenize", headers=asked | own)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://example.org"
        other = client.get("/health", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": "0.0.0.0"}, "others can reach 0.0.0.0"),
        ({"host": "::"}, "others can reach ::"),
        ({"host": "192.168.1.7"}, "others can reach"),
        ({"host": "spae.example.org"}, "others can reach"),
        ({"host": ""}, "others can reach"),
        ({"no_auth": True, "api_keys_file": "keys"}, "got both"),
        ({"port": 65536}, "port from 0"),
        ({"port": -1}, "port from 0"),
        ({"timeout_s": 0}, "a timeout above 0"),
        ({"timeout_s": float("nan")}, "a timeout above 0"),
        ({"queue": 3}, "queue of at least max_images"),
        ({"max_images": 0}, "max_images of at least 1"),
        ({"max_wait_ms": -1}, "max_wait_ms from 0"),
        ({"upstream": "localhost:8080"}, "wanted an upstream such as"),
        ({"cors_origins": ("*",)}, "by name"),
        ({"max_held_bytes": 5}, "one request must fit"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings)


def test_loopback():
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost", "Localhost."):
        assert is_loopback(host)
        Settings(host=host)
    for host in ("0.0.0.0", "::", "128.0.0.1", "localhost.example", "127.0.0.1.nip.io"):
        assert not is_loopback(host)
    Settings(host="0.0.0.0", no_auth=True)
    Settings(host="0.0.0.0", api_keys_file="keys")
