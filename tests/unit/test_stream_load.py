"""What streams leave of the server for scrapes and people."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from exporter.records.hub import Hub
from exporter.records.record import Record
from exporter.web.limits import Limits
from exporter.web.stream import MOST_STREAMS
from tests.unit.pages import record, served, soon
from tests.unit.snapshots import ordinary
from tests.unit.stream_watching import API, PATH, Watcher, watching
from tests.unit.web_clients import ask, connect, connections


@pytest.fixture
def hub() -> Hub:
    return Hub(1000)


@pytest.fixture
def url(hub: Hub) -> Iterator[str]:
    with served(ordinary(), hub) as site:
        yield site.url


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
        for _ in range(30):
            assert ask(site.url, "/metrics")[0] == 200
        for _ in soon():
            with contextlib.closing(Watcher(site.url)) as another:
                if another.status == 200:
                    break


def test_streams_take_no_place_of_scrapes(hub: Hub) -> None:
    """Four open pages leave all other places as they were."""
    with served(ordinary(), hub) as site, contextlib.ExitStack() as stack:
        for _ in range(MOST_STREAMS):
            stack.enter_context(watching(site.url)).next("status")
        for _ in range(Limits().connections - 1):
            stack.enter_context(connect(site.url))
        assert ask(site.url, "/metrics")[0] == 200
        assert connections() >= MOST_STREAMS + Limits().connections - 1


def test_page_and_api_answer_while_records_flow(hub: Hub, url: str) -> None:
    """100,000 records, a thousand stored, and a person who looks at them."""
    batches: list[list[Record]] = [[record(number) for number in range(500)] for _ in range(4)]

    def flow() -> None:
        for number in range(200):
            hub.publish(batches[number % 4])
            time.sleep(0.01)

    flowing = threading.Thread(target=flow)
    flowing.start()
    with watching(url):
        while flowing.is_alive():
            for path in ("/", API, f"{API}?limit=1000"):
                assert ask(url, path)[0] == 200
