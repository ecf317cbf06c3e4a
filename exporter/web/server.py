"""An HTTP server that slow or hostile clients cannot block.

Scrapes must be answered even if other clients send nothing, send one byte per second, never read, or connect by the hundred. So each
connection has a thread, their number is bounded (`places.py`), and these rules hold:

- A connection either waits for its client (to send or to read), or works on an answer.
- Every wait has a deadline for the whole request or answer. A timeout per `recv` would restart with each byte.
- An answer is made once for all who wait for it, and others wait for those to scrapes (`shared.py`). A large one is made in pieces.
- A stream of events never ends, so streams have a small number of places of their own (`stream.py`). Each write to a stream has a deadline.
- The accepting thread waits for nothing but a place. The TLS handshake runs in the thread of the connection, with the same deadlines.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import socket
import sys
import threading
import time
from functools import partial
from http import HTTPStatus

from exporter.process import memory
from exporter.process.rate_limited_log import RateLimitedLog
from exporter.web import listening
from exporter.web.connection import Connection
from exporter.web.limits import Limits
from exporter.web.messages import Response
from exporter.web.places import Places
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
        self._streams = Streams(pages.hub, partial(pages.live, records=True))
        self._policies = policies or Open()
        self._site = Site(telemetry_path, pages, public_records, self._streams, self._policies)
        self._limits = limits or Limits()
        self._places = Places(self._limits)
        self._refusals, self._failures = RateLimitedLog(logger), RateLimitedLog(logger)
        self._closing = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="http-accept", daemon=True)
        self._listener = listening.listen(listen_address)
        self.port: int = self._listener.getsockname()[1]
        """The port in use, also for an address with port 0."""

    def start(self) -> None:
        """Start to accept connections."""
        self._acceptor.start()

    def tick(self) -> None:
        """Return the memory that a crowd took, and close what has no thread. Call it about once a second."""
        for connection in self._places.all():
            if connection.never_began():
                self._places.remove(connection)
                connection.close()
        if self._places.crowd_has_gone():
            memory.trim()

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
        for connection in self._places.all():
            connection.drop()
        self._places.wait_until_empty(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, peer = self._listener.accept()
                self._take(client, str(peer[0]))
            except (OSError, MemoryError) as error:
                if not self._closing.is_set():  # probably too many open files
                    self._refusals.warning("cannot accept connections", error=str(error) or "out of memory")
                    self._places.make_room(of=1)
                    self._closing.wait(0.1)

    def _take(self, client: socket.socket, peer: str) -> None:
        self._site.urgent.arrived()
        try:
            if _has_gone(client):
                client.close()
            elif self._places.make_room():
                self._admit(Connection(client, peer, self._site, self._limits, self._places))
            else:
                _reject(client, self._policies.last)
        except MemoryError:
            client.close()
            raise

    def _admit(self, connection: Connection) -> None:
        self._places.add(connection)
        try:
            _thread.start_new_thread(self._serve, (connection,))  # `Thread.start` would wait until it runs
        except (RuntimeError, MemoryError):  # this user may have no more threads
            self._refusals.warning("cannot start a thread for a connection")
            self._places.remove(connection)
            connection.close()

    def _serve(self, connection: Connection) -> None:
        sys.settrace(threading.gettrace())  # as in other threads, for debuggers
        try:
            connection.serve()
        except Exception:  # noqa: BLE001 - logged, with its traceback
            self._failures.exception("a connection failed")
        finally:
            self._places.remove(connection)


def _has_gone(client: socket.socket) -> bool:
    """Return whether a new client has already disconnected. It would cost a thread only to notice that."""
    try:
        return not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _reject(client: socket.socket, policy: AccessPolicy) -> None:
    """Answer 503 and close, without waiting. With TLS, only close: an answer would need the handshake."""
    busy = Response.line(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections").to_bytes(keep_alive=False, headers=policy.headers)
    with client, contextlib.suppress(OSError):
        if policy.tls is not None:
            return
        client.send(busy, socket.MSG_DONTWAIT)
        client.shutdown(socket.SHUT_WR)
        client.recv(64 * 1024, socket.MSG_DONTWAIT)  # if unread data remains, the kernel discards the answer
