"""Records that a running exporter sends: its `/api/v1/stream`, read back."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

from exporter.model import NS, SIGNALS, Mode, Outcome
from exporter.records.record import Record
from exporter.snoop.printer import Inbox

_CONNECT_SECONDS = 5.0
_SILENT_SECONDS = 45.0
"""The exporter says something each 15 s, if only that it is there."""
_MOST_BYTES = 4 << 20
"""Of one line; ten times what the exporter sends."""
_MOST_SAID = 300

_NUMBERS = {name: number for number, name in SIGNALS.items()}
_ESCAPE = re.compile(r"\\(?:\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_MOMENT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})\.([0-9]{9})Z")


class StreamLost(Exception):
    """The exporter can't be followed. The message is one sentence."""


class Following:
    """A connection to an exporter, read by a thread of its own."""

    def __init__(self, url: str, inbox: Inbox, tell: Callable[[str], None], wake: Callable[[], None]) -> None:
        """`wake` is called when there is a `failure`."""
        self.failure: str | None = None
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
        """Connect, or raise `StreamLost`."""
        try:
            response = self._connect()
            refusal = self._refusal(response)
        except (OSError, http.client.HTTPException) as error:
            raise StreamLost(f"{self._where} can't be reached: {_reason(error)}") from error
        if refusal is not None:
            response.close()
            raise StreamLost(f"{self._where} {refusal}")
        self._tell(f"following {self._where}")
        self._thread = threading.Thread(target=self._run, args=(response,), name="following", daemon=True)
        self._thread.start()

    def tick(self) -> None:
        """Nothing to do."""

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
    """Give name and data of each server-sent event."""
    name, data = "", ""
    for line in lines:
        if not line.endswith(b"\n"):
            if len(line) >= _MOST_BYTES:
                raise ValueError("a line is too long")
            return  # the end of what was sent, in the middle of a line
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
    """Read the data of an event `records`: the records, and how many more there were."""
    content = json.loads(data)
    return [record(each) for each in content["short_processes"]], _whole(content["left_out"])


def record(fields: dict[str, Any]) -> Record:
    """Read back what `exporter.records.encoding.as_json` wrote. Trusts nothing: it raises an error, or gives a sound record."""
    signal = fields["signal"]
    code = fields["exit_code"] if signal is None else _NUMBERS.get(signal) or int(signal.removeprefix("SIG"))  # SIG35 has no name
    return Record(
        ended_ns=_moment(fields["ended_at"]),
        runtime_ns=_ns(fields["runtime_seconds"]),
        pid=_whole(fields["pid"]),
        ppid=_whole(fields["ppid"] or 0),
        uid=None if fields["uid"] is None else _whole(fields["uid"]),
        comm=raw(fields["comm"]),
        parent_comm=raw(fields["parent_comm"] or ""),
        exe=raw(fields["exe"] or ""),
        outcome=Outcome(fields["outcome"]),
        code=None if code is None else _whole(code),
        cpu_ns=None if fields["cpu_seconds"] is None else _ns(fields["cpu_seconds"]),
        cgroup=raw(fields["cgroup"] or ""),
        mode=Mode(fields["mode"]),
    )


def raw(text: str) -> bytes:
    """Undo `comm_text`."""
    return _ESCAPE.sub(_unescaped, text).encode("utf-8", "surrogateescape")


def _unescaped(match: re.Match[str]) -> str:
    kind, digits = match[0][1], match[0][2:]
    if kind == "\\":
        return "\\"
    code = int(digits, 16)
    return chr(0xDC00 + code) if kind == "x" and code >= 0x80 else chr(code)  # surrogateescape's form of a byte


def _moment(text: str) -> int:
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return round(datetime.fromisoformat(f"{match[1]}+00:00").timestamp()) * NS + int(match[2])


def _ns(seconds: float) -> int:
    return _whole(round(float(seconds) * NS))


def _whole(number: object) -> int:
    if not isinstance(number, int) or not 0 <= number < 2**63:
        raise ValueError(number)
    return number
