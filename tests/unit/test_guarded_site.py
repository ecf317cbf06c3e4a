"""Passwords, limits, headers and streams behind a web configuration, without TLS and with it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import logging
import socket
import threading
import time
from pathlib import Path

import pytest

from exporter.web.limits import Limits
from tests.unit.guarded_site import ELSEWHERE, serving, tls_section
from tests.unit.pages import record, soon
from tests.unit.web_clients import PATIENCE, read_all, wait_for_connections

bcrypt = pytest.importorskip("bcrypt", reason="basic authentication needs it")

HASHES = {name: str(bcrypt.hashpw(b"wonder", bcrypt.gensalt(4)).decode()) for name in ("alice", "bob")}
USERS = f"basic_auth_users: {json.dumps(HASHES)}\n"
ALICE = {"Authorization": f"Basic {base64.b64encode(b'alice:wonder').decode()}"}
WRONG = {"Authorization": f"Basic {base64.b64encode(b'alice:wander').decode()}"}


def test_password_is_asked_for_everywhere(tmp_path: Path) -> None:
    """As the toolkit does: of health checks and of this host too."""
    with serving(tmp_path, USERS) as site:
        for path in ("/metrics", "/", "/-/healthy", "/-/ready", "/api/v1/short-processes", "/api/v1/busiest", "/nothing"):
            for headers in ({}, WRONG):
                answer = site.ask(path, headers)
                assert (answer.status, answer.headers["WWW-Authenticate"][:6]) == (401, "Basic ")
            assert site.ask(path, ALICE).status == (404 if path == "/nothing" else 200)


def test_names_are_for_those_who_authenticate(tmp_path: Path) -> None:
    """From anywhere, under any name of the host, and through a proxy."""
    with serving(tmp_path, USERS) as site:
        headers = ALICE | ELSEWHERE | {"X-Forwarded-For": "1.2.3.4"}
        assert site.ask("/", headers).body == b"<p>records=True</p>"
        assert b'"comm":"cc1"' in site.ask("/api/v1/short-processes", headers).body
        assert site.ask("/api/v1/busiest?by=comm", headers).body == b"by=comm\n"
        assert site.ask("/api/v1/short-processes", headers | {"Sec-Fetch-Site": "cross-site"}).status == 403
    with serving(tmp_path, "") as site:
        assert site.ask("/", headers).body == b"<p>records=False</p>"
        assert site.ask("/api/v1/short-processes", headers).status == 403
        assert site.ask("/api/v1/busiest?by=comm", headers).body == b"by=comm\n", "/metrics shows the same totals"
        assert site.ask("/api/v1/busiest", headers | {"Sec-Fetch-Site": "cross-site"}).status == 403


def test_rate_limit(tmp_path: Path) -> None:
    """429 beyond it, whoever asks."""
    with serving(tmp_path, "rate_limit: {interval: 1h, burst: 3}") as site:
        assert [site.ask().status for _ in range(5)] == [200, 200, 200, 429, 429]


def test_headers_are_in_every_answer(tmp_path: Path) -> None:
    """What the operator says beats what the page says, since an exporter on the toolkit would have no such header of its own."""
    headers = "{X-Frame-Options: sameorigin, Content-Security-Policy: default-src 'self', X-Content-Type-Options: nosniff}"
    with serving(tmp_path, f"{USERS}http_server_config: {{headers: {headers}}}") as site:
        with site.connect() as sock:
            sock.sendall(b"nonsense\r\n\r\n")
            assert read_all(sock).decode().splitlines().count("Content-Security-Policy: default-src 'self'") == 1
        for path, given in (("/", ALICE), ("/metrics", ALICE), ("/nothing", ALICE), ("/", {})):
            answer = site.ask(path, given)
            assert answer.headers.get_all("Content-Security-Policy") == ["default-src 'self'"]
            assert answer.headers.get_all("X-Content-Type-Options") == ["nosniff"]
            assert answer.headers["X-Frame-Options"] == "sameorigin"


def test_flood_of_wrong_passwords_does_not_starve_the_scraper(tmp_path: Path) -> None:
    """At the cost that htpasswd -C 12 gives, each wrong one takes a quarter of a second; the scraper shares its address with the flood."""
    costly = bcrypt.hashpw(b"wonder", bcrypt.gensalt(12)).decode()
    with serving(tmp_path, f"basic_auth_users: {{alice: {costly}}}") as site:
        assert site.ask(headers=ALICE).status == 200
        stop = threading.Event()
        seen: list[int] = []

        def flood(number: int) -> None:
            while not stop.is_set():
                number += 100
                wrong = base64.b64encode(b"alice:%d" % number).decode()
                with contextlib.suppress(OSError, http.client.HTTPException):
                    seen.append(site.ask(headers={"Authorization": f"Basic {wrong}"}).status)

        threads = [threading.Thread(target=flood, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            before = time.monotonic()
            assert site.ask(headers=ALICE).status == 200
            assert time.monotonic() - before < Limits().request_seconds
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert set(seen) <= {401, 503}


def follow(sock: socket.socket, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    sock.sendall(f"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
    head = b""
    while b'"comm":"cc1"' not in head:
        chunk = sock.recv(65536)
        assert chunk
        head += chunk
    return head


def test_stream_over_tls_with_a_password(tmp_path: Path) -> None:
    """It has no end of its own, yet a client that leaves is noticed."""
    with serving(tmp_path, tls_section() + USERS) as site:
        with site.secured() as sock:
            assert follow(sock, ALICE).startswith(b"HTTP/1.1 200 ")
            site.pages.hub.publish([record(comm=b"later")])
            received = b""
            while b'"comm":"later"' not in received:
                received += sock.recv(65536)
        wait_for_connections(0)


def test_stream_ends_where_its_user_is_gone(tmp_path: Path) -> None:
    """Who may not see names any more must not go on seeing them."""
    with serving(tmp_path, tls_section() + USERS) as site, site.secured() as sock:
        follow(sock, ALICE)
        site.file.write_text(f"{tls_section()}basic_auth_users: {{bob: {HASHES['bob']}}}")
        read_all(sock)
        assert site.ask(headers=ALICE).status == 401


def test_bad_change_leaves_the_server_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A typing error must neither end the monitoring nor open the door."""
    with serving(tmp_path, tls_section() + USERS) as site:
        site.file.write_text("basic_auth_users: {alice: oops}")
        for _ in range(3):
            assert site.ask(headers=ALICE).status == 200
            assert site.ask(headers=WRONG).status == 401
        assert [each.levelno for each in caplog.records] == [logging.ERROR]
        site.file.write_text(tls_section() + USERS.replace("alice", "carol"))
        for _ in soon():
            if site.ask(headers=ALICE).status == 401:
                break
