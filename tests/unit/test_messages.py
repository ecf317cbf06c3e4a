"""What is a request, what is refused as none, and when a connection ends."""

from __future__ import annotations

import contextlib
import email.utils
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.web.messages import MAX_HEAD, BadRequest, pop_request
from tests.unit.web_clients import GET, Client, read_all, read_answer, serving


@pytest.fixture
def client() -> Iterator[Client]:
    with serving() as client:
        yield client


def test_the_date(client: Client) -> None:
    """In the one form that HTTP allows."""
    sent = email.utils.parsedate_to_datetime(client.ask("/-/ready")[1]["Date"])
    assert client.ask("/-/ready")[1]["Date"] in {email.utils.format_datetime(sent + timedelta(seconds=n), usegmt=True) for n in range(60)}


def test_two_requests_on_one_connection(client: Client) -> None:
    """Prometheus keeps its connection."""
    with client.connect() as sock:
        for _ in range(2):
            sock.sendall(b"\r\n" + GET % b"/-/ready")
            assert read_answer(sock).startswith(b"HTTP/1.1 200 ")


def test_asking_again_before_the_answer_ends_the_connection(client: Client) -> None:
    """One client with a pipeline full of requests would keep a place, and the CPU, for ever."""
    with client.connect() as sock:
        client.pages.policies.clear()
        sock.sendall(GET % b"/metrics" * 2)
        client.pages.policies.set()
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
        while pop_request(received) is not None:
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
