"""A web server over pages made by hand, and clients that send exactly what a test says."""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from urllib.parse import urlsplit

from exporter.metrics.formats import Format
from exporter.records.fields import Json
from exporter.records.hub import Hub
from exporter.web.limits import Limits
from exporter.web.policy import PolicySource
from exporter.web.server import Server

PATIENCE = 20.0
GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"


class FakePages:
    def __init__(self) -> None:
        self.why_not_ready: str | None = None
        self.body = b"up 1\n" * 100
        self.broken = False
        self.policies = threading.Event()
        """Holds /metrics and / back while it is clear."""
        self.policies.set()
        self.inside = threading.Semaphore(0)
        self.hub = Hub(10)

    def hold(self) -> None:
        self.inside.release()
        self.policies.wait(PATIENCE)

    def metrics(self, form: Format) -> bytes:
        self.hold()
        if self.broken:
            raise ValueError("boom\nsecond line")
        return self.body

    def landing(self, records: bool) -> str:
        self.hold()
        return f"<p>records={records}</p>"

    def live(self, records: bool) -> Json:
        return {"records": records}

    def busiest(self, query: str) -> str:
        return f"{query}\n"

    def lineage(self, query: str) -> tuple[str, str]:
        return f"{query}\n", "text/plain"

    def healthy(self) -> str | None:
        return None

    def ready(self) -> str | None:
        return self.why_not_ready


class Running:
    """A server over such pages, and a way to it."""

    def __init__(self, limits: Limits | None = None, public_records: bool = False, policies: PolicySource | None = None) -> None:
        self.pages = FakePages()
        self.server = Server("127.0.0.1:0", "/metrics", self.pages, public_records, limits, policies=policies)
        self.server.start()
        self.url = f"http://127.0.0.1:{self.server.port}"

    def connect(self) -> socket.socket:
        return connect(self.url)

    def close(self) -> None:
        self.pages.policies.set()
        self.server.close()


class Client(Running):
    """Such a server, and plain HTTP with it."""

    def raw(self, data: bytes) -> bytes:
        """All that comes back until the server closes."""
        with self.connect() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        return ask(self.url, path, method, **headers)


def serving(limits: Limits | None = None, public_records: bool = False) -> contextlib.closing[Client]:
    return contextlib.closing(Client(limits, public_records))


def connect(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname or "", where.port or 0), PATIENCE)


def ask(url: str, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)) as connection:
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


def connections() -> int:
    """The threads that serve one."""
    return sum(_first(frame).f_code is Server._serve.__code__ for frame in sys._current_frames().values())


def _first(frame: FrameType) -> FrameType:
    while frame.f_back is not None:
        frame = frame.f_back
    return frame


def wait_for_connections(left: int) -> None:
    _wait(lambda: connections() == left)


def wait_for_room(limits: Limits) -> None:
    """Those that are sent away end soon, and the others have a place each."""
    _wait(lambda: connections() <= limits.connections)


def _wait(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)
