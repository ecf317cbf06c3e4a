"""What is made of what an exporter sends."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.library import following
from exporter.library.following import Following
from exporter.library.processes import Ended
from exporter.model import comm_text
from exporter.records import kinds
from exporter.records.encoding import as_json, encode
from exporter.records.record import Record
from tests.unit.snoop_records import TYPICAL, records


@given(st.binary(max_size=300))
def test_names_are_read_back(name: bytes) -> None:
    """What an exporter sends has to be shown as what snoop sees itself."""
    assert kinds.raw_name(comm_text(name)) == name


@given(records)
def test_records_are_read_back(record: Record) -> None:
    """Both ends of the stream have to mean the same."""
    data = encode({"short_processes": [as_json(record)], "left_out": 3})
    assert following.parsed(data) == ([record], 3)


def test_events_are_told_apart() -> None:
    """Heartbeats and what is not finished are no events."""
    text = b'retry: 3000\n\n:\n\nevent: a\ndata: {"x": 1}\n\nevent: b\r\ndata:y\r\n\r\nevent: c\ndata: unfin'
    assert [event for event in following.events(text.splitlines(keepends=True)) if event[0]] == [("a", '{"x": 1}'), ("b", "y")]


@contextmanager
def exporter(status: int, content_type: str, body: bytes) -> Iterator[str]:
    """A server that gives one answer; its address."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    asked: list[tuple[str, str | None]] = []
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://me:p%40ss@127.0.0.1:{server.server_port}/sub"
        finally:
            server.shutdown()
            thread.join()
    assert asked == [("/sub/api/v1/stream", "Basic bWU6cEBzcw==")]


def followed(url: str) -> tuple[Following, list[Record]]:
    """Follow until the stream ends; the records."""
    found: list[Record] = []
    with Following(url) as each, pytest.raises(Ended) as ended:
        found.extend(each)
    assert str(ended.value) == each.failure
    return each, found


def test_an_exporter_is_followed() -> None:
    """Its new records are taken, what it left out is counted, its stored ones are not new."""
    record = {"short_processes": [as_json(TYPICAL)]}
    body = b"".join(
        f"event: {name}\ndata: {encode(content)}\n\n".encode()
        for name, content in (("recent", record), ("status", {"rows": []}), ("records", record | {"left_out": 4}))
    )
    with exporter(200, "text/event-stream", body) as url:
        each, found = followed(url)
    assert found == [TYPICAL]
    assert each.dropped == 4
    assert re.fullmatch(r"lost http://127.0.0.1:\d+/sub: it closed the connection", each.failure or "")


BROKEN: list[Callable[[dict[str, object]], object]] = [
    lambda fields: fields | {"comm": 5},
    lambda fields: fields | {"comm": "\ud800"},
    lambda fields: fields | {"comm": "\\Uffffffff"},
    lambda fields: fields | {"pid": -1},
    lambda fields: fields | {"pid": 10**30},
    lambda fields: fields | {"pid": "1\x1b[2J"},
    lambda fields: fields | {"runtime_seconds": 1e300},
    lambda fields: fields | {"runtime_seconds": float("nan")},
    lambda fields: fields | {"runtime_seconds": []},
    lambda fields: fields | {"ended_at": "now"},
    lambda fields: fields | {"ended_at": "2030-99-01T00:00:00.000000000Z"},
    lambda fields: fields | {"outcome": "fine"},
    lambda fields: fields | {"signal": "SIG\x1b"},
    lambda fields: fields | {"signal": 9},
    lambda fields: fields | {"mode": "top"},
    lambda fields: {key: value for key, value in fields.items() if key != "exe"},
    lambda _: 7,
    lambda _: None,
]


@pytest.mark.parametrize("broken", BROKEN)
def test_an_exporter_that_is_not_understood(broken: Callable[[dict[str, object]], object]) -> None:
    """Whoever answers there may be anybody: nothing that it sends may be shown unchecked, or end in a traceback."""
    data = json.dumps({"short_processes": [broken(as_json(TYPICAL))], "left_out": 0})
    with exporter(200, "text/event-stream", f"event: records\ndata: {data}\n\n".encode()) as url:
        each, found = followed(url)
    assert found == []
    assert (each.failure or "").endswith("it sends what this version does not understand")


@pytest.mark.parametrize(
    "body", [b"event: records\ndata: {\n\n", b"event: records\ndata: " + b"[" * 100_000 + b"\n\n", b"\xff\n\n", b"x" * (5 << 20)]
)
def test_a_stream_that_is_none(body: bytes) -> None:
    """Neither memory nor a traceback may come of it."""
    with exporter(200, "text/event-stream", body) as url:
        assert (followed(url)[0].failure or "").endswith("it sends what this version does not understand")


@pytest.mark.parametrize(
    ("status", "content_type", "body", "message"),
    [
        (403, "text/plain", b"records name processes\nmore\n", " answers 403 Forbidden: records name processes"),
        (404, "text/plain", b"nothing here\n", " answers 404 Not Found: nothing here"),
        (503, "text/plain", b"all places are taken\n", " answers 503 Service Unavailable: all places are taken"),
        (200, "text/html", b"<html>", " is not an exporter of this kind"),
    ],
)
def test_an_exporter_that_refuses(status: int, content_type: str, body: bytes, message: str) -> None:
    """It says itself what to do about it. The password in the address is not shown."""
    with exporter(status, content_type, body) as url, pytest.raises(Ended) as lost, Following(url):
        pass
    assert re.fullmatch(rf"http://127\.0\.0\.1:\d+/sub{re.escape(message)}", str(lost.value))
