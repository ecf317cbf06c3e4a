"""What is at which path, and who may see single records there."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator

import pytest

from exporter.web import site
from exporter.web.messages import Request
from tests.unit.web_clients import Client, serving


@pytest.fixture
def client() -> Iterator[Client]:
    with serving() as client:
        yield client


def test_pages(client: Client) -> None:
    """Each page is at its fixed path; a query changes nothing."""
    for path in ("/metrics", "/metrics?x=/-/ready", "/metrics#x"):
        status, headers, body = client.ask(path)
        assert (status, body, headers["Content-Type"]) == (200, client.pages.body, "text/plain; version=0.0.4; charset=utf-8")
    assert client.ask("/metrics", Accept="application/openmetrics-text")[1]["Content-Type"].startswith("application/openmetrics-text;")
    assert client.ask("/")[1]["Content-Type"] == "text/html; charset=utf-8"
    assert client.ask("/-/healthy")[2] == b"healthy\n"
    assert client.ask("/-/ready")[0] == 200
    client.pages.why_not_ready = "no mode yet"
    assert client.ask("/-/ready")[::2] == (503, b"no mode yet\n")


@pytest.mark.parametrize(
    "path",
    [
        "/metric",
        "/metrics/",
        "//metrics",
        "/%6detrics",
        "/../metrics",
        "/favicon.ico",
        "/docs/",
        "/docs/none.md",
        "/docs/../README.md",
        "/docs/adr/0001-counts-in-kernel-maps.md",
        "/docs/metrics.md/",
        "*",
        "/-/",
        "/Metrics",
    ],
)
def test_not_found(client: Client, path: str) -> None:
    """Nothing but the exact paths gives a page."""
    assert client.ask(path)[0] == 404


def test_absolute_form(client: Client) -> None:
    """HTTP asks every server to take it; its host counts, not the header's."""
    assert client.raw(b"GET http://x:1/metrics?a HTTP/1.0\r\n\r\n").endswith(client.pages.body)
    assert b"records=False" in client.raw(b"GET http://evil HTTP/1.0\r\nHost: localhost\r\n\r\n")


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


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.1.2.3:9", "[::1]", "[::1]:80", "[::ffff:127.0.0.1]"])
def test_names_for_the_host_itself(client: Client, host: str) -> None:
    """A person on the host sees who runs what there anyway."""
    assert client.ask("/", Host=host)[2] == b"<p>records=True</p>"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil", "127.0.0.1.evil", "127.1", "localhost@evil", "[::2]", "10.0.0.1", "", "::1", "[::1"]
)
def test_no_names_under_another_host(client: Client, host: str) -> None:
    """DNS rebinding makes the browser on the host ask us under a name of the attacker's."""
    assert client.ask("/", Host=host)[2] == b"<p>records=False</p>"


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"])
def test_no_names_behind_a_proxy(client: Client, header: str) -> None:
    """To a proxy on the host, everyone is local."""
    assert client.ask("/", **{header: "1.2.3.4"})[2] == b"<p>records=False</p>"


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


def test_totals_are_for_all(client: Client) -> None:
    """`/metrics` shows them to the same clients. A page of another site may not keep the exporter busy through its visitors."""
    for path, answer in (("/api/v1/page", b'{"records":false}\n'), ("/api/v1/busiest?by=comm", b"by=comm\n")):
        assert client.ask(path, Host="evil.example")[::2] == (200, answer)
        assert client.ask(path, Sec_Fetch_Site="cross-site")[0] == 403
    assert client.ask("/api/v1/short-processes", Host="evil.example")[0] == 403


def test_documents(client: Client) -> None:
    """An SRE without a way to the repository reads them from the exporter that the alert is about."""
    status, headers, body = client.ask("/docs/runbook.md")
    assert (status, headers["Content-Type"], body.startswith(b"# Runbook")) == (200, "text/plain; charset=utf-8", True)
    assert client.ask("/favicon.svg")[1]["Content-Type"] == "image/svg+xml"


def test_public_records_show_names_to_all() -> None:
    """The operator may decide otherwise."""
    with serving(public_records=True) as client:
        assert client.ask("/", Host="evil.example")[2] == b"<p>records=True</p>"


def test_error_in_a_page(client: Client, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """One broken page must not tell its inside to strangers, nor end the server."""
    client.pages.broken = True
    status, _, body = client.ask("/metrics")
    assert (status, body) == (500, b"internal error, see the exporter's log\n")
    assert [(record.levelno, record.name) for record in caplog.records] == [(logging.ERROR, "exporter.web.site")]
    assert capsys.readouterr().err == ""
    client.pages.broken = False
    assert client.ask("/metrics")[0] == 200
