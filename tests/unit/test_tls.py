"""TLS on real sockets: what is spoken, and whom certificates let in."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.web.webconfig import SUITES
from tests.unit import certificates
from tests.unit.guarded_site import ELSEWHERE, Site, serving, tls_section, trusting, verifying
from tests.unit.web_clients import GET, read_all, read_answer


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


# Certificates of clients


@pytest.mark.parametrize("who", ["client", "stranger", "nobody"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_only_certified_clients(tmp_path: Path, who: str, version: str) -> None:
    """`RequireAndVerifyClientCert` lets in whom the authority certified, and shows them names."""
    context = trusting({"client": certificates.client(), "stranger": certificates.stranger()}.get(who))
    context.maximum_version = ssl.TLSVersion[version]
    with serving(tmp_path, verifying()) as site:
        if who == "client":
            assert site.ask("/", ELSEWHERE, context).body == b"<p>records=True</p>"
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
