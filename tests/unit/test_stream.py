from __future__ import annotations

import contextlib
import http.client
import json
import logging
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from pages import HOSTILE, Served, record, served, soon
from snapshots import ordinary

from exporter.model import Record, comm_text
from exporter.records import Hub
from exporter.web import stream
from exporter.web.connection import Limits
from exporter.web.stream import MOST_RECORDS, MOST_STREAMS, Feed, Streams

PATIENCE = 20.0
PATH = "/api/v1/stream"
API = "/api/v1/short-processes"
Event = tuple[str, dict[str, Any]]


@pytest.fixture
def told() -> list[bool]:
    """What the hub was told: whether anybody watches live."""
    return []


@pytest.fixture
def hub(told: list[bool]) -> Hub:
    hub = Hub(1000)
    hub.on_change = lambda: told.append(hub.live)
    return hub


@pytest.fixture
def site(hub: Hub) -> Iterator[Served]:
    with served(ordinary(), hub) as site:
        yield site


@pytest.fixture
def url(site: Served) -> str:
    return site.url


def connect(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname or "", where.port or 0), PATIENCE)


def ask(url: str, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.headers, response.read()


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


def test_what_a_watcher_gets(hub: Hub, url: str) -> None:
    """First what there was, then what comes, and the page's numbers."""
    hub.publish([record(number) for number in range(150)])
    with watching(url) as watcher:
        assert b"Content-Type: text/event-stream\r\n" in watcher.head
        assert b"Content-Length" not in watcher.head
        events = watcher.events()
        name, recent = next(events)
        assert (name, pids(recent)) == ("recent", list(range(1050, 1150)))
        name, status = next(events)
        assert (name, status["texts"]["mode"]) == ("status", "Mode ebpf_core.")
        hub.publish([record(200)])
        name, fresh = next(events)
        assert (name, pids(fresh), fresh["left_out"]) == ("records", [1200], 0)


def test_status_comes_when_it_changes(site: Served) -> None:
    """A quiet host costs nobody anything."""
    url, supervisor = site.url, site.supervisor
    with watching(url) as watcher:
        assert watcher.next("status")["poor"]
        supervisor.change(capture_ratio=1.0)
        assert not watcher.next("status")["poor"]
        with watching(url) as second:
            assert not second.next("status")["poor"]


def test_status_that_fails_ends_nothing(site: Served, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Records go on, and the log has the reason once."""
    url, supervisor = site.url, site.supervisor
    monkeypatch.setattr(stream, "_STATUS_EVERY", 1)
    monkeypatch.setattr(supervisor, "snapshot", lambda: 1 / 0)
    with watching(url) as watcher:
        for number in range(3):
            hub.publish([record(number)])
            assert pids(watcher.next("records")) == [1000 + number]
    assert [each.levelno for each in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("comm", HOSTILE)
def test_hostile_names_end_no_event(hub: Hub, url: str, comm: bytes) -> None:
    """A name with line feeds could otherwise write events of its own."""
    with watching(url) as watcher:
        watcher.next("recent")
        hub.publish([record(1, comm, parent_comm=comm, exe=comm * 10, cgroup=comm)])
        (shown,) = watcher.next("records")["short_processes"]
        assert shown["comm"] == shown["parent_comm"] == comm_text(comm)


def test_a_flood_is_thinned_and_counted(hub: Hub, url: str) -> None:
    """Neither the browser nor we may drown, and what was left out is said."""
    with watching(url) as watcher:
        watcher.next("recent")
        batch = [record(number) for number in range(500)]
        for _ in range(200):
            hub.publish(batch)
        shown = left_out = 0
        events = (content for name, content in watcher.events() if name == "records")
        while shown + left_out < 100_000:
            content = next(events)
            assert len(content["short_processes"]) <= MOST_RECORDS
            shown += len(content["short_processes"])
            left_out += content["left_out"]
        assert shown + left_out == 100_000
        assert hub.dropped() == {("stream", "slow"): left_out}
    for _ in soon():
        if not hub._consumers:
            break
    assert hub.dropped() == {("stream", "slow"): left_out}


def test_the_feed_keeps_the_newest() -> None:
    """Whoever watches wants to see what happens now; memory is bounded."""
    feed = Feed()
    feed.offer([record(number) for number in range(MOST_RECORDS - 1)])
    feed.offer([record(number) for number in range(1000, 1003)])
    records, left_out = feed.take()
    assert ([each.pid for each in records[-4:]], records[0].pid, left_out) == ([1000 + MOST_RECORDS - 2, 2000, 2001, 2002], 1002, 2)
    assert feed.take() == ([], 0)
    assert feed.dropped() == {"slow": 2}


def test_only_a_few_at_a_time(url: str) -> None:
    """A place is free again as soon as its browser has gone, also where nothing happens."""
    with contextlib.ExitStack() as stack:
        first, *_ = [stack.enter_context(watching(url)) for _ in range(MOST_STREAMS)]
        assert ask(url, PATH)[::2] == (503, b"all places for streams are taken\n")
        assert ask(url, PATH, "HEAD")[0] == 200
        first.close()
        for _ in soon():
            with contextlib.closing(Watcher(url)) as again:
                if again.status == 200:
                    break


def test_the_kernel_wakes_us_only_while_somebody_watches(url: str, told: list[bool]) -> None:
    """Each wake-up costs the host something."""
    assert told == []
    with watching(url), watching(url):
        assert told == [True]
    for _ in soon():
        if told == [True, False]:
            break
    with watching(url) as watcher:
        watcher.next("status")
        assert told == [True, False, True]


@pytest.mark.parametrize("path", [PATH, API])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"X_Forwarded_For": "1.2.3.4"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_records_are_for_the_host_itself(url: str, path: str, headers: dict[str, str]) -> None:
    """Others learn why not, and no more: rebound names, proxies, and pages of other sites in the browser on the host."""
    status, got, body = ask(url, path, **headers)
    assert (status, body.count(b"\n"), got["Access-Control-Allow-Origin"]) == (403, 1, None)
    assert b"web.public_records" in body
    assert ask(url, "/", **headers | {"Sec_Fetch_Site": "cross-site"})[0] == 200


def test_public_records(hub: Hub) -> None:
    """The operator may decide otherwise; other sites' pages still get nothing."""
    with served(ordinary(), hub, public_records=True) as site:
        assert ask(site.url, API, Host="evil.example")[0] == 200
        assert ask(site.url, API, Host="evil.example", Sec_Fetch_Site="cross-site")[0] == 403


def test_api_over_http(hub: Hub, url: str) -> None:
    """The newest first, filtered, never cached, never taken for a page."""
    hub.publish([record(number, b"<b>%d" % (number % 2)) for number in range(4)])
    status, headers, body = ask(url, f"{API}?comm=%3Cb%3E1&limit=1", Sec_Fetch_Site="same-origin")
    answer = json.loads(body)
    assert (status, pids(answer), answer["truncated"]) == (200, [1003], True)
    assert (headers["Content-Type"], headers["Cache-Control"], headers["X-Content-Type-Options"]) == (
        "application/json",
        "no-store",
        "nosniff",
    )
    assert ask(url, f"{API}?limit=x")[::2] == (400, b"limit is not a whole number from 1 to 100000\n")
    assert ask(url, f"{API}/")[0] == 404


def test_heartbeat(hub: Hub, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies on the way close what is silent."""
    monkeypatch.setattr(stream, "_HEARTBEAT_SECONDS", 0.1)
    with watching(url) as watcher:
        assert b":\n" in (line for line in watcher.lines())


def test_who_falls_behind_is_disconnected(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are not kept for ever for somebody who does not read them."""
    monkeypatch.setattr(stream, "_BACKLOG", 4)
    monkeypatch.setattr(stream, "_INTERVAL_SECONDS", 0.02)
    streams = Streams(hub, dict)
    slow, quick = streams.open(), streams.open()
    assert slow is not None
    assert quick is not None
    next(slow)
    for number in range(stream._BACKLOG + 2):
        hub.publish([record(number)])
        while b"event: records" not in next(quick):
            pass
    with pytest.raises(StopIteration):
        next(slow)
    streams.close()
    with pytest.raises(StopIteration):
        next(quick)
    assert streams.open() is None


def test_scrapes_while_watchers_hang(hub: Hub) -> None:
    """Ten that ask for streams and never read: scrapes do not notice, and the places come back."""
    stop = threading.Event()

    def flow() -> None:
        batch = [record(number, exe=b"/" * 255) for number in range(500)]
        while not stop.wait(0.02):
            hub.publish(batch)

    flowing = threading.Thread(target=flow)
    flowing.start()
    with served(ordinary(), hub, limits=Limits(answer_seconds=0.5)) as site, contextlib.ExitStack() as stack:
        stack.callback(flowing.join)
        stack.callback(stop.set)
        for _ in range(10):
            sock = stack.enter_context(connect(site.url))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % PATH.encode())
        waits = [seconds_for(site.url, "/metrics") for _ in range(30)]
        assert max(waits) < 1
        assert statistics.median(waits) < 0.1
        for _ in soon():
            with contextlib.closing(Watcher(site.url)) as another:
                if another.status == 200:
                    break


def seconds_for(url: str, path: str) -> float:
    begun = time.monotonic()
    assert ask(url, path)[0] == 200
    return time.monotonic() - begun


def test_streams_take_no_place_of_scrapes(hub: Hub) -> None:
    """Four open pages leave all other places as they were."""
    with served(ordinary(), hub) as site, contextlib.ExitStack() as stack:
        for _ in range(MOST_STREAMS):
            stack.enter_context(watching(site.url)).next("status")
        for _ in range(Limits().connections - 1):
            stack.enter_context(connect(site.url))
        assert ask(site.url, "/metrics")[0] == 200
        assert sum(thread.name == "http-client" for thread in threading.enumerate()) >= MOST_STREAMS + 31


def test_close_ends_streams_at_once(hub: Hub) -> None:
    """A restart must not wait for browsers."""
    with served(ordinary(), hub) as site, watching(site.url) as watcher:
        watcher.next("status")
        begun = time.monotonic()
        site.server.close()
        assert list(watcher.events()) == []
        assert time.monotonic() - begun < 1


def test_page_and_api_are_quick_while_records_flow(hub: Hub, url: str) -> None:
    """100,000 records, a thousand stored, and a person who looks at them."""
    batches: list[list[Record]] = [[record(number) for number in range(500)] for _ in range(4)]

    def flow() -> None:
        for number in range(200):
            hub.publish(batches[number % 4])
            time.sleep(0.01)

    flowing = threading.Thread(target=flow)
    flowing.start()
    waits: dict[str, list[float]] = {"/": [], API: [], f"{API}?limit=1000": []}
    with watching(url):
        while flowing.is_alive():
            for path, seconds in waits.items():
                seconds.append(seconds_for(url, path))
    for path, seconds in waits.items():
        assert statistics.median(seconds) < 0.05, path
