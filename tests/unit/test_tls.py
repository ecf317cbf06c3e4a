"""The server behind a web configuration: real sockets, real TLS, and clients that mean no good."""

from __future__ import annotations

import base64
import contextlib
import gc
import http.client
import json
import logging
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import certificates
import pytest
from pages import record, soon
from test_server import GET, PATIENCE, FakePages, read_all, read_answer, wait_for_connections

from exporter.web import guard, tls
from exporter.web.connection import Limits
from exporter.web.guard import Guard
from exporter.web.server import Server
from exporter.web.webconfig import SUITES

bcrypt = pytest.importorskip("bcrypt", reason="basic authentication needs it")

HASHES = {name: str(bcrypt.hashpw(b"wonder", bcrypt.gensalt(4)).decode()) for name in ("alice", "bob")}
USERS = f"basic_auth_users: {json.dumps(HASHES)}\n"
ALICE = {"Authorization": f"Basic {base64.b64encode(b'alice:wonder').decode()}"}
WRONG = {"Authorization": f"Basic {base64.b64encode(b'alice:wander').decode()}"}
ELSEWHERE = {"Host": "exporter.example"}


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Site:
    """A server with a web configuration, and ways to talk to it."""

    def __init__(self, folder: Path, text: str, limits: Limits | None = None) -> None:
        self.file = folder / "web.yml"
        self.file.write_text(text)
        self.pages = FakePages()
        self.pages.hub.publish([record()])
        self.guard = Guard(str(self.file))
        self.server = Server("127.0.0.1:0", "/metrics", self.pages, limits=limits, gate=self.guard)
        self.server.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), PATIENCE)

    def secured(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        return (context or trusting()).wrap_socket(self.connect(), server_hostname="localhost")

    def ask(self, path: str = "/metrics", headers: dict[str, str] | None = None, context: ssl.SSLContext | None = None) -> Answer:
        to = ("127.0.0.1", self.server.port)
        plain = self.guard.last.tls is None
        connection = (
            http.client.HTTPConnection(*to, timeout=PATIENCE)
            if plain
            else http.client.HTTPSConnection(*to, timeout=PATIENCE, context=context or trusting())
        )
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())


def trusting(own: certificates.Pair | None = None) -> ssl.SSLContext:
    """A client's context; with `own`, it shows that certificate."""
    context = ssl.create_default_context(cafile=str(certificates.server().cert))
    if own is not None:
        context.load_cert_chain(*own)
    return context


def tls_section(**more: str) -> str:
    keys = {"cert_file": str(certificates.server().cert), "key_file": str(certificates.server().key)} | more
    return "tls_server_config:\n" + "".join(f"  {key}: {value}\n" for key, value in keys.items())


def verifying(**more: str) -> str:
    return tls_section(client_auth_type="RequireAndVerifyClientCert", client_ca_file=str(certificates.made("authority").cert), **more)


@pytest.fixture(autouse=True)
def always_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the files at every call, not once a second."""
    monkeypatch.setattr(guard, "_CHECK_SECONDS", 0.0)


@contextlib.contextmanager
def serving(folder: Path, text: str, limits: Limits | None = None) -> Iterator[Site]:
    site = Site(folder, text, limits)
    try:
        yield site
    finally:
        site.pages.gate.set()
        site.server.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving(tmp_path, tls_section()) as site:
        yield site


def test_pages_over_tls(site: Site) -> None:
    """The same pages, the same rules, on one connection as on many."""
    for path, status in (("/metrics", 200), ("/", 200), ("/-/healthy", 200), ("/nothing", 404)):
        assert site.ask(path).status == status
    site.pages.body = b"x" * (1 << 20)
    assert site.ask().body == site.pages.body
    with site.secured() as sock:
        assert sock.version() == "TLSv1.3"
        for _ in range(3):
            sock.sendall(GET % b"/-/ready")
            assert read_answer(sock).startswith(b"HTTP/1.1 200 ")


def test_answer_ends_with_a_goodbye(site: Site) -> None:
    """Without it, a client can't tell an answer that ended from one that was cut off."""
    with trusting().wrap_socket(site.connect(), server_hostname="localhost", suppress_ragged_eofs=False) as sock:
        sock.sendall(b"GET /-/ready HTTP/1.0\r\n\r\n")
        assert read_all(sock).endswith(b"ready\n")


@pytest.mark.parametrize(("settings", "version", "works"), [
    ({"max_version": "TLS12"}, "TLSv1_2", True),
    ({"max_version": "TLS12"}, "TLSv1_3", False),
    ({"min_version": "TLS13"}, "TLSv1_3", True),
    ({"min_version": "TLS13"}, "TLSv1_2", False),
    ({}, "TLSv1_2", True),
])  # fmt: skip
def test_versions(tmp_path: Path, settings: dict[str, str], version: str, works: bool) -> None:
    """What the file allows is spoken, and nothing else."""
    context = trusting()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with serving(tmp_path, tls_section(**settings)) as site:
        if works:
            assert site.ask(context=context).status == 200
        else:
            with pytest.raises(OSError, match=r"(?i)version"):
                site.ask(context=context)


def test_cipher_suites_and_curve(tmp_path: Path) -> None:
    """Go's names mean the same suites here; TLS 1.3 has its own, as in Go."""
    suites = "[TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, TLS_AES_128_GCM_SHA256]"
    with serving(tmp_path, tls_section(max_version="TLS12", cipher_suites=suites, curve_preferences="[CurveP256]")) as site:
        with site.secured() as sock:
            assert (sock.cipher() or ("",))[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"
        other = trusting()
        other.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
        with pytest.raises(ssl.SSLError):
            site.secured(other)


def test_all_suites_of_the_schema_are_known_to_openssl() -> None:
    """The mapping of names is by hand."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    assert set(SUITES.values()) <= {str(each["name"]) for each in context.get_ciphers()}


def test_plain_http_is_told_so(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The most frequent mistake deserves a line, and no traceback."""
    with site.connect() as sock:
        sock.sendall(GET % b"/metrics")
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"this port speaks HTTPS, not HTTP\n")
    assert not caplog.records


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
                assert time.monotonic() - before < 3
            assert threading.active_count() < 100
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


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


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
    assert first.fields == {"peer": "127.0.0.1", "reason": "tlsv1 alert unknown ca", "failures": 1}  # type: ignore[attr-defined]
    assert site.guard.last.tls is not None
    monkeypatch.setattr(site.guard.last.tls, "_log_at", 0.0)
    with pytest.raises(ssl.SSLCertVerificationError):
        site.ask(context=distrusting)
    wait_for_connections(0)
    assert caplog.records[1].fields["failures"] == 5  # type: ignore[attr-defined]


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
        site.pages.gate.clear()
        busy.sendall(GET % b"/metrics")
        assert site.pages.inside.acquire(timeout=PATIENCE)
        before = time.monotonic()
        site.server.close()
        assert time.monotonic() - before < 2
        site.pages.gate.set()
        assert [read_all(sock) for sock in (silent, idle)] == [b"", b""]
    wait_for_connections(0)


def test_busy_server_closes_at_once(tmp_path: Path) -> None:
    """Telling why would take a handshake, and the thread that accepts makes none."""
    with serving(tmp_path, tls_section(), Limits(connections=1)) as site, site.secured() as one:
        site.pages.gate.clear()
        one.sendall(GET % b"/metrics")
        assert site.pages.inside.acquire(timeout=PATIENCE)
        with site.connect() as two:
            assert read_all(two) == b""


# Certificates of clients


@pytest.mark.parametrize("who", ["client", "stranger", "nobody"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_only_certified_clients(tmp_path: Path, who: str, version: str) -> None:
    """`RequireAndVerifyClientCert` lets in whom the authority certified, and shows them names."""
    context = trusting({"client": certificates.client(), "stranger": certificates.stranger()}.get(who))
    context.maximum_version = ssl.TLSVersion[version]
    with serving(tmp_path, verifying()) as site:
        if who == "client":
            assert site.ask("/", ELSEWHERE, context).body == b"<p>names=True</p>"
        else:
            with pytest.raises(OSError, match=r"(?i)alert|reset|EOF|closed"):
                site.ask(context=context)
            assert not site.pages.inside.acquire(timeout=0)


@pytest.mark.parametrize(("own", "names"), [(True, b"True"), (False, b"False")])
def test_certificate_if_given(tmp_path: Path, own: bool, names: bytes) -> None:
    """Without one, a client is like any other; a bad one is refused."""
    text = verifying().replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
    with serving(tmp_path, text) as site:
        assert names in site.ask("/", ELSEWHERE, trusting(certificates.client() if own else None)).body
        with pytest.raises(OSError, match=r"(?i)alert|reset|EOF|closed"):
            site.ask(context=trusting(certificates.stranger()))


@pytest.mark.parametrize(
    ("allowed", "works"),
    [
        ("scraper", True),
        ("a@b.example", True),
        ("10.0.0.1", True),
        ("'fe80::1'", True),
        ("'spiffe://x/y'", True),
        ("scrape", False),
        ("client", False),
    ],
)
def test_allowed_names(tmp_path: Path, allowed: str, works: bool, caplog: pytest.LogCaptureFixture) -> None:
    """As in the toolkit: a DNS name, address, e-mail or URI that is equal, and never the common name."""
    with serving(tmp_path, verifying(client_allowed_sans=f"[nobody, {allowed}]")) as site:
        if works:
            assert site.ask(context=trusting(certificates.client())).status == 200
        else:
            with pytest.raises((OSError, http.client.RemoteDisconnected)):
                site.ask(context=trusting(certificates.client()))
            assert "client_allowed_sans" in str(caplog.records[0].fields["reason"])  # type: ignore[attr-defined]


def test_kept_connection_ends_where_the_authority_changed(tmp_path: Path) -> None:
    """Who is certified no longer must not stay for as long as it keeps its connection."""
    with serving(tmp_path, verifying()) as site, site.secured(trusting(certificates.client())) as sock:
        sock.sendall(GET % b"/-/ready")
        assert read_answer(sock).startswith(b"HTTP/1.1 200 ")
        site.file.write_text(verifying().replace(str(certificates.made("authority").cert), str(certificates.made("other-authority").cert)))
        sock.sendall(GET % b"/-/ready")
        assert read_all(sock) == b""
        assert site.ask(context=trusting(certificates.stranger())).status == 200


def test_new_certificate_is_shown_at_once(site: Site) -> None:
    """Certificates of an hour's life are common."""
    fresh = certificates.made("fresh", "subjectAltName=IP:127.0.0.1")
    site.file.write_text(tls_section(cert_file=str(fresh.cert), key_file=str(fresh.key)))
    assert site.ask(context=ssl.create_default_context(cafile=str(fresh.cert))).status == 200


# Passwords, limits and headers, without TLS and with it


def test_password_is_asked_for_everywhere(tmp_path: Path) -> None:
    """As the toolkit does: of health checks and of this host too."""
    with serving(tmp_path, USERS) as site:
        for path in ("/metrics", "/", "/-/healthy", "/-/ready", "/api/v1/short-processes", "/nothing"):
            for headers in ({}, WRONG):
                answer = site.ask(path, headers)
                assert (answer.status, answer.headers["WWW-Authenticate"][:6]) == (401, "Basic ")
            assert site.ask(path, ALICE).status == (404 if path == "/nothing" else 200)


def test_names_are_for_those_who_authenticate(tmp_path: Path) -> None:
    """From anywhere, under any name of the host, and through a proxy."""
    with serving(tmp_path, USERS) as site:
        headers = ALICE | ELSEWHERE | {"X-Forwarded-For": "1.2.3.4"}
        assert site.ask("/", headers).body == b"<p>names=True</p>"
        assert b'"comm":"cc1"' in site.ask("/api/v1/short-processes", headers).body
        assert site.ask("/api/v1/short-processes", headers | {"Sec-Fetch-Site": "cross-site"}).status == 403
    with serving(tmp_path, "") as site:
        assert site.ask("/", headers).body == b"<p>names=False</p>"
        assert site.ask("/api/v1/short-processes", headers).status == 403


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
            assert time.monotonic() - before < 3
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
