from __future__ import annotations

import contextlib
import gzip
import http.client
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.record_json import Json
from exporter.records import Hub
from exporter.web import address, site
from exporter.web.messages import MAX_HEAD, BadRequest, Request, accepts_gzip, take_request
from exporter.web.server import Limits, Server

PATIENCE = 20.0
GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
Headers = dict[str, str]


class FakePages:
    def __init__(self) -> None:
        self.why_not_ready: str | None = None
        self.body = b"up 1\n" * 100
        self.broken = False
        self.gate = threading.Event()
        """Holds /metrics and / back while it is clear."""
        self.gate.set()
        self.inside = threading.Semaphore(0)
        self.hub = Hub(10)

    def hold(self) -> None:
        self.inside.release()
        self.gate.wait(PATIENCE)

    def metrics(self, accept: str) -> tuple[bytes, str]:
        self.hold()
        if self.broken:
            raise ValueError("boom\nsecond line")
        return self.body, "application/openmetrics-text" if "openmetrics" in accept else "text/plain"

    def landing(self, names: bool) -> str:
        self.hold()
        return f"<p>names={names}</p>"

    def live(self) -> Json:
        return {}

    def healthy(self) -> str | None:
        return None

    def ready(self) -> str | None:
        return self.why_not_ready


class Client:
    """A server with short deadlines, and ways to talk to it."""

    def __init__(self, limits: Limits | None = None, public_records: bool = False) -> None:
        self.pages = FakePages()
        self.server = Server("127.0.0.1:0", "/metrics", self.pages, public_records, limits)
        self.server.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), PATIENCE)

    def raw(self, data: bytes) -> bytes:
        """All that comes back until the server closes."""
        with self.connect() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)) as connection:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response.status, response.headers, response.read()


def read_all(sock: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := sock.recv(65536):
            received += chunk
    return received


def read_answer(sock: socket.socket) -> bytes:
    """One answer with a body, leaving the connection open."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += received(sock, 1)
    body = b""
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += received(sock, length - len(body))
    return head + body


def received(sock: socket.socket, most: int) -> bytes:
    data = sock.recv(most)
    assert data, "the server closed the connection"
    return data


@contextlib.contextmanager
def serving(limits: Limits | None = None, public_records: bool = False) -> Iterator[Client]:
    client = Client(limits, public_records)
    try:
        yield client
    finally:
        client.pages.gate.set()
        client.server.close()


@pytest.fixture
def client() -> Iterator[Client]:
    with serving() as client:
        yield client


def test_pages(client: Client) -> None:
    """Each page is at its fixed path; a query changes nothing."""
    for path in ("/metrics", "/metrics?x=/-/ready", "/metrics#x"):
        status, headers, body = client.ask(path)
        assert (status, body, headers["Content-Type"]) == (200, client.pages.body, "text/plain")
    assert client.ask("/metrics", Accept="application/openmetrics-text")[1]["Content-Type"] == "application/openmetrics-text"
    assert client.ask("/")[1]["Content-Type"] == "text/html; charset=utf-8"
    assert client.ask("/-/healthy")[2] == b"healthy\n"
    assert client.ask("/-/ready")[0] == 200
    client.pages.why_not_ready = "no mode yet"
    assert client.ask("/-/ready")[::2] == (503, b"no mode yet\n")


@pytest.mark.parametrize("path", ["/metric", "/metrics/", "//metrics", "/%6detrics", "/../metrics", "/favicon.ico", "*", "/-/", "/Metrics"])
def test_not_found(client: Client, path: str) -> None:
    """Nothing but the exact paths gives a page."""
    assert client.ask(path)[0] == 404


def test_absolute_form(client: Client) -> None:
    """HTTP asks every server to take it; its host counts, not the header's."""
    assert client.raw(b"GET http://x:1/metrics?a HTTP/1.0\r\n\r\n").endswith(client.pages.body)
    assert b"names=False" in client.raw(b"GET http://evil HTTP/1.0\r\nHost: localhost\r\n\r\n")


@pytest.mark.parametrize("path", ["/metrics", "/", "/-/ready", "/nothing"])
def test_head_is_get_without_body(client: Client, path: str) -> None:
    """Probes use HEAD and expect the headers of GET."""
    status, headers, body = client.ask(path)
    head_status, head_headers, head_body = client.ask(path, "HEAD")
    del headers["Date"], head_headers["Date"]
    assert (head_status, head_headers.items(), head_body) == (status, headers.items(), b"")
    assert int(headers["Content-Length"]) == len(body)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods(client: Client, method: str) -> None:
    """Nothing can be changed over HTTP."""
    status, headers, _ = client.ask("/metrics", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_security_headers(client: Client) -> None:
    """The page shows what strangers chose; a browser must not run or leak any of it."""
    for path in ("/", "/metrics", "/nothing"):
        headers = client.ask(path)[1]
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"], headers["Cache-Control"]) == (
            "nosniff",
            "no-referrer",
            "no-store",
        )
        assert headers["Content-Security-Policy"].startswith("default-src 'none';")
        assert headers["Server"] == "shortproc-exporter"


def test_gzip(client: Client) -> None:
    """It makes a scrape ten times smaller, and is only for those who can read it."""
    status, headers, body = client.ask("/metrics", Accept_Encoding="gzip")
    assert (status, headers["Content-Encoding"], "Accept-Encoding" in headers["Vary"]) == (200, "gzip", True)
    assert gzip.decompress(body) == client.pages.body
    status, headers, body = client.ask("/metrics", Accept_Encoding="gzip;q=0")
    assert (status, headers["Content-Encoding"], body) == (200, None, client.pages.body)


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("x-gzip", True),
        ("gzip ; q=1.000", True),
        ("gzip;q=0.5, identity;q=0.5", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("*;q=1, gzip;q=0", False),
        ("gzip;q=0.5, identity", False),
        ("gzip;q=2", False),
        ("gzip;;", False),
        ("gzipped", False),
    ],
)
def test_accept_encoding(header: str, accepted: bool) -> None:
    """Weights are easy to get wrong, and a wrong one breaks a scrape."""
    assert accepts_gzip(header) is accepted


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.1.2.3:9", "[::1]", "[::1]:80", "[::ffff:127.0.0.1]"])
def test_names_for_the_host_itself(client: Client, host: str) -> None:
    """A person on the host sees who runs what there anyway."""
    assert client.ask("/", Host=host)[2] == b"<p>names=True</p>"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil", "127.0.0.1.evil", "127.1", "localhost@evil", "[::2]", "10.0.0.1", "", "::1", "[::1"]
)
def test_no_names_under_another_host(client: Client, host: str) -> None:
    """DNS rebinding makes the browser on the host ask us under a name of the attacker's."""
    assert client.ask("/", Host=host)[2] == b"<p>names=False</p>"


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"])
def test_no_names_behind_a_proxy(client: Client, header: str) -> None:
    """To a proxy on the host, everyone is local."""
    assert client.ask("/", **{header: "1.2.3.4"})[2] == b"<p>names=False</p>"


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("127.0.0.2", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("", False),
    ],
)
def test_no_names_for_others(peer: str, local: bool) -> None:
    """A Host header is the client's own claim."""
    assert site.is_local(Request("GET", "/", {}, "localhost", keep_alive=True), peer) is local


def test_public_records_show_names_to_all() -> None:
    """The operator may decide otherwise."""
    with serving(public_records=True) as client:
        assert client.ask("/", Host="evil.example")[2] == b"<p>names=True</p>"


def test_two_requests_on_one_connection(client: Client) -> None:
    """Prometheus keeps its connection."""
    with client.connect() as sock:
        for _ in range(2):
            sock.sendall(b"\r\n" + GET % b"/-/ready")
            assert read_answer(sock).startswith(b"HTTP/1.1 200 ")


def test_asking_again_before_the_answer_ends_the_connection(client: Client) -> None:
    """One client with a pipeline full of requests would keep a place, and the CPU, for ever."""
    with client.connect() as sock:
        client.pages.gate.clear()
        sock.sendall(GET % b"/metrics" * 2)
        client.pages.gate.set()
        assert b"\r\nConnection: close\r\n" in read_answer(sock)
        assert read_all(sock) == b""


@pytest.mark.parametrize(
    ("request_bytes", "closes"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /", True),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", True),
    ],
)
def test_when_a_connection_ends(client: Client, request_bytes: bytes, closes: bool) -> None:
    """A body that is not read must not be taken for the next request."""
    with client.connect() as sock:
        sock.sendall(request_bytes)
        answer = read_answer(sock)
        assert (b"\r\nConnection: close\r\n" in answer) is closes
        if closes:
            assert read_all(sock) == b""


def test_answer_survives_a_large_body(client: Client) -> None:
    """Closing with something unread makes the kernel throw the answer away."""
    with client.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000)
        assert read_answer(sock).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /" + b"a" * MAX_HEAD, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * MAX_HEAD, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * MAX_HEAD, 431),
        (b"\r\n" * MAX_HEAD, 414),
    ],
)
def test_bad_requests(client: Client, request_bytes: bytes, status: int) -> None:
    """What is not clearly a request is refused, in bounded memory, and the server lives."""
    assert client.raw(request_bytes).startswith(b"HTTP/1.1 %d " % status)
    assert client.ask("/-/ready")[0] == 200


def test_bare_line_feeds(client: Client) -> None:
    """People type requests into nc."""
    assert client.raw(b"GET /-/ready HTTP/1.1\nHost: a\n\n").endswith(b"ready\n")


@given(data=st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    """Nothing that arrives may end in another exception."""
    received = bytearray(data)
    with contextlib.suppress(BadRequest):
        while take_request(received) is not None:
            pass


@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda target, rest: b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n" + rest, st.binary(max_size=40), st.binary(max_size=60)
        ),
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_leave_the_server_alive(client: Client, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    """Anybody may send anything."""
    caplog.clear()
    answer = client.raw(data)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    assert client.ask("/-/ready")[0] == 200
    assert not caplog.records


def test_error_in_a_page(client: Client, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """One broken page must not tell its inside to strangers, nor end the server."""
    client.pages.broken = True
    status, _, body = client.ask("/metrics")
    assert (status, body) == (500, b"internal error, see the exporter's log\n")
    assert [(record.levelno, record.name) for record in caplog.records] == [(logging.ERROR, "exporter.web.site")]
    assert capsys.readouterr().err == ""
    client.pages.broken = False
    assert client.ask("/metrics")[0] == 200


def test_silent_crowd_does_not_delay_a_scrape(client: Client) -> None:
    """Whoever can connect could blind the monitoring otherwise."""
    with contextlib.ExitStack() as crowd:
        for number in range(300):
            sock = crowd.enter_context(client.connect())
            if number % 3 == 0:
                sock.sendall(b"GET / HT")  # not all of them are silent from the start
        before = time.monotonic()
        assert client.ask("/metrics")[0] == 200
        assert time.monotonic() - before < 2
        assert threading.active_count() < 100


def test_silent_connection_gives_way(client: Client) -> None:
    """The oldest that waits is closed, not the newcomer."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(client.connect())
        for _ in range(Limits().connections):
            sock = stack.enter_context(client.connect())
            sock.sendall(GET % b"/-/ready")
            assert read_answer(sock).startswith(b"HTTP/1.1 200 ")
        assert read_all(first) == b""


def test_busy_server_sends_away() -> None:
    """Only where every connection is being answered does a newcomer get 503."""
    with serving(Limits(connections=2)) as client, client.connect() as one, client.connect() as two:
        client.pages.gate.clear()
        for sock in (one, two):
            sock.sendall(GET % b"/")
            assert client.pages.inside.acquire(timeout=PATIENCE)
        with client.connect() as three:
            assert read_all(three).startswith(b"HTTP/1.1 503 ")
        client.pages.gate.set()
        for sock in (one, two):
            assert read_answer(sock).startswith(b"HTTP/1.1 200 ")


def test_metrics_are_made_one_at_a_time(client: Client) -> None:
    """Thirty scrapes at once would take the memory of thirty."""
    with client.connect() as one, client.connect() as two:
        client.pages.gate.clear()
        for sock in (one, two):
            sock.sendall(GET % b"/metrics")
        assert client.pages.inside.acquire(timeout=PATIENCE)
        assert not client.pages.inside.acquire(timeout=0.2)
        client.pages.gate.set()
        for sock in (one, two):
            assert read_answer(sock).endswith(client.pages.body)


def test_client_that_never_reads_gives_way() -> None:
    """A few that ask for much and read nothing would hold every place otherwise."""
    with serving(Limits(connections=1, stalled_seconds=0.1)) as client, client.connect() as greedy:
        client.pages.body = b"x" * (64 << 20)
        greedy.sendall(GET % b"/metrics")
        assert client.pages.inside.acquire(timeout=PATIENCE)
        until = time.monotonic() + PATIENCE
        while (status := client.ask("/-/ready")[0]) != 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert status == 200


def test_client_that_never_reads_meets_its_deadline() -> None:
    """Its thread and its answer's memory must come back."""
    with serving(Limits(answer_seconds=0.2)) as client, client.connect() as sock:
        client.pages.body = b"x" * (64 << 20)
        sock.sendall(GET % b"/metrics")
        wait_for_connections(0)


@pytest.mark.parametrize("requests_before", [0, 1])
def test_dripping_client_meets_its_deadline(requests_before: int) -> None:
    """A time-out per byte would let it stay for ever."""
    with serving(Limits(request_seconds=0.3, idle_seconds=2 * PATIENCE)) as client, client.connect() as sock:
        for _ in range(requests_before):
            sock.sendall(GET % b"/-/ready")
            read_answer(sock)
        sock.settimeout(0.05)
        answer, until = b"", time.monotonic() + PATIENCE
        while not answer and time.monotonic() < until:
            sock.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                answer = sock.recv(100)
        assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("limits", [Limits(request_seconds=0.2), Limits(idle_seconds=0.2)])
def test_silent_client_meets_its_deadline(limits: Limits) -> None:
    """Before its first request, and between two."""
    with serving(limits) as client, client.connect() as sock:
        if limits.idle_seconds < 1:
            sock.sendall(GET % b"/-/ready")
            read_answer(sock)
        assert read_all(sock) == b""


def wait_for_connections(left: int) -> None:
    until = time.monotonic() + PATIENCE
    while sum(thread.name == "http-client" for thread in threading.enumerate()) != left:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_too_many_open_files(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Running out of descriptors must not end the server."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with client.connect() as waiting, socket.socket() as late, contextlib.ExitStack() as hog:
        client.ask("/-/ready")  # so `waiting`, which came before, has been accepted
        wait_for_connections(1)
        hog.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                hog.callback(os.close, os.dup(0))
        late.connect(("127.0.0.1", client.server.port))
        assert read_all(waiting) == b""  # dropped to make room
    assert "cannot accept connections" in caplog.text
    assert client.ask("/-/ready")[0] == 200


def test_close_is_quick_and_complete() -> None:
    """A restart must find the port free, whatever clients do."""
    client = Client()
    with client.connect() as idle, client.connect() as busy:
        client.pages.gate.clear()
        busy.sendall(GET % b"/metrics")
        assert client.pages.inside.acquire(timeout=PATIENCE)
        before = time.monotonic()
        client.server.close()
        assert time.monotonic() - before < 2
        assert read_all(idle) == b""
        client.pages.gate.set()
        client.server.close()
        Server(f"127.0.0.1:{client.server.port}", "/metrics", client.pages).close()
    wait_for_connections(0)


def test_port_in_use(client: Client) -> None:
    """The most frequent mistake deserves a plain line."""
    where = f"127.0.0.1:{client.server.port}"
    with pytest.raises(OSError, match="in use") as caught:
        Server(where, "/metrics", client.pages)
    assert address.wording(where, caught.value) == f"cannot listen on {where}: address already in use"
    with pytest.raises(OSError, match="known") as caught:
        Server("no-such-host.invalid:1", "/metrics", client.pages)
    assert address.wording("x", caught.value).startswith("cannot listen on x: ")


def test_every_address(client: Client) -> None:
    """`:PORT` means IPv4 too, with IPv6 and without."""
    server = Server(":0", "/metrics", client.pages)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
            sock.sendall(GET % b"/")
            assert b"names=True" in read_answer(sock)
    finally:
        server.close()


def test_every_address_without_ipv6(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some hosts boot with ipv6.disable=1."""
    make = socket.socket

    def without_ipv6(family: int = -1, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return make(family, *rest)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    with contextlib.closing(address.listen(":0")) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
