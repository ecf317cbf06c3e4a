"""Whoever watches the stream of records."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from tests.unit.web_clients import connect

PATH = "/api/v1/stream"
API = "/api/v1/short-processes"
Event = tuple[str, dict[str, Any]]


class Watcher:
    """Follows a stream."""

    def __init__(self, url: str) -> None:
        self.sock = connect(url)
        self.sock.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % PATH.encode())
        self._file = self.sock.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.head = b"".join(iter(self._file.readline, b"\r\n"))

    def lines(self) -> Iterator[bytes]:
        return iter(self._file.readline, b"")

    def events(self) -> Iterator[Event]:
        name = ""
        for line in self.lines():
            field, _, value = line.decode("ascii").rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)

    def next(self, wanted: str) -> dict[str, Any]:
        return next(content for name, content in self.events() if name == wanted)

    def close(self) -> None:
        self._file.close()
        self.sock.close()


@contextlib.contextmanager
def watching(url: str) -> Iterator[Watcher]:
    with contextlib.closing(Watcher(url)) as watcher:
        assert watcher.status == 200
        yield watcher


def pids(content: dict[str, Any]) -> list[int]:
    return [each["pid"] for each in content["short_processes"]]
