"""What is at which path, and who may see names of processes."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from exporter.web import landing
from exporter.web.messages import Request, Response, accepts_gzip, gzipped

logger = logging.getLogger(__name__)

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]*)?")
_FROM_A_PROXY = ("forwarded", "via", "x-real-ip")


class Pages(Protocol):
    """What the server shows. Any call may come from any thread; an exception becomes a 500."""

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Give body and content type, by the Accept header."""

    def landing(self, names: bool) -> str:
        """Give the page at /, with or without names of processes."""

    def healthy(self) -> str | None:
        """Give the reason why not, or nothing."""

    def ready(self) -> str | None:
        """Give the reason why not, or nothing."""


@dataclass(frozen=True, slots=True)
class Site:
    telemetry_path: str
    pages: Pages
    public_records: bool
    one_at_a_time: threading.Lock = field(default_factory=threading.Lock)
    """Held while metrics are made: many at once would be no faster, but take the memory of many."""

    def answer(self, request: Request, peer: str) -> Response:
        """Answer a request from the address `peer`. Never raises."""
        if request.method not in {"GET", "HEAD"}:
            return Response.line(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered here", Allow="GET, HEAD")
        try:
            return self._page(request, peer)
        except Exception:
            logger.exception("a page failed", extra={"fields": {"path": request.path}})
            return Response.line(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error, see the exporter's log")

    def _page(self, request: Request, peer: str) -> Response:
        if request.path == self.telemetry_path:
            return self._metrics(request)
        match request.path:
            case "/":
                page = self.pages.landing(self.public_records or is_local(request, peer))
                headers = {"Content-Security-Policy": landing.CONTENT_SECURITY_POLICY}
                return Response(HTTPStatus.OK, page.encode(errors="replace"), "text/html; charset=utf-8", headers)
            case "/-/healthy":
                return _state(self.pages.healthy, "healthy")
            case "/-/ready":
                return _state(self.pages.ready, "ready")
        return Response.line(HTTPStatus.NOT_FOUND, f"nothing here; metrics are at {self.telemetry_path}")

    def _metrics(self, request: Request) -> Response:
        headers = {"Vary": "Accept, Accept-Encoding"}
        with self.one_at_a_time:
            body, content_type = self.pages.metrics(request.headers.get("accept", ""))
            if accepts_gzip(request.headers.get("accept-encoding", "")):
                body = gzipped(body)
                headers["Content-Encoding"] = "gzip"
        return Response(HTTPStatus.OK, body, content_type, headers)


def _state(why_not: Callable[[], str | None], state: str) -> Response:
    reason = why_not()
    return Response.line(HTTPStatus.OK, state) if reason is None else Response.line(HTTPStatus.SERVICE_UNAVAILABLE, reason)


def is_local(request: Request, peer: str) -> bool:
    """Say whether a person on this very host asks.

    The peer alone would not do: a proxy here asks for everyone, and a page from elsewhere can make a browser here ask under a
    name that it had resolved to a loopback address (DNS rebinding).
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
