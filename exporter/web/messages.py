"""HTTP/1.x requests and responses as values. Sockets are in `connection.py`, paths in `site.py`."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

MAX_HEAD = 16 * 1024

_DATE = "%a, %d %b %Y %H:%M:%S GMT"
"""In English, for the locale of times is never set here."""

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/(\d)\.(\d)")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r]*)")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)([^?#]*)", re.IGNORECASE)
_NONE: Mapping[str, str] = {}


class BadRequest(Exception):
    """The received bytes are not a valid or supported request."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    """Without the query, not decoded."""
    headers: dict[str, str]
    """By name in lower case; values of equal names are joined by a comma."""
    host: str
    keep_alive: bool
    query: str = ""
    """The query string after the ?, not decoded."""
    takes_chunks: bool = True
    """Whether the client understands chunks: not one of HTTP/1.0."""

    @property
    def has_body(self) -> bool:
        """Whether the headers announce a body."""
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"


class Stream(Iterator[bytes], Protocol):
    """A body in pieces, until the connection ends. An empty piece means that there is nothing new yet."""

    def close(self) -> None:
        """Release its place."""


@dataclass(frozen=True, slots=True)
class Response:
    status: HTTPStatus
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    stream: Stream | None = None
    """Sent after the body, until the connection ends."""
    pieces: Iterator[bytes] | None = None
    """A body in pieces, in place of `body`."""

    @classmethod
    def line(cls, status: HTTPStatus, line: str, **headers: str) -> Response:
        """Return a response with one line of text."""
        return cls(status, f"{line}\n".encode(), headers=headers)

    def to_bytes(self, *, keep_alive: bool, with_body: bool = True, chunked: bool = True, headers: Mapping[str, str] = _NONE) -> bytes:
        """Return the bytes to send first. `headers` override those of the response. Without body, headers are the same as with it.

        Pieces follow in chunks, or, for clients of HTTP/1.0, until the connection ends.
        """
        length: dict[str, object] = {} if self.stream else {"Content-Length": len(self.body)}
        if self.pieces is not None:
            length = {"Transfer-Encoding": "chunked"} if chunked else {}
        lines = {
            "Date": time.strftime(_DATE, time.gmtime()),
            "Server": "shortproc-exporter",
            "Content-Type": self.content_type,
            **length,
            "Connection": "keep-alive" if keep_alive else "close",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
            **self.headers,
            **headers,
        }
        first = f"HTTP/1.1 {self.status.value} {self.status.phrase}"
        head = "\r\n".join((first, *(f"{name}: {value}" for name, value in lines.items()), "", ""))
        return head.encode("latin-1") + self.body * with_body


def pop_request(received: bytearray) -> Request | None:
    """Remove the first complete request head from `received`, and return it; None if there is none. Raises `BadRequest`."""
    skipped = len(received) - len(received.lstrip(b"\r\n"))  # RFC 9112 asks servers to ignore empty lines before a request
    end = _HEAD_END.search(received, skipped, MAX_HEAD)
    if end is None:
        if len(received) >= MAX_HEAD:
            in_first_line = b"\n" not in received[skipped:MAX_HEAD]
            status = HTTPStatus.REQUEST_URI_TOO_LONG if in_first_line else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise BadRequest(status, f"request larger than {MAX_HEAD} bytes")
        return None
    head = received[skipped : end.start()].decode("latin-1")
    del received[: end.end()]
    return _parsed([line.removesuffix("\r") for line in head.split("\n")])


def _parsed(lines: list[str]) -> Request:
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "malformed request line")
    method, target, major, minor = match.groups()
    if major != "1":
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are supported")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        field_match = _HEADER.fullmatch(line)
        if field_match is None:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "malformed header")
        name, value = field_match[1].lower(), field_match[2].rstrip(" \t")
        if name == "host" and name in headers:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "more than one Host header")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if minor != "0" and "host" not in headers:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "missing Host header")
    target = target.partition("#")[0]
    host, (path, _, query) = headers.get("host", ""), target.partition("?")
    if absolute := _ABSOLUTE.match(target):  # the form of requests to a proxy; its host overrides the Host header
        host, path = absolute[1], absolute[2] or "/"
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    keep_alive = "close" not in options and (minor != "0" or "keep-alive" in options)
    return Request(method, path, headers, host, keep_alive, query, minor != "0")


def gzipped(body: bytes) -> bytes:
    """Compress quickly: a scrape is a tenth of its size, and level 6 would take a fifth less for three times the CPU time."""
    compressor = zlib.compressobj(level=1, wbits=31)
    return compressor.compress(body) + compressor.flush()
