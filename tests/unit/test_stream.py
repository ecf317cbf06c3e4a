"""What a watcher of the stream gets, and who may be one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from exporter.model import comm_text
from exporter.records.hub import Hub
from exporter.supervision.completeness import Sample
from exporter.web import stream
from exporter.web.stream import MOST_RECORDS, StreamFeed, Streams
from tests.unit.pages import HOSTILE, Served, record, served, soon
from tests.unit.snapshots import ordinary
from tests.unit.stream_watching import API, PATH, pids, watching
from tests.unit.web_clients import ask


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
        supervisor.change(last_minute=Sample(1, 1))
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
    feed = StreamFeed()
    feed.offer([record(number) for number in range(MOST_RECORDS - 1)])
    feed.offer([record(number) for number in range(1000, 1003)])
    records, left_out = feed.pop_all()
    assert ([each.pid for each in records[-4:]], records[0].pid, left_out) == ([1000 + MOST_RECORDS - 2, 2000, 2001, 2002], 1002, 2)
    assert feed.pop_all() == ([], 0)
    assert feed.dropped() == {"slow": 2}


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


def test_close_ends_streams_at_once(hub: Hub) -> None:
    """A restart must not wait for browsers."""
    with served(ordinary(), hub) as site, watching(site.url) as watcher:
        watcher.next("status")
        site.server.close()
        assert list(watcher.events()) == []
