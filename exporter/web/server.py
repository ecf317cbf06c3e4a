"""An HTTP server that strangers can't hold up.

A scrape has to be answered whatever else is connected: clients that say nothing, that send a byte a second, that never read, or
that come by the hundred. Hence one thread for each connection, at most `Limits.connections` of them, and these rules:

- A connection is at any time either waiting for its client (to send, or to read) or working on an answer.
- Every wait has a deadline for the whole of what is awaited. A time-out per `recv` would start anew with each byte that drips in.
- A newcomer that finds no room takes the place of a connection that waits for a request; a real client sends its request at
  once. Where none waits for one, it takes that of a client that has not read its answer for a while. Only where all are
  working on answers is it sent away.
- A stream of events, which has no end, counts against a small number of places of its own (`stream.py`), and each write to it has its
  deadline too.
- The thread that accepts never waits for anything else. The TLS handshake runs in the connection's thread, with the same deadlines.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import Counter
from http import HTTPStatus

from exporter.process.rate_limited_log import RateLimitedLog
from exporter.web import listening
from exporter.web.connection import Connection, Doing, Limits
from exporter.web.messages import Response
from exporter.web.policy import AccessPolicy, Open, PolicySource
from exporter.web.site import PageProvider, Site
from exporter.web.stream import Streams

__all__ = ["Limits", "PageProvider", "Server"]

logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 0.25


class Server:
    """Serves `pages` from `start` to `close`. Making one raises `OSError` where it can't listen (see `listening.bind_error_message`)."""

    def __init__(  # noqa: PLR0913
        self,
        listen_address: str,
        telemetry_path: str,
        pages: PageProvider,
        public_records: bool = False,
        limits: Limits | None = None,
        *,
        policies: PolicySource | None = None,
    ) -> None:
        self._streams = Streams(pages.hub, pages.live)
        self._policies = policies or Open()
        self._site = Site(telemetry_path, pages, public_records, self._streams, self._policies)
        self._limits = limits or Limits()
        self._refusals, self._failures = RateLimitedLog(logger), RateLimitedLog(logger)
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._closing = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="http-accept", daemon=True)
        self._listener = listening.listen(listen_address)
        self.port: int = self._listener.getsockname()[1]
        """The port in use, also where any was asked for (`:0`)."""

    def start(self) -> None:
        """Begin to answer."""
        self._acceptor.start()

    def close(self) -> None:
        """Stop listening and drop every connection. May be called twice."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        self._closing.set()
        self._streams.close()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        if self._acceptor.is_alive():
            self._acceptor.join(_CLOSE_SECONDS)
        self._listener.close()
        with self._lock:
            left = dict(self._connections)
        for connection in left:
            connection.drop()
        for thread in left.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, peer = self._listener.accept()
            except OSError as error:
                if not self._closing.is_set():  # most likely too many files are open
                    self._refusals.warning("cannot accept connections", error=error)
                    self._make_room(of=1)
                    self._closing.wait(0.1)
                continue
            if self._make_room(of=self._limits.connections):
                self._admit(Connection(client, str(peer[0]), self._site, self._limits))
            else:
                _send_away(client, self._policies.last)

    def _admit(self, connection: Connection) -> None:
        thread = threading.Thread(target=self._serve, args=(connection,), name="http-client", daemon=True)
        with self._lock:
            self._connections[connection] = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads for this user
            self._refusals.warning("cannot start a thread for a connection")
            with self._lock:
                self._connections.pop(connection, None)
            connection.close()

    def _serve(self, connection: Connection) -> None:
        try:
            connection.serve()
        except Exception:  # noqa: BLE001 - logged, with its traceback
            self._failures.exception("a connection failed")
        finally:
            with self._lock:
                self._connections.pop(connection, None)

    def _make_room(self, of: int) -> bool:
        """Have fewer than `of` connections, by dropping one if need be; return whether that succeeded."""
        with self._lock:
            if sum(not each.streams for each in self._connections) < of:
                return True
            dropped = self._most_dispensable()
            if dropped is None:
                return False
            del self._connections[dropped]
        dropped.drop()
        return True

    def _most_dispensable(self) -> Connection | None:
        """Return the connection that has waited longest for its client, of the address that has the most such connections.

        So a host that connects over and over takes the places from itself, not from others.
        """
        stalled = time.monotonic() - self._limits.stalled_seconds
        states = {connection: connection.state for connection in self._connections if not connection.streams}
        idle = [one for one, (doing, _) in states.items() if doing is Doing.AWAITS_REQUEST]
        idle = idle or [one for one, (doing, since) in states.items() if doing is Doing.AWAITS_READER and since < stalled]
        places = Counter(one.peer for one in idle)
        return min(idle, key=lambda one: (-places[one.peer], states[one][1]), default=None)


def _send_away(client: socket.socket, policy: AccessPolicy) -> None:
    """Answer 503 without ever waiting. In TLS that can't be done."""
    busy = Response.line(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections").to_bytes(keep_alive=False, headers=policy.headers)
    with client, contextlib.suppress(OSError):
        if policy.tls is not None:
            return
        client.send(busy, socket.MSG_DONTWAIT)
        client.shutdown(socket.SHUT_WR)
        client.recv(64 * 1024, socket.MSG_DONTWAIT)  # closing with something unread would throw the answer away
