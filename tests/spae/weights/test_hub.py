"""Models by their names on a hub: the real client of huggingface_hub against a server on this machine."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from spae import frozen_lm
from spae.errors import InputError
from spae.frozen_lm.model_file import read_word_source
from spae.frozen_lm.tokenizer_file import read_tokenizer
from spae.weights.hub import locate

TINY = Path(__file__).parents[2] / "golden" / "frozen_lm" / "qwen2"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORIES = {
    "org/tiny": {path.name: path.read_bytes() for path in TINY.iterdir()} | {"onnx/model.json": b"{}"},
    "org/one-file": {"small/model.gguf": b"GGUF and so on", "README.md": b""},
}


class Hub(BaseHTTPRequestHandler):
    """`REPOSITORIES` as the hub serves them."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        found = [one for one in REPOSITORIES if f"/{one}/" in f"{path}/"]
        files = REPOSITORIES[found[0]] if found else {}
        name = path.partition("/resolve/")[2].partition("/")[2]
        if not found:
            self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in path:
            tree = [
                {"type": "file", "path": one, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for one, data in files.items()
            ]
            self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/api/"):
            about = {"id": found[0], "sha": COMMIT, "siblings": [{"rfilename": one} for one in files]}
            self._send(200, json.dumps(about).encode(), {"Content-Type": "application/json"})
        elif name in files:
            tag = hashlib.sha1(files[name]).hexdigest()
            self._send(200, files[name], {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
        else:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})

    def _send(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A server, and an empty cache; as in the environment that the client reads when it is imported."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield server
    server.shutdown()
    server.server_close()


def test_a_folder_and_a_file_are_fetched_once_and_their_revision_is_told(hub):
    lm = frozen_lm.load("hf:org/tiny")
    assert (lm.name, lm.source, lm.revision) == ("tiny", "hf:org/tiny", COMMIT)
    assert lm.config == frozen_lm.load(TINY).config
    file = locate("hf:org/one-file/small/model.gguf")
    assert file.path.read_bytes() == b"GGUF and so on"
    assert (file.name, file.revision) == ("model", COMMIT)
    provenance = read_word_source("hf:org/tiny").provenance
    assert (provenance["hub"], provenance["revision"]) == ("hf:org/tiny", COMMIT)

    hub.shutdown()  # from now on the cache must do
    hub.server_close()
    folder = locate("hf:org/tiny")
    assert folder.revision == COMMIT
    assert {one.name for one in folder.path.iterdir()} == {one.name for one in TINY.iterdir()}
    assert locate("hf:org/one-file/small/model.gguf") == file
    with pytest.raises(
        InputError, match=r"wanted the file other\.gguf of org/tiny; .* not in the cache.* bring it"
    ):
        locate("hf:org/tiny/other.gguf")
    with pytest.raises(InputError, match=r"wanted the files of org/more .* bring it"):
        locate("hf:org/more")


def test_of_a_tokenizer_nothing_else_is_fetched(hub):
    found = read_tokenizer("hf:org/tiny")
    here = read_tokenizer(TINY)
    assert found.provenance == here.provenance | {
        "name": "tiny",
        "hub": "hf:org/tiny/tokenizer.json",
        "revision": COMMIT,
    }
    assert found.tokenizer.encode(" a dog") == here.tokenizer.encode(" a dog")
    fetched = {path.name for path in Path(constants.HF_HUB_CACHE).glob("*/snapshots/*/*")}
    assert fetched == {"tokenizer.json"}
    with pytest.raises(
        InputError, match=r"wanted the file tokenizer\.json of org/one-file; the hub has no such"
    ):
        read_tokenizer("hf:org/one-file")


def test_what_the_hub_does_not_have_is_named(hub):
    for name in ("hf:org/none", "hf:org/none/model.gguf", "hf:org/one-file/model.gguf"):
        with pytest.raises(InputError, match=r"model: wanted the files? .* the hub has no such thing"):
            locate(name)
    with pytest.raises(
        InputError, match=r"has no config\.json: name one of its files, such as hf:org/one-file/"
    ):
        locate("hf:org/one-file")
    with pytest.raises(InputError, match="wanted hf:ORG/REPO or"):
        locate("hf:tiny")


def test_paths_stay_paths(tmp_path):
    assert locate(tmp_path / "a" / "model.q8.gguf").name == "model.q8"
    assert locate(tmp_path).path == tmp_path
    assert locate(tmp_path).provenance() == {}
    with pytest.raises(InputError, match=r"there is no org/tiny; a model of the hub is written hf:org/tiny"):
        frozen_lm.load("org/tiny")
