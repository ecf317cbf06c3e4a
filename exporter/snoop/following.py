"""Records from a running exporter, read from its `/api/v1/stream`."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

from exporter.records import encoding, kinds
from exporter.records.record import Record
from exporter.snoop.printer import Inbox

_CONNECT_SECONDS = 5.0
_SILENT_SECONDS = 45.0
"""The exporter sends at least a heartbeat every 15 s."""
_MOST_BYTES = 4 << 20
"""Longest line that is accepted; ten times as long as the exporter's lines."""
_MOST_SAID = 300


class StreamLost(Exception):
    """The exporter cannot be followed. The message is one sentence."""


class Following:
    """A connection to an exporter, read by a thread of its own."""

    def __init__(self, url: str, inbox: Inbox, tell: Callable[[str], None], wake: Callable[[], None]) -> None:
        """`wake` is called when there is a `failure`."""
        self.failure: str | None = None
        self.finished = False
        self.dropped = 0
        self._url = urlsplit(url)
        self._where = f"{self._url.scheme}://{self._url.netloc.rpartition('@')[2]}{self._url.path}"
        self._inbox = inbox
        self._tell = tell
        self._wake = wake
        self._socket: socket.socket | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Connect. Raises `StreamLost`."""
        try:
            response = self._connect()
            refusal = self._refusal(response)
        except (OSError, http.client.HTTPException) as error:
            raise StreamLost(f"cannot connect to {self._where}: {_reason(error)}") from error
        if refusal is not None:
            response.close()
            raise StreamLost(f"{self._where} {refusal}")
        self._tell(f"following {self._where}")
        self._thread = threading.Thread(target=self._run, args=(response,), name="following", daemon=True)
        self._thread.start()

    def tick(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Disconnect."""
        self._stopping = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
            self._socket.close()
        if self._thread is not None:
            self._thread.join(_CONNECT_SECONDS)

    def _connect(self) -> http.client.HTTPResponse:
        url = self._url
        of_scheme = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = of_scheme(url.hostname or "", url.port, timeout=_CONNECT_SECONDS)
        connection.connect()
        self._socket = connection.sock
        headers = {"Accept": "text/event-stream"}
        if url.username is not None:
            credentials = f"{unquote(url.username)}:{unquote(url.password or '')}"
            headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
        connection.request("GET", f"{url.path}/api/v1/stream", headers=headers)
        response = connection.getresponse()
        self._socket.settimeout(_SILENT_SECONDS)
        return response

    def _refusal(self, response: http.client.HTTPResponse) -> str | None:
        if response.status != HTTPStatus.OK:
            said = response.read(_MOST_SAID).decode(errors="replace").partition("\n")[0]
            return f"answers {response.status} {response.reason}: {said}"
        if response.getheader("Content-Type", "").partition(";")[0].strip() != "text/event-stream":
            return "is not an exporter of this kind"
        return None

    def _run(self, response: http.client.HTTPResponse) -> None:
        why = "it closed the connection"
        try:
            self._take(response)
        except (OSError, http.client.HTTPException) as error:
            why = _reason(error)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
            why = "it sends what this version does not understand"
        if not self._stopping:
            self.failure = f"lost {self._where}: {why}"
            self._wake()

    def _take(self, response: http.client.HTTPResponse) -> None:
        with response:
            for name, data in events(iter(lambda: response.readline(_MOST_BYTES), b"")):
                if name == "records":
                    records, left_out = parsed(data)
                    self.dropped += left_out
                    self._inbox.offer(records)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def events(lines: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Yield name and data of each server-sent event."""
    name, data = "", ""
    for line in lines:
        if not line.endswith(b"\n"):
            if len(line) >= _MOST_BYTES:
                raise ValueError("a line is too long")
            return  # the data ended in the middle of a line
        key, _, value = line.decode().rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            name = value
        elif key == "data":
            data = value
        elif not key and not value:
            yield name, data
            name, data = "", ""


def parsed(data: str) -> tuple[list[Record], int]:
    """Return the records in the data of an event `records`, and the number of those left out."""
    content = json.loads(data)
    return list(map(encoding.read, content["short_processes"])), kinds.whole(content["left_out"])
