"""An HTTP server that slow or hostile clients cannot block.

Scrapes must be answered even if other clients send nothing, send one byte per second, never read, or connect by the hundred. So each
connection has a thread, there are at most `Limits.connections` of them, and these rules hold:

- A connection either waits for its client (to send or to read), or works on an answer.
- Every wait has a deadline for the whole request or answer. A timeout per `recv` would restart with each byte.
- If all places are taken, a new connection replaces one that waits for a request: a real client sends its request at once. If there is
  none, it replaces a client that has not read its answer for a while. If all others work on answers, it is rejected.
- A stream of events never ends, so streams have a small number of places of their own (`stream.py`). Each write to a stream has a deadline.
- The accepting thread waits for nothing else. The TLS handshake runs in the thread of the connection, with the same deadlines.
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
from exporter.web.connection import Activity, Connection, Limits
from exporter.web.messages import Response
from exporter.web.policy import AccessPolicy, Open, PolicySource
from exporter.web.site import PageProvider, Site
from exporter.web.stream import Streams

__all__ = ["Limits", "PageProvider", "Server"]

logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 0.25


class Server:
    """Serves `pages` from `start` to `close`. The constructor raises `OSError` if it cannot listen; see `listening.bind_error_message`."""

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
        """The port in use, also for an address with port 0."""

    def start(self) -> None:
        """Start to accept connections."""
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
                if not self._closing.is_set():  # probably too many open files
                    self._refusals.warning("cannot accept connections", error=error)
                    self._make_room(of=1)
                    self._closing.wait(0.1)
                continue
            if self._make_room(of=self._limits.connections):
                self._admit(Connection(client, str(peer[0]), self._site, self._limits))
            else:
                _reject(client, self._policies.last)

    def _admit(self, connection: Connection) -> None:
        thread = threading.Thread(target=self._serve, args=(connection,), name="http-client", daemon=True)
        with self._lock:
            self._connections[connection] = thread
        try:
            thread.start()
        except RuntimeError:  # this user may have no more threads
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
        """Drop a connection if there are `of` or more. Returns whether there are fewer now."""
        with self._lock:
            if sum(not each.streams for each in self._connections) < of:
                return True
            dropped = self._longest_waiting()
            if dropped is None:
                return False
            del self._connections[dropped]
        dropped.drop()
        return True

    def _longest_waiting(self) -> Connection | None:
        """Return the connection that has waited longest for its client, from the address with the most such connections.

        So a host that connects again and again replaces its own connections, not those of others.
        """
        stalled = time.monotonic() - self._limits.stalled_seconds
        states = {connection: connection.state for connection in self._connections if not connection.streams}
        idle = [one for one, (activity, _) in states.items() if activity is Activity.AWAITS_REQUEST]
        idle = idle or [one for one, (activity, since) in states.items() if activity is Activity.AWAITS_READER and since < stalled]
        places = Counter(one.peer for one in idle)
        return min(idle, key=lambda one: (-places[one.peer], states[one][1]), default=None)


def _reject(client: socket.socket, policy: AccessPolicy) -> None:
    """Answer 503 and close, without waiting. With TLS, only close: an answer would need the handshake."""
    busy = Response.line(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections").to_bytes(keep_alive=False, headers=policy.headers)
    with client, contextlib.suppress(OSError):
        if policy.tls is not None:
            return
        client.send(busy, socket.MSG_DONTWAIT)
        client.shutdown(socket.SHUT_WR)
        client.recv(64 * 1024, socket.MSG_DONTWAIT)  # if unread data remains, the kernel discards the answer
