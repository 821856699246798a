"""Fetching images: allowed hosts only, addresses of the open network only, however the name or a redirect tries."""

import asyncio
import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpcore2
import pytest

from spae.errors import InputError
from spae.service.errors import ApiError
from spae.service.remote import RemoteImages, is_public
from spae.service.settings import Settings

PUBLIC, OTHER = "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"


@pytest.mark.parametrize(
    "address",
    [PUBLIC, OTHER, "8.8.8.8", "1.1.1.1", "2001:4860:4860::8888", "2a00:1450:4001:81b::200e"],
)
def test_addresses_of_the_open_network(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
        *(
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
        ),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1"),
        *(
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
        ),
        *(
            "2002:7f00:1::",
            "2001:0:1::1",
            "2001:db8::1",
            "2001:10::1",
            "100::1",
            "3fff::1",
            "5f00::1",
            "not one",
            "",
        ),
    ],
)
def test_addresses_inside(address):
    assert not is_public(address)


class Host(BaseHTTPRequestHandler):
    """What a host of images may do; `server.log` keeps what it was asked."""

    def do_GET(self):
        self.server.log.append((self.path, dict(self.headers)))
        status, headers, body = self.server.pages[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            if body is None:  # without an end, and without a length
                while True:
                    self.wfile.write(b"x" * 65536)
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def host():
    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        server.pages, server.log = {}, []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Network(httpcore2.AsyncNetworkBackend):
    """Takes every address for the test's own host, and remembers where connections went."""

    def __init__(self, server, dead=()):
        self.server = server
        self.went = []
        self.dead = dead
        self.real = httpcore2.AnyIOBackend()

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        self.went.append((host, port))
        if host in self.dead:
            raise httpcore2.ConnectError
        own = self.server.server_address
        return await self.real.connect_tcp(own[0], own[1], timeout, local_address, socket_options)


class Names:
    """A name server whose answers change: one list after the other, the last again and again."""

    def __init__(self, **answers):
        self.answers = {name.replace("_", "."): list(lists) for name, lists in answers.items()}
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append(host)
        answers = self.answers[host.rstrip(".")]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def fetch(url, names, network, **settings):
    async def run():
        images = RemoteImages(Settings(**{"allow_hosts": ("a.example",), **settings}), names, network)
        try:
            return await images.fetch(url)
        finally:
            await images.close()

    return asyncio.run(run())


def refused(url, names, network, status=422, **settings):
    with pytest.raises(ApiError) as error:
        fetch(url, names, network, **settings)
    assert error.value.status == status
    return error.value.message


def test_an_image_of_an_allowed_host(host):
    host.pages["/dog.png?size=1"] = (200, {"Content-Type": "image/png"}, b"bytes")
    names, network = Names(a_example=[[PUBLIC, OTHER]]), Network(host)
    assert fetch("http://A.example./dog.png?size=1#part", names, network) == b"bytes"
    assert network.went == [(PUBLIC, 80)]
    [(_, headers)] = host.log
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Host"].lower().rstrip(".") == "a.example"
    assert "Authorization" not in headers


def test_an_address_that_is_dead_is_passed_over(host):
    host.pages["/"] = (200, {"Content-Type": "text/plain"}, b"bytes")  # a wrong label is no error
    network = Network(host, dead=(OTHER,))
    assert fetch("http://a.example", Names(a_example=[[OTHER, PUBLIC]]), network) == b"bytes"
    assert [address for address, _ in network.went] == [OTHER, PUBLIC]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://b.example/x",
            "http://a.example.b.example/",
            "http://xa.example/",
            "http://127.0.0.1/",
            "http://[::1]/",
        ),
        *(
            "http://a.example:8080/",
            "https://a.example:80/",
            "http://a.example@b.example/",
            "http://b.example#a.example",
        ),
        *(
            "http://user:secret@a.example/",
            "ftp://a.example/",
            "file:///etc/passwd",
            "gopher://a.example/",
            "http://",
        ),
        *(
            "//a.example/",
            "a.example/x",
            "",
            "http://a.example:99999/",
            "http://[a.example/",
            "data:text/plain,x",
            "http:a",
        ),
        *(
            "http://a.example\\@b.example/",
            "http://a.example\n/",
            "http://2130706433/",
            "http://0x7f.1/",
            "javascript:1",
        ),
    ],
)
def test_addresses_that_are_not_asked(url, host):
    network = Network(host)
    refused(url, Names(a_example=[[PUBLIC]]), network)
    assert network.went == []
    assert host.log == []


@pytest.mark.parametrize(
    "entry", ["https://a.example", "a.example/x", "", "*", "*.example", "a b", "[::1]", "bücher.example"]
)
def test_hosts_that_would_never_match(entry):
    with pytest.raises(InputError, match="wanted a host"):
        Settings(allow_hosts=(entry,))


def test_nothing_is_fetched_unless_allowed(host):
    network = Network(host)
    refused("http://a.example/", Names(a_example=[[PUBLIC]]), network, allow_hosts=())
    assert network.went == []


def test_a_port_of_its_own(host):
    host.pages["/"] = (200, {}, b"bytes")
    network = Network(host)
    names = Names(a_example=[[PUBLIC]])
    assert fetch("http://a.example:8080/", names, network, allow_hosts=("a.example:8080",)) == b"bytes"
    assert network.went == [(PUBLIC, 8080)]
    refused("http://a.example/", names, network, allow_hosts=("a.example:8080",))


@pytest.mark.parametrize(
    "inside", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fe80::1%1"]
)
def test_a_name_that_points_inside(inside, host):
    network = Network(host)
    message = refused("http://a.example/", Names(a_example=[[inside]]), network)
    assert inside not in message
    refused("http://a.example/", Names(a_example=[[PUBLIC, inside]]), network)
    assert network.went == []


def test_an_allowed_address_inside_is_still_inside(host):
    network = Network(host)
    names = Names(**{"127_0_0_1": [["127.0.0.1"]]})
    refused("http://127.0.0.1/", names, network, allow_hosts=("127.0.0.1",))
    assert names.asked == ["127.0.0.1"]
    assert network.went == []


def test_a_name_that_changes_its_mind_gains_nothing(host):
    host.pages["/"] = (200, {}, b"bytes")
    # Rebinding: the first answer passes, the second is inside. There must be no second question.
    names, network = Names(a_example=[[PUBLIC], ["127.0.0.1"]]), Network(host)
    assert fetch("http://a.example/", names, network) == b"bytes"
    assert names.asked == ["a.example"]
    assert network.went == [(PUBLIC, 80)]


def test_a_redirect_to_a_name_that_has_changed(host):
    host.pages["/"] = (302, {"Location": "/again"}, b"")
    host.pages["/again"] = (200, {}, b"bytes")
    names, network = Names(a_example=[[PUBLIC], ["10.0.0.1"]]), Network(host)
    refused("http://a.example/", names, network)
    assert network.went == [(PUBLIC, 80)]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/",
        "http://b.example/",
        "//b.example/",
        "https://a.example:22/",
        "file:///etc/passwd",
        "http://[",
    ],
)
def test_redirects_that_are_not_followed(location, host):
    host.pages["/"] = (301, {"Location": location}, b"")
    names, network = Names(a_example=[[PUBLIC]], b_example=[[PUBLIC]]), Network(host)
    refused("http://a.example/", names, network)
    assert len(network.went) == 1


def test_redirects_that_are_followed(host):
    host.pages["/1"] = (301, {"Location": "http://b.example/2"}, b"")
    host.pages["/2"] = (307, {"Location": "../3"}, b"")
    host.pages["/3"] = (200, {}, b"bytes")
    names, network = Names(a_example=[[PUBLIC]], b_example=[[OTHER]]), Network(host)
    assert fetch("http://a.example/1", names, network, allow_hosts=("a.example", "b.example")) == b"bytes"
    assert [address for address, _ in network.went] == [PUBLIC, OTHER, OTHER]


def test_redirects_without_an_end(host):
    host.pages["/"] = (302, {"Location": "/"}, b"")
    assert "more than 3 times" in refused("http://a.example/", Names(a_example=[[PUBLIC]]), Network(host))
    assert len(host.log) == 4


@pytest.mark.parametrize(
    ("status", "headers", "body", "answer"),
    [
        (200, {"Content-Length": "2000"}, b"", 413),
        (200, {"Content-Type": "image/png"}, b"x" * 2000, 413),
        (200, {}, None, 413),
        (200, {"Content-Encoding": "gzip"}, b"x", 422),
        (404, {}, b"", 422),
        (304, {}, b"", 422),
        (500, {"Content-Type": "image/png"}, b"x", 422),
        (200, {"Content-Length": "100"}, b"x", 422),
    ],
)
def test_answers_that_are_no_image(status, headers, body, answer, host):
    host.pages["/"] = (status, headers, body)
    refused("http://a.example/", Names(a_example=[[PUBLIC]]), Network(host), answer, max_image_bytes=1000)


def test_a_host_that_does_not_answer(host):
    assert "does not answer" in refused(
        "http://a.example/", Names(a_example=[[PUBLIC]]), Network(host, dead=(PUBLIC,))
    )


def test_a_host_that_is_slow(host):
    async def names(host, port):
        await asyncio.sleep(60)

    assert "0.05 s" in refused("http://a.example/", names, Network(host), timeout_s=0.1)


def test_a_name_that_is_not_there(host):
    async def names(host, port):
        raise OSError

    assert "does not answer" in refused("http://a.example/", names, Network(host))
