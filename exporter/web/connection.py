"""Serves one client: its requests, one after the other. Every wait has a deadline."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from exporter.web.limits import Activity, Limits
from exporter.web.messages import BadRequest, Request, Response, Stream, pop_request
from exporter.web.policy import AccessPolicy
from exporter.web.site import Site

if TYPE_CHECKING:
    from exporter.web.places import Places
    from exporter.web.tls import Tls

_CHUNK = 8 * 1024
_HANDSHAKE = b"\x16"
"""The first byte that a TLS client sends."""
_BEGIN_SECONDS = 5.0
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 1 << 20
_STREAM_BUFFER = 64 * 1024
_PIECES_BUFFER = 256 * 1024
"""Memory of the kernel for an answer in pieces, which could be megabytes."""


class Connection:
    """A client's socket, served by one thread. `drop` may be called from any other."""

    def __init__(self, client: socket.socket, peer: str, site: Site, limits: Limits, places: Places) -> None:
        self.peer = peer
        self.state = (Activity.AWAITS_REQUEST, time.monotonic())
        """Its activity, and the time when it began."""
        self.streams = False
        """Whether its answer is a stream. Streams have a limit of their own."""
        self.large = False
        """Whether it has one of the places for large answers."""
        self._begun = False
        self._client = client
        self._site = site
        self._limits = limits
        self._places = places
        self._received = bytearray()
        self._dropped = False
        self._tls: Tls | None = None
        self._certified = False
        self._answered = False

    def serve(self) -> None:
        """Answer requests until the client closes the connection, breaks a rule or is dropped."""
        self._begun = True
        try:
            with contextlib.suppress(OSError):  # the client is gone, too slow, or dropped
                self._tls = self._site.policies.policy().tls
                allowed = self._limits.request_seconds
                go_on = self._tls is None or self._secure(self._tls, self.state[1] + allowed)
                while go_on:
                    go_on = self._exchange(allowed)
                    allowed = self._limits.idle_seconds
                self._linger()
        finally:
            self._client.close()

    def never_began(self) -> bool:
        """Return whether its thread should have begun by now. Without memory a thread ends before it runs any code of ours."""
        return not self._begun and time.monotonic() - self.state[1] > _BEGIN_SECONDS

    def drop(self) -> None:
        """Close it from another thread. A thread that waits for the client wakes up with an error."""
        self._dropped = True  # before the socket is used: `_secure` first replaces the socket, then checks this
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)

    def has_input(self) -> bool:
        """Return whether its client has sent something, or has gone, and its thread has not noticed yet."""
        poll = select.poll()
        try:
            poll.register(self._client, select.POLLIN)
        except (OSError, ValueError):  # its thread has closed it
            return True
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close it without an answer."""
        self._client.close()

    def _secure(self, tls: Tls, deadline: float) -> bool:
        """Do the TLS handshake; return whether requests may follow."""
        self._client.settimeout(_left(deadline))
        first = self._client.recv(1, socket.MSG_PEEK)
        if first != _HANDSHAKE:
            self._refuse(BadRequest(HTTPStatus.BAD_REQUEST, "this port speaks HTTPS, not HTTP"))
            return False
        self._client = client = tls.wrap(self._client)
        if self._dropped:
            raise ConnectionAbortedError
        client.settimeout(_left(deadline))
        may_ask = tls.shake_hands(client, self.peer)
        self._certified = client.certified
        return may_ask

    def _exchange(self, allowed: float) -> bool:
        """Answer one request; return whether another may follow."""
        try:
            request = self._request(allowed)
        except BadRequest as bad:
            self._refuse(bad)
            return False
        if request is None:
            return False
        self.state = (Activity.WORKS, time.monotonic())
        policy = self._site.policies.policy()
        if self._answered and policy.tls is not self._tls:
            return False  # the client has to authenticate again; a client that retries sees only a closed connection
        self._answered = True
        try:
            if self._site.is_large(request) and not self._places.take_large(self):
                response = Response.line(HTTPStatus.SERVICE_UNAVAILABLE, "too many clients of the page and the API", **{"Retry-After": "1"})
            else:
                response = self._site.answer(request, self.peer, policy, self._certified)
            return self._respond(request, response, policy)
        finally:
            self._places.release_large(self)

    def _respond(self, request: Request, response: Response, policy: AccessPolicy) -> bool:
        """Send the answer to a request; return whether another request may follow."""
        if response.stream is not None:
            self._follow(response, response.stream, policy)
            return False
        # A body is never read, so nothing can follow it. A client that pipelines requests would keep us busy forever.
        keep_alive = request.keep_alive and not request.has_body and not self._received
        with_body, chunked = request.method != "HEAD", request.takes_chunks
        left = self._send(response.to_bytes(keep_alive=keep_alive, with_body=with_body, chunked=chunked, headers=policy.headers))
        if response.pieces is not None and with_body:
            self._send_pieces(response.pieces, chunked, left)
        self.state = (Activity.AWAITS_REQUEST, time.monotonic())
        return keep_alive and (chunked or response.pieces is None)

    def _refuse(self, bad: BadRequest) -> None:
        self._send(Response.line(bad.status, str(bad)).to_bytes(keep_alive=False, headers=self._site.policies.last.headers))

    def _request(self, allowed: float) -> Request | None:
        deadline = self.state[1] + allowed
        while (request := pop_request(self._received)) is None:
            was_idle = not self._received
            try:
                chunk = self._receive(deadline)
            except TimeoutError:
                if was_idle:
                    return None
                raise BadRequest(HTTPStatus.REQUEST_TIMEOUT, "the request took too long") from None
            if not chunk:
                return None
            self._received += chunk
            if was_idle:
                deadline = min(deadline, time.monotonic() + self._limits.request_seconds)
        return request

    def _receive(self, deadline: float) -> bytes:
        if self._never_waited():
            with contextlib.suppress(BlockingIOError):
                return self._client.recv(_CHUNK, socket.MSG_DONTWAIT)
        self._client.settimeout(_left(deadline))
        return self._client.recv(_CHUNK)

    def _never_waited(self) -> bool:
        """Return whether `MSG_DONTWAIT` has its meaning: with a timeout or TLS, Python waits first.

        Each wait and each change of the timeout lets another thread run, and takes a scrape a millisecond on a busy exporter.
        """
        return self._tls is None and self._client.gettimeout() is None

    def _send(self, data: bytes, seconds: float | None = None) -> float:
        """Send within some seconds, by default those for a whole answer. Returns what is left of them."""
        now = time.monotonic()
        self.state = (Activity.AWAITS_READER, now)
        deadline = now + (self._limits.answer_seconds if seconds is None else seconds)
        rest = memoryview(data)
        if self._never_waited():
            with contextlib.suppress(BlockingIOError):
                rest = rest[self._client.send(rest, socket.MSG_DONTWAIT) :]
        while rest:
            self._client.settimeout(_left(deadline))
            rest = rest[self._client.send(rest) :]
        return deadline - time.monotonic()

    def _send_pieces(self, pieces: Iterator[bytes], chunked: bool, seconds: float) -> None:
        """Send pieces as they are made: for a client that does not read, no more is made."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECES_BUFFER)
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the last chunk would wait for an acknowledgement
        for piece in pieces:
            seconds = self._send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece, seconds)
            self.state = (Activity.WORKS, time.monotonic())
        if chunked:
            self._send(b"0\r\n\r\n", seconds)

    def _follow(self, response: Response, stream: Stream, policy: AccessPolicy) -> None:
        """Send the pieces until the stream ends, the client disconnects, or the access policy changes."""
        with contextlib.closing(stream):
            self.streams = True
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _STREAM_BUFFER)  # notice soon that a client does not read
            self._send(response.to_bytes(keep_alive=False, headers=policy.headers))
            for piece in stream:
                if piece:
                    self._send(piece)
                elif self._gone():
                    return
                if self._site.policies.policy() is not policy:
                    return

    def _gone(self) -> bool:
        self._client.settimeout(0)
        try:
            return not self._client.recv(_CHUNK)
        except BlockingIOError:
            return False

    def _linger(self) -> None:
        """Read what the client still sends: if the socket is closed with unread data, the kernel discards our answer."""
        self._client.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + _LINGER_SECONDS
        taken = 0
        while taken < _LINGER_BYTES:
            self._client.settimeout(_left(deadline))
            chunk = socket.socket.recv(self._client, _CHUNK)  # without decryption: the content does not matter
            if not chunk:
                return
            taken += len(chunk)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
