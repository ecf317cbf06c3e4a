"""The paths of the site, and which clients may see single records of processes."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from exporter.metrics.formats import Format
from exporter.process.rate_limited_log import RateLimitedLog
from exporter.records.encoding import encode
from exporter.records.fields import Json
from exporter.records.hub import Hub
from exporter.records.record import Record
from exporter.web import api, documents, landing
from exporter.web.accept import accepts_gzip, negotiate
from exporter.web.messages import Request, Response, gzipped
from exporter.web.policy import AccessPolicy, Open, PolicySource, Refused
from exporter.web.shared import Shared, Urgent
from exporter.web.stream import Streams

logger = logging.getLogger(__name__)

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]*)?")
_STREAM = "/api/v1/stream"
_OF_RECORDS = ("/api/v1/short-processes", "/api/v1/lineage", _STREAM)
_OF_TOTALS = ("/api/v1/page", "/api/v1/busiest")
"""Totals by name: for all clients that may read metrics."""
_LARGE = ("/", *_OF_TOTALS, "/api/v1/short-processes", "/api/v1/lineage")
_STEP = 1000
"""Records that are searched in about a millisecond."""
_FROM_A_PROXY = ("forwarded", "via", "x-real-ip")
_RECORDS_HIDDEN = (
    "records of single processes are shown only to clients on this host that connect directly to localhost, and to "
    "authenticated clients (--web.config.file); to show them to all clients, set web.public_records: true in the configuration"
)


class PageProvider(Protocol):
    """Provides the content of the server. Called from any thread; an exception becomes a 500."""

    hub: Hub

    def metrics(self, form: Format) -> bytes:
        """Return the body of /metrics."""

    def landing(self, records: bool) -> str:
        """Return the page at /, with or without single records."""

    def live(self, records: bool) -> Json:
        """Return the changing parts of that page."""

    def busiest(self, query: str) -> str:
        """Return a line of JSON, or raise `api.BadQuery`."""

    def lineage(self, query: str) -> tuple[str, str]:
        """Return who starts what and its content type, or raise `api.BadQuery`."""

    def healthy(self) -> str | None:
        """Return None if healthy, else the reason why not."""

    def ready(self) -> str | None:
        """Return None if ready, else the reason why not."""


@dataclass(frozen=True, slots=True)
class Site:
    telemetry_path: str
    pages: PageProvider
    public_records: bool
    streams: Streams
    policies: PolicySource = field(default_factory=Open)
    failures: RateLimitedLog = field(default_factory=lambda: RateLimitedLog(logger))
    urgent: Urgent = field(default_factory=Urgent)
    metrics: Shared = field(default_factory=Shared)
    """Makes the bodies of /metrics: one at a time, since several at once would not be faster, but take more memory."""
    others: Shared = field(default_factory=Shared)
    """Makes all other large answers, so that many of them cannot delay metrics more than one does."""

    def is_large(self, request: Request) -> bool:
        """Return whether the answer may be large. Metrics are not, and have other places."""
        return (request.path in _LARGE or request.path.startswith(documents.FOLDER)) and request.path != self.telemetry_path

    def answer(self, request: Request, peer: str, policy: AccessPolicy, certified: bool = False) -> Response:
        """Return the response to a request from the address `peer`. `certified`: it has a verified client certificate. Never raises."""
        try:
            known = policy.admit(request, peer) or certified
            if request.method not in {"GET", "HEAD"}:
                return Response.line(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are supported", Allow="GET, HEAD")
            return self._page(request, known or self.public_records or is_local(request, peer))
        except Refused as refused:
            return refused.response
        except Exception:  # noqa: BLE001 - logged, with its traceback
            self.failures.exception("a page failed", path=request.path)
            return Response.line(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error, see the exporter's log")

    def _page(self, request: Request, may_see_records: bool) -> Response:
        if request.path == self.telemetry_path:
            return self._metrics(request)
        match request.path:
            case "/":
                return self._landing(may_see_records)
            case path if path in _OF_TOTALS or path in _OF_RECORDS:
                return self._api(request, may_see_records)
            case "/-/healthy":
                return _state(self.pages.healthy, "healthy")
            case "/-/ready":
                return _state(self.pages.ready, "ready")
        return self._file(request.path)

    def _landing(self, may_see_records: bool) -> Response:
        self.urgent.give_way()
        page = self.others.get(("/", may_see_records), lambda: self.pages.landing(may_see_records).encode(errors="replace"))
        headers = {"Content-Security-Policy": landing.content_security_policy()}
        return Response(HTTPStatus.OK, page, "text/html; charset=utf-8", headers)

    def _file(self, path: str) -> Response:
        if path == landing.ICON_PATH:
            return Response(HTTPStatus.OK, landing.ICON, "image/svg+xml")
        if (document := documents.read(path)) is not None:
            return Response(HTTPStatus.OK, document, "text/plain; charset=utf-8")
        return Response.line(HTTPStatus.NOT_FOUND, f"nothing here; metrics are at {self.telemetry_path}")

    def _api(self, request: Request, may_see_records: bool) -> Response:
        foreign = _is_of_another_site(request)
        if request.path in _OF_RECORDS and (foreign or not may_see_records):
            return Response.line(HTTPStatus.FORBIDDEN, _RECORDS_HIDDEN)
        if foreign:
            return Response.line(HTTPStatus.FORBIDDEN, "pages of other sites may not use the API")
        return self._stream(request) if request.path == _STREAM else self._query(request)

    def _query(self, request: Request) -> Response:
        self.urgent.give_way()
        try:
            found, content_type = self.others.get((request.path, request.query), lambda: self._found(request))
        except api.BadQuery as bad:
            return Response.line(HTTPStatus.BAD_REQUEST, str(bad))
        if isinstance(found, bytes):
            return Response(HTTPStatus.OK, found, content_type)
        return Response(HTTPStatus.OK, content_type=content_type, pieces=self._pieces(found))

    def _found(self, request: Request) -> tuple[bytes | api.Found, str]:
        content_type = "application/json"
        if request.path == "/api/v1/page":
            return f"{encode(self.pages.live(records=False))}\n".encode(), content_type
        if request.path == "/api/v1/busiest":
            return self.pages.busiest(request.query).encode(), content_type
        if request.path == "/api/v1/lineage":
            text, content_type = self.pages.lineage(request.query)
            return text.encode(), content_type
        found = api.short_processes(self._urgent_first(reversed(self.pages.hub.recent())), request.query)
        return (found.piece(0) if len(found) == 1 else found), content_type

    def _urgent_first(self, records: Iterable[Record]) -> Iterator[Record]:
        for number, record in enumerate(records):
            if number % _STEP == 0:
                self.urgent.give_way()
            yield record

    def _pieces(self, found: api.Found) -> Iterator[bytes]:
        for number in range(len(found)):
            self.urgent.give_way()
            with self.others.turn:
                piece = found.piece(number)
            yield piece

    def _stream(self, request: Request) -> Response:
        content_type = "text/event-stream"
        if request.method == "HEAD":
            return Response(HTTPStatus.OK, content_type=content_type)
        stream = self.streams.open()
        if stream is None:
            return Response.line(HTTPStatus.SERVICE_UNAVAILABLE, "all places for streams are taken")
        return Response(HTTPStatus.OK, content_type=content_type, headers={"X-Accel-Buffering": "no"}, stream=stream)

    def _metrics(self, request: Request) -> Response:
        form, content_type = negotiate(request.headers.get("accept", ""))
        compressed = accepts_gzip(request.headers.get("accept-encoding", ""))

        def make() -> bytes:
            body = self.pages.metrics(form)
            return gzipped(body) if compressed else body

        with self.urgent:
            body = self.metrics.get((form, compressed), make)
        headers = {"Vary": "Accept, Accept-Encoding", **({"Content-Encoding": "gzip"} if compressed else {})}
        return Response(HTTPStatus.OK, body, content_type, headers)


def _state(why_not: Callable[[], str | None], state: str) -> Response:
    reason = why_not()
    return Response.line(HTTPStatus.OK, state) if reason is None else Response.line(HTTPStatus.SERVICE_UNAVAILABLE, reason)


def _is_of_another_site(request: Request) -> bool:
    """Return whether a page of another site makes a browser send this. It could not read the answer, but occupy places for streams."""
    return request.headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}


def is_local(request: Request, peer: str) -> bool:
    """Return whether a user of this host sends the request.

    The address alone is not enough. A proxy on this host forwards requests of other hosts. And a page of another site can make a browser on
    this host send requests, with a host name that resolves to a loopback address (DNS rebinding).
    """
    forwarded = any(name in _FROM_A_PROXY or name.startswith("x-forwarded") for name in request.headers)
    return not forwarded and _is_loopback(peer) and _names_loopback(request.host)


def _names_loopback(host: str) -> bool:
    match = _HOST.fullmatch(host.lower())
    return match is not None and (match[1] == "localhost" or _is_loopback(match[1].strip("[]")))


def _is_loopback(address: str) -> bool:
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback
