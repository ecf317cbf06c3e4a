"""What a crowd of clients may take of the server: places, processor and memory; scrapes and health checks come first."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.app import _SWITCH_SECONDS
from exporter.records.hub import Hub
from exporter.web.api import PIECE, Found
from exporter.web.limits import Limits
from exporter.web.shared import Shared, Urgent
from tests.unit.pages import record, served, soon
from tests.unit.snapshots import ordinary
from tests.unit.web_clients import GET, PATIENCE, ask, connect, connections, read_all, read_answer, serving, wait_for_connections

CHECKOUT = Path(__file__).resolve().parents[2]
ALL = "/api/v1/short-processes?limit=100000"
MANY = 5_000


@pytest.fixture(scope="module")
def many() -> Hub:
    """With an answer of about 2.5 MB."""
    hub = Hub(MANY)
    hub.publish([record(number) for number in range(MANY)])
    return hub


@contextlib.contextmanager
def switching_soon() -> Iterator[None]:
    """As the exporter does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    yield
    sys.setswitchinterval(before)


def test_scrapes_during_an_attack(many: Hub) -> None:
    """Clients that are silent, slow or half-closed, that reset, never read, pipeline or ask for the most, all at once."""
    with switching_soon(), served(ordinary(), many) as site:
        whole = ask(site.url, "/metrics")[2]
        command = [sys.executable, "-m", "bench.attackers", site.url.rpartition(":")[2], "2"]
        with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE) as attackers:
            while attackers.poll() is None:
                status, headers, body = ask(site.url, "/metrics")
                assert (status, len(body) > len(whole) // 2, len(body)) == (200, True, int(headers["Content-Length"]))
                assert ask(site.url, "/-/healthy")[0] == 200
                time.sleep(0.02)
            attacked = json.loads(attackers.communicate()[0])
        assert all(attacked[kind] for kind in ("silent", "half_closed", "resetting", "pipelining", "largest"))
        wait_for_connections(0)
        assert site.server._places.crowd_has_gone()
        assert not site.server._places.crowd_has_gone()
        site.server.tick()


def test_page_and_api_leave_places_for_scrapes() -> None:
    """Eight that ask for much must not take the ninth place of a scrape."""
    with serving(Limits(connections=4, large=2)) as client, contextlib.ExitStack() as stack:
        client.pages.policies.clear()
        stack.callback(client.pages.policies.set)
        for _ in range(2):
            stack.enter_context(client.connect()).sendall(GET % b"/")
        for _ in soon():
            if sum(each.large for each in client.server._places.all()) == 2:
                break
        status, headers, body = client.ask("/api/v1/busiest")
        assert (status, headers["Retry-After"], body) == (503, "1", b"too many clients of the page and the API\n")
        assert [client.ask(path)[0] for path in ("/-/healthy", "/-/ready", "/nothing")] == [200, 200, 404]
        client.pages.policies.set()
        assert client.ask("/metrics")[0] == 200
        for _ in soon():
            if client.ask("/")[0] == 200:
                break


def test_who_does_not_read_a_large_answer_gives_way(many: Hub) -> None:
    """Eight that never read would lock everybody else out of the page and the API."""
    with served(ordinary(), many, limits=Limits(large=1, stalled_seconds=0.1)) as site, greedy(site.url):
        for _ in soon():
            if any(each.large for each in site.server._places.all()):
                break
        for _ in soon():
            if ask(site.url, "/")[0] == 200:
                break


@contextlib.contextmanager
def greedy(url: str) -> Iterator[socket.socket]:
    """A client that asks for the most and reads nothing."""
    with connect(url) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(GET % ALL.encode())
        yield sock


def test_no_more_is_made_than_is_read(many: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole answers of 50 MB for clients that do not read them would be all of the memory."""
    made: list[int] = []
    piece = Found.piece

    def noted(found: Found, number: int) -> bytes:
        made.append(number)
        return piece(found, number)

    monkeypatch.setattr(Found, "piece", noted)
    with served(ordinary(), many) as site, greedy(site.url):
        for _ in soon():
            before = len(made)
            time.sleep(0.1)
            if made and len(made) == before:
                break
        assert len(made) < MANY // PIECE


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_large_answers_are_whole(many: Hub, version: bytes) -> None:
    """In chunks, which tell a whole answer from one that was cut off; HTTP/1.0 does not know them."""
    with served(ordinary(), many) as site, connect(site.url) as sock:
        sock.sendall(b"GET %b HTTP/%b\r\nHost: localhost\r\nConnection: close\r\n\r\n" % (ALL.encode(), version))
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
        assert (b"Transfer-Encoding: chunked" in head, b"Content-Length" in head) == (version == b"1.1", False)
        if version == b"1.0":
            assert [each["pid"] for each in json.loads(body)["short_processes"]] == [1000 + number for number in reversed(range(MANY))]
        assert body.endswith(b"\r\n0\r\n\r\n") == (version == b"1.1")
        answer = json.loads(ask(site.url, ALL)[2])
        assert (len(answer["short_processes"]), answer["limit"], answer["truncated"]) == (MANY, 100_000, False)


def test_connection_stays_after_a_large_answer(many: Hub) -> None:
    """As after any other; of HEAD, there is only the head."""
    with served(ordinary(), many) as site, connect(site.url) as sock:
        sock.sendall((GET % ALL.encode()).replace(b"GET", b"HEAD"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        sock.sendall(GET % ALL.encode())
        end = b""
        while not end.endswith(b"\r\n0\r\n\r\n"):
            end = end[-10:] + sock.recv(1 << 20)
        sock.sendall(GET % b"/-/healthy")
        assert read_answer(sock).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("number", "pieces"), [(0, 1), (1, 1), (PIECE, 1), (PIECE + 1, 2), (20 * PIECE, 20)])
def test_pieces_are_the_whole(number: int, pieces: int) -> None:
    """Whatever the number, and whether the pieces are made anew or kept."""
    found = Found([record(each) for each in range(number)], {"limit": 7})
    assert len(found) == pieces
    for order in (range(pieces), range(pieces), reversed(range(pieces))):
        text = b"".join(made for _, made in sorted((each, found.piece(each)) for each in order))
        assert [each["pid"] for each in json.loads(text)["short_processes"]] == [1000 + each for each in range(number)]
        assert json.loads(text)["limit"] == 7
        assert text.count(b"\n") == 1


def test_an_answer_is_made_once_for_all_who_wait() -> None:
    """Thirty clients that ask for the same would take the time of thirty answers."""
    shared, begun, go_on = Shared(), threading.Event(), threading.Event()
    made: list[str] = []
    answers: list[object] = []

    def make(key: str) -> object:
        begun.set()
        go_on.wait(PATIENCE)
        made.append(key)
        if key == "bad":
            raise ValueError(key)
        return object()

    def get(key: str) -> None:
        try:
            answers.append(shared.get(key, lambda: make(key)))
        except ValueError as error:
            answers.append(error)

    threads = [threading.Thread(target=get, args=("first",))]
    threads[0].start()
    assert begun.wait(PATIENCE)
    threads += [threading.Thread(target=get, args=(key,)) for key in ["first", "other", "bad"] * 5]
    for thread in threads[1:]:
        thread.start()
    for _ in soon():
        if sum(thread.is_alive() for thread in threads) == 16 and len(shared._not_begun) == 3:
            break
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert (sorted(made), len(answers)) == (["bad", "first", "first", "other"], 16)
    assert [type(each) for each in answers].count(ValueError) == 5


def test_others_wait_for_what_is_urgent_but_not_for_ever() -> None:
    """Whoever scrapes all the time must not end the page for others."""
    urgent = Urgent()
    urgent.give_way()
    urgent.arrived()
    with urgent:
        urgent.give_way()
    waited = threading.Thread(target=urgent.give_way)
    with urgent:
        waited.start()
        waited.join(PATIENCE)
        assert not waited.is_alive()


def test_clients_that_are_gone_cost_nothing() -> None:
    """Connections that were reset before they were accepted would each cost a thread to notice."""
    with serving() as client:
        for reset in (True, False):
            for _ in range(50):
                with client.connect() as sock:
                    if reset:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert client.ask("/metrics")[0] == 200
        for _ in soon():
            if connections() == 0:
                break
