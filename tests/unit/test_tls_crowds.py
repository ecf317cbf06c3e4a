"""Clients that never finish a handshake, or send what is none."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.web import tls
from exporter.web.limits import Limits
from tests.unit.guarded_site import Site, client_hello, serving, tls_section, trusting
from tests.unit.web_clients import GET, PATIENCE, read_all, wait_for_connections, wait_for_room


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving(tmp_path, tls_section()) as site:
        yield site


@pytest.mark.parametrize("clients", ["silent", "slow", "dripping"])
def test_crowd_does_not_delay_a_scrape(site: Site, clients: str) -> None:
    """300 clients that never finish their handshake, all at once, from the scraper's own address."""
    hello = client_hello()
    with contextlib.ExitStack() as crowd:
        crowd_socks = [crowd.enter_context(site.connect()) for _ in range(300)]
        for sock in crowd_socks if clients != "silent" else []:
            with contextlib.suppress(OSError):
                sock.sendall(hello[:20] if clients == "slow" else hello[:1])
        stop = threading.Event()

        def drip() -> None:
            sent = 1
            while not stop.wait(0.05) and sent < len(hello):
                for sock in crowd_socks:
                    with contextlib.suppress(OSError):
                        sock.sendall(hello[sent : sent + 1])
                sent += 1

        dripper = threading.Thread(target=drip)
        if clients == "dripping":
            dripper.start()
        try:
            for _ in range(3):
                before = time.monotonic()
                assert site.ask().status == 200
                assert time.monotonic() - before < Limits().request_seconds
            wait_for_room(Limits())
        finally:
            stop.set()
            if clients == "dripping":
                dripper.join()


def test_handshake_has_a_deadline(tmp_path: Path) -> None:
    """For the whole of it: one for each byte would let a dripping client stay for ever."""
    with serving(tmp_path, tls_section(), Limits(request_seconds=0.5)) as site, site.connect() as silent, site.connect() as dripping:
        hello = client_hello()
        with contextlib.suppress(OSError):
            for number in range(100):
                dripping.sendall(hello[number : number + 1])
                time.sleep(0.02)
        assert read_all(silent) == b""
        wait_for_connections(0)


HUGE_HELLO = b"\x01\xff\xff\xff" + b"\x03\x03" + b"x" * 200_000
GARBAGE = [
    b"\x16",
    b"\x16\x03\x01\x00\x05hello",
    b"\x16\x03\x01\xff\xff" + b"x" * 70_000,
    b"".join(b"\x16\x03\x01" + struct.pack(">H", 16_000) + HUGE_HELLO[at : at + 16_000] for at in range(0, 192_000, 16_000)),
    b"\x16\x03\x01\x00\x00" * 1000,
    b"\x15\x03\x01\x00\x02\x02\x28",
    b"\x80\x2e\x01\x00\x02",
    b"\0" * 1000,
]


def test_hostile_clients_leave_nothing_behind(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """No thread, no descriptor, no traceback, and a line of log or two at most."""
    site.ask()
    wait_for_connections(0)
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    cut = client_hello()
    for data in [*GARBAGE, *(cut[:at] for at in range(0, len(cut), 50)), cut, cut + b"\x17\x03\x03\x00\x10" + b"x" * 16] * 3:
        with site.connect() as sock, contextlib.suppress(OSError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            read_all(sock)
    wait_for_connections(0)
    gc.collect()
    assert len([*Path("/proc/self/fd").iterdir()]) == descriptors
    assert site.ask().status == 200
    assert {record.getMessage() for record in caplog.records} <= {"TLS handshake failed"}
    assert len(caplog.records) <= 2


def test_failures_are_logged_seldom_and_counted(site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator has to learn that handshakes fail and why, and strangers must not fill the disk."""
    distrusting = ssl.create_default_context()
    for _ in range(5):
        with pytest.raises(ssl.SSLCertVerificationError):
            site.ask(context=distrusting)
    wait_for_connections(0)
    (first,) = caplog.records
    assert first.fields == {"peer": "127.0.0.1", "reason": "tlsv1 alert unknown ca"}  # type: ignore[attr-defined]
    assert site.guard.last.tls is not None
    monkeypatch.setattr(site.guard.last.tls._failures, "_due", 0.0)
    with pytest.raises(ssl.SSLCertVerificationError):
        site.ask(context=distrusting)
    wait_for_connections(0)
    assert caplog.records[1].fields["not_logged_before"] == 4  # type: ignore[attr-defined]


def test_sessions_of_clients_without_tickets_are_not_hoarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL keeps up to 20,000 of them, which hostile clients make for nothing."""
    monkeypatch.setattr(tls, "_MOST_SESSIONS", 5)
    context = trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    with serving(tmp_path, tls_section()) as site:
        assert site.guard.last.tls is not None
        seen = []
        for _ in range(20):
            site.ask(context=context)
            seen.append(site.guard.last.tls._context.session_stats()["number"])
        assert 1 < max(seen) <= 6


def test_client_that_never_reads_meets_its_deadline(tmp_path: Path) -> None:
    """In TLS too, its thread and its answer's memory must come back."""
    with serving(tmp_path, tls_section(), Limits(answer_seconds=0.3)) as site, site.secured() as sock:
        site.pages.body = b"x" * (64 << 20)
        sock.sendall(GET % b"/metrics")
        wait_for_connections(0)


def test_close_is_quick(site: Site) -> None:
    """Whatever clients do, in a handshake, before a request or in an answer."""
    with site.connect() as silent, site.connect() as shaking, site.secured() as idle, site.secured() as busy:
        shaking.sendall(client_hello()[:30])
        site.pages.policies.clear()
        busy.sendall(GET % b"/metrics")
        assert site.pages.inside.acquire(timeout=PATIENCE)
        before = time.monotonic()
        site.server.close()
        assert time.monotonic() - before < Limits().request_seconds
        site.pages.policies.set()
        assert [read_all(sock) for sock in (silent, idle)] == [b"", b""]
    wait_for_connections(0)


def test_busy_server_closes_at_once(tmp_path: Path) -> None:
    """Telling why would take a handshake, and the thread that accepts makes none."""
    with serving(tmp_path, tls_section(), Limits(connections=1)) as site, site.secured() as one:
        site.pages.policies.clear()
        one.sendall(GET % b"/metrics")
        assert site.pages.inside.acquire(timeout=PATIENCE)
        with site.connect() as two:
            assert read_all(two) == b""
