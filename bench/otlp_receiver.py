"""A receiver of OpenTelemetry logs over HTTP, built on the official protobuf definitions, that answers as it is told."""

from __future__ import annotations

import gzip
import ssl
import threading
from collections import deque
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord


class Reply(NamedTuple):
    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    """By default success, or partial success."""
    rejected: int = 0


class Request(NamedTuple):
    path: str
    headers: dict[str, str]
    message: ExportLogsServiceRequest
    status: int


class Receiver:
    """Listens on loopback until it is closed, and keeps what it accepts, or only how many."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None, *, keep: bool = True) -> None:
        self.replies: deque[Reply] = deque()
        """What it answers next; then success."""
        self.requests: list[Request] = []
        self.records: list[LogRecord] = []
        self.accepted = 0
        self.changed = threading.Condition()
        self.port = port
        self._keep = keep
        self.open(tls)

    def open(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen, after it was closed again on the same port."""
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.receiver = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def accept(self, path: str, headers: dict[str, str], body: bytes) -> Reply:
        """Keep a request, and say how to answer."""
        message = ExportLogsServiceRequest.FromString(gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body)
        records = [record for resource in message.resource_logs for scope in resource.scope_logs for record in scope.log_records]
        with self.changed:
            reply = self.replies.popleft() if self.replies else Reply()
            if reply.status == 200:
                self.accepted += len(records) - reply.rejected
            if self._keep:
                self.requests.append(Request(path, headers, message, reply.status))
                self.records += records[reply.rejected :] if reply.status == 200 else []
            self.changed.notify_all()
        return reply


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    receiver: Receiver

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave at any time."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        reply = self.server.receiver.accept(self.path, {key.lower(): value for key, value in self.headers.items()}, body)
        data = reply.body
        if data is None:
            partial = ExportLogsPartialSuccess(rejected_log_records=reply.rejected, error_message="too old") if reply.rejected else None
            data = ExportLogsServiceResponse(partial_success=partial).SerializeToString()
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/x-protobuf", "Content-Length": str(len(data)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""
