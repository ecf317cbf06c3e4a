"""Records from a running exporter, read from its `/api/v1/stream`."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

from exporter.config.options import Filter
from exporter.library.processes import Ended, Processes, Totals
from exporter.library.scraped import totals
from exporter.records import encoding, kinds
from exporter.records.record import Record

_CONNECT_SECONDS = 5.0
_SILENT_SECONDS = 45.0
"""The exporter sends at least a heartbeat every 15 s."""
_MOST_BYTES = 4 << 20
"""Longest line that is accepted; ten times as long as the exporter's lines."""
_MOST_SAID = 300
_NONSENSE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading something raises that no exporter sends."""


class Following(Processes):
    """A connection to an exporter, read by a thread of its own."""

    def __init__(self, url: str, wanted: Filter | None = None, keep: int = 0, metrics_path: str = "/metrics") -> None:
        super().__init__(wanted, keep)
        self._left_out = 0
        self._url = urlsplit(url.rstrip("/"))
        self._metrics_path = metrics_path
        self._where = f"{self._url.scheme}://{self._url.netloc.rpartition('@')[2]}{self._url.path}"
        self._socket: socket.socket | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def description(self) -> str:
        return f"following {self._where}"

    def counts(self) -> Totals:
        try:
            with contextlib.closing(self._connection()) as connection:
                response = self._asked(connection, self._metrics_path, "text/plain; version=0.0.4")
                if response.status != HTTPStatus.OK:
                    raise Ended(f"{self._where} {_answer(response)}")
                return totals(response.read(_MOST_BYTES).decode())
        except (OSError, http.client.HTTPException) as error:
            raise Ended(f"cannot read the metrics of {self._where}: {_reason(error)}") from error
        except _NONSENSE as error:
            raise Ended(f"cannot read the metrics of {self._where}: it sends what this version does not understand") from error

    def _open(self) -> None:
        """Connect. Raises `Ended`."""
        try:
            response = self._connect()
            refusal = self._refusal(response)
        except (OSError, http.client.HTTPException) as error:
            raise Ended(f"cannot connect to {self._where}: {_reason(error)}") from error
        if refusal is not None:
            response.close()
            self._disconnect()
            raise Ended(f"{self._where} {refusal}")
        self._thread = threading.Thread(target=self._run, args=(response,), name="following", daemon=True)
        self._thread.start()

    def _close(self) -> None:
        self._stopping = True
        self._disconnect()
        if self._thread is not None:
            self._thread.join(_CONNECT_SECONDS)

    def _missing(self) -> int:
        return self._left_out

    def _disconnect(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
            self._socket.close()

    def _connection(self) -> http.client.HTTPConnection:
        url = self._url
        of_scheme = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        return of_scheme(url.hostname or "", url.port, timeout=_CONNECT_SECONDS)

    def _connect(self) -> http.client.HTTPResponse:
        connection = self._connection()
        connection.connect()
        self._socket = connection.sock
        response = self._asked(connection, "/api/v1/stream", "text/event-stream")
        self._socket.settimeout(_SILENT_SECONDS)
        return response

    def _asked(self, connection: http.client.HTTPConnection, path: str, accepted: str) -> http.client.HTTPResponse:
        url, headers = self._url, {"Accept": accepted}
        if url.username is not None:
            credentials = f"{unquote(url.username)}:{unquote(url.password or '')}"
            headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
        connection.request("GET", f"{url.path}{path}", headers=headers)
        return connection.getresponse()

    def _refusal(self, response: http.client.HTTPResponse) -> str | None:
        if response.status != HTTPStatus.OK:
            return _answer(response)
        if response.getheader("Content-Type", "").partition(";")[0].strip() != "text/event-stream":
            return "is not an exporter of this kind"
        return None

    def _run(self, response: http.client.HTTPResponse) -> None:
        why = "it closed the connection"
        try:
            self._take(response)
        except (OSError, http.client.HTTPException) as error:
            why = _reason(error)
        except _NONSENSE:
            why = "it sends what this version does not understand"
        if not self._stopping:
            self.failure = f"lost {self._where}: {why}"
            self._inbox.close()

    def _take(self, response: http.client.HTTPResponse) -> None:
        with response:
            for name, data in events(iter(lambda: response.readline(_MOST_BYTES), b"")):
                if name == "records":
                    records, left_out = parsed(data)
                    self._left_out += left_out
                    self._inbox.offer(records)


def _answer(response: http.client.HTTPResponse) -> str:
    said = response.read(_MOST_SAID).decode(errors="replace").partition("\n")[0]
    return f"answers {response.status} {response.reason}: {said}"


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
