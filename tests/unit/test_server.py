"""Clients that are silent, slow or never read, and where the server listens."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator

import pytest

from exporter.web import listening
from exporter.web.limits import Limits
from exporter.web.server import Server
from tests.unit.web_clients import GET, PATIENCE, Client, read_all, read_answer, serving, wait_for_connections, wait_for_room


@pytest.fixture
def client() -> Iterator[Client]:
    with serving() as client:
        yield client


def test_silent_crowd_does_not_delay_a_scrape(client: Client) -> None:
    """Whoever can connect could blind the monitoring otherwise."""
    with contextlib.ExitStack() as crowd:
        for number in range(300):
            sock = crowd.enter_context(client.connect())
            if number % 3 == 0:
                sock.sendall(b"GET / HT")  # not all of them are silent from the start
        before = time.monotonic()
        assert client.ask("/metrics")[0] == 200
        assert time.monotonic() - before < Limits().request_seconds
        wait_for_room(Limits())


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
        client.pages.policies.clear()
        for sock, path in ((one, b"/"), (two, b"/metrics")):
            sock.sendall(GET % path)
            assert client.pages.inside.acquire(timeout=PATIENCE)
        with client.connect() as three:
            assert read_all(three).startswith(b"HTTP/1.1 503 ")
        client.pages.policies.set()
        for sock in (one, two):
            assert read_answer(sock).startswith(b"HTTP/1.1 200 ")


def test_metrics_are_made_one_at_a_time(client: Client) -> None:
    """Thirty scrapes at once would take the memory of thirty."""
    with client.connect() as one, client.connect() as two:
        client.pages.policies.clear()
        for sock in (one, two):
            sock.sendall(GET % b"/metrics")
        assert client.pages.inside.acquire(timeout=PATIENCE)
        assert not client.pages.inside.acquire(timeout=0.2)
        client.pages.policies.set()
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


def test_too_many_open_files(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Running out of descriptors must not end the server, nor fill the log for as long as clients connect and leave."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for _ in range(3):
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
        assert client.ask("/-/ready")[0] == 200
        wait_for_connections(0)
    assert [record.getMessage() for record in caplog.records] == ["cannot accept connections"]


@pytest.mark.parametrize("failing", ["_has_gone", "_thread.start_new_thread"])
def test_out_of_memory(client: Client, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that accepts connections must not end: the server would be deaf for ever."""

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(f"exporter.web.server.{failing}", fail)
        with client.connect() as sock:
            assert read_all(sock) == b""
    assert client.ask("/-/ready")[0] == 200
    wait_for_connections(0)


def test_a_connection_whose_thread_never_ran(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory for its first frame, a new thread ends before it runs; its connection must not keep a place for ever."""
    monkeypatch.setattr("exporter.web.connection._BEGIN_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr("exporter.web.server._thread.start_new_thread", lambda *_: None)  # before it connects: the server may accept at once
        with client.connect() as sock:
            deadline = time.monotonic() + PATIENCE
            while not client.server._places.all() and time.monotonic() < deadline:
                time.sleep(0.01)
            client.server.tick()
            assert read_all(sock) == b""
    assert client.server._places.all() == []
    assert client.ask("/-/ready")[0] == 200


def test_a_failing_page_is_logged_once(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever may ask for it could fill a disk with tracebacks."""
    client.pages.broken = True
    for _ in range(5):
        assert client.ask("/metrics")[0] == 500
    assert [record.getMessage() for record in caplog.records] == ["a page failed"]


def test_close_is_quick_and_complete() -> None:
    """A restart must find the port free, whatever clients do."""
    client = Client()
    with client.connect() as idle, client.connect() as busy:
        client.pages.policies.clear()
        busy.sendall(GET % b"/metrics")
        assert client.pages.inside.acquire(timeout=PATIENCE)
        before = time.monotonic()
        client.server.close()
        assert time.monotonic() - before < Limits().request_seconds
        assert read_all(idle) == b""
        client.pages.policies.set()
        client.server.close()
        Server(f"127.0.0.1:{client.server.port}", "/metrics", client.pages).close()
    wait_for_connections(0)


def test_port_in_use(client: Client) -> None:
    """The most frequent mistake deserves a plain line."""
    where = f"127.0.0.1:{client.server.port}"
    with pytest.raises(OSError, match="in use") as caught:
        Server(where, "/metrics", client.pages)
    assert listening.bind_error_message(where, caught.value) == (
        f"cannot listen on {where}: address already in use (ss -ltnp 'sport = :{client.server.port}' shows by what); "
        "choose another address with --web.listen-address"
    )
    with pytest.raises(OSError, match="known") as caught:
        Server("no-such-host.invalid:1", "/metrics", client.pages)
    assert listening.bind_error_message("x", caught.value).startswith("cannot listen on x: ")


@pytest.mark.parametrize("address", [":0", "[::]:0", "[::ffff:127.0.0.1]:0", "[::FFFF:7f00:1]:0", "[::ffff:0.0.0.0]:0"])
def test_ipv6_addresses_that_mean_ipv4(client: Client, address: str) -> None:
    """`:PORT` and `[::]` mean IPv4 too, and some tools write an IPv4 address in its IPv6 form."""
    server = Server(address, "/metrics", client.pages)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
            sock.sendall(GET % b"/")
            assert b"records=True" in read_answer(sock)
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
    with contextlib.closing(listening.listen(":0")) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
