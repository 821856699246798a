"""A bucket at gs:// in this process's memory, behind both ways that lead there: fsspec, for files, and HTTP, for the
array store of checkpoints. Like a real one it has objects and no folders: a folder is there as long as an object is
below it."""

import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fsspec.spec import AbstractFileSystem

OBJECTS: dict[str, bytes] = {}  # bucket/name -> content
REFUSED: set[str] = set()  # parts of names that must be neither read nor written


class FakeGcs(AbstractFileSystem):
    """fsspec's filesystem of that bucket."""

    protocol = ("gs", "gcs")
    cachable = False

    def __init__(self, finalize_on_close: bool = True) -> None:
        super().__init__(use_listings_cache=False)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        found: dict[str, dict[str, Any]] = {}
        for name, data in list(OBJECTS.items()):
            if name == path:
                found[name] = {"name": name, "size": len(data), "type": "file"}
            elif name.startswith(f"{path}/"):
                child, below, _rest = name[len(path) + 1 :].partition("/")
                kind = {"size": 0, "type": "directory"} if below else {"size": len(data), "type": "file"}
                found[f"{path}/{child}"] = {"name": f"{path}/{child}", **kind}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else sorted(found)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        if path in OBJECTS:
            return {"name": path, "size": len(OBJECTS[path]), "type": "file"}
        self.ls(path)
        return {"name": path, "size": 0, "type": "directory"}

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        if _refused(path):
            raise HttpError("not to you, 403")
        if mode == "wb":
            return Upload(path)
        if path not in OBJECTS:
            raise FileNotFoundError(path)
        return io.BytesIO(OBJECTS[path])

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        if not self.isdir(path1):
            OBJECTS[self._strip_protocol(path2)] = OBJECTS[self._strip_protocol(path1)]

    def _rm(self, path: str) -> None:
        OBJECTS.pop(self._strip_protocol(path), None)

    def rm_file(self, path: str) -> None:
        if OBJECTS.pop(self._strip_protocol(path), None) is None:
            raise FileNotFoundError(path)

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        for name in self.find(path) if recursive else [path]:
            self.rm_file(name)

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None: ...

    def makedirs(self, path: str, exist_ok: bool = False) -> None: ...


class HttpError(Exception):
    """Like gcsfs', no OSError."""


class Upload(io.BytesIO):
    """An object that is there once it is closed."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def close(self) -> None:
        if not self.closed:
            OBJECTS[self._path] = self.getvalue()
        super().close()


class Handler(BaseHTTPRequestHandler):
    """As much of Google's JSON API as the array store asks for. An object's generation is its content's hash."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        bucket, name, query = self._asked()
        if name is None:
            first, end = (
                f"{bucket}/{query.get('startOffset', '')}",
                f"{bucket}/{query.get('endOffset', chr(0x10FFFF))}",
            )
            prefix = f"{bucket}/{query.get('prefix', '')}"
            names = sorted(one for one in list(OBJECTS) if one.startswith(prefix) and first <= one < end)
            return self._answer(200, json.dumps({"items": [_metadata(one) for one in names]}).encode())
        if _refused(name):
            return self._answer(403, b"not to you")
        data = OBJECTS.get(f"{bucket}/{name}")
        if data is None:
            return self._answer(404)
        generation = {"x-goog-generation": str(_generation(data))}
        if query.get("ifGenerationNotMatch") == generation["x-goog-generation"]:
            return self._answer(304)
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", "")):
            first, last = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
            generation["content-range"] = f"bytes {first}-{last}/{len(data)}"
            return self._answer(206, data[first : last + 1], generation)
        return self._answer(200, data, generation)

    def do_POST(self) -> None:
        bucket, _, query = self._asked()
        data = self.rfile.read(int(self.headers.get("content-length", 0)))
        name = f"{bucket}/{query['name']}"
        if _refused(name):
            return self._answer(403, b"not to you")
        there = str(_generation(OBJECTS[name])) if name in OBJECTS else "0"
        if query.get("ifGenerationMatch", there) != there:
            return self._answer(412)
        OBJECTS[name] = data
        return self._answer(200, json.dumps(_metadata(name)).encode())

    def do_DELETE(self) -> None:
        bucket, name, _ = self._asked()
        self._answer(404 if OBJECTS.pop(f"{bucket}/{name}", None) is None else 204)

    def log_message(self, *_: Any) -> None:
        """Not to the tests' output."""

    def _asked(self) -> tuple[str, str | None, dict[str, str]]:
        url = urlsplit(self.path)
        found = re.search(r"/b/([^/]+)/o(?:/(.+))?$", url.path)
        assert found is not None, self.path
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        return found[1], unquote(found[2]) if found[2] else None, query

    def _answer(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)


def _refused(name: str) -> bool:
    return any(part in name for part in REFUSED)


def _generation(data: bytes) -> int:
    return hash(data) % 10**15 + 1


def _metadata(name: str) -> dict[str, str]:
    data = OBJECTS[name]
    return {
        "name": name.partition("/")[2],
        "size": str(len(data)),
        "generation": str(_generation(data)),
        "timeCreated": "2026-01-01T00:00:00Z",
        "updated": "2026-01-01T00:00:00Z",
    }


@contextmanager
def serve() -> Iterator[str]:
    """The address of the HTTP side."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
