"""Events on their way to subscribers: what the kernel may filter, the handlers' child, and what is counted where there is no room."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import exporter
from exporter.config import loading
from exporter.config.options import Config, Filter, HandlerConfig, Sinks
from exporter.config.problems import ConfigError
from exporter.handlers import feed, plan
from exporter.handlers.feed import Feed
from exporter.handlers.parent import Handlers
from exporter.handlers.plan import Plan, Planned
from exporter.library import inbox
from exporter.library.inbox import EventInbox
from exporter.loaders.base import Settings
from exporter.metrics.exposition import Exposition
from exporter.model import Mode, Outcome
from exporter.model.counts import Counts
from exporter.model.events import EventKey, EventKind, WantedEvents
from exporter.records.encoding import as_json
from exporter.records.event import Event
from exporter.records.subscriptions import Subscription, wanted_events
from exporter.supervision.modes import loader_settings
from exporter.supervision.reload import LastReload
from tests.unit.fake_source import FakeSource
from tests.unit.handler_child import eventually, lines, of, record
from tests.unit.snapshots import CONFIG, worst

FORK, EXEC, EXIT, SIGNAL = EventKind
EVENT = Event(EXEC, 1, 42, 1, 0, b"sh", b"cron", b"/bin/sh", None, None, None, None, None, b"", Mode.EBPF_CORE)
EXITED = EVENT._replace(kind=EXIT, exe=b"", outcome=Outcome.SIGNAL, code=9, runtime_ns=5)
KILLED = EVENT._replace(kind=SIGNAL, exe=b"", code=15, sender_pid=7, sender_comm=b"kill")

MODULE = """
import os
from exporter.handlers import Handler

class KeepEvents(Handler):
    def __init__(self, path):
        self.path = path
    def handle_events(self, batch):
        with open(self.path, "a") as file:
            file.writelines(f"{event.kind} {event.pid}\\n" for event in batch)

class KeepBoth(KeepEvents):
    def handle(self, batch):
        with open(self.path, "a") as file:
            file.writelines(f"record {record.pid}\\n" for record in batch)

class Fails(Handler):
    def handle_events(self, batch):
        if batch[0].pid == 13: os._exit(3)
        raise ValueError("bad event")
"""


EVERYTHING = Filter()


def planned(folder: Path, name: str, *events: str, wanted: Filter = EVERYTHING, **options: Any) -> Planned:
    (folder / "event_handlers.py").write_text(MODULE)
    return Planned(name, f"event_handlers:{name}", (str(folder),), wanted, options, 30.0, events=events, records=name == "KeepBoth")


def started(*handlers: Planned) -> Handlers:
    consumer = Handlers(Plan(handlers, live=True, owners=(os.geteuid(),)))
    consumer.start()
    return consumer


def test_the_kernel_filters_by_what_all_subscribers_list() -> None:
    """A key that only one of them sets would hide events from the others; a glob is for user space."""
    exact, loose = Filter(uid=(0, 1), comm=("sh",)), Filter(uid=(2,), comm=("ba*",), ppid=(9,))
    wanted = wanted_events([Subscription((EXEC, EXIT), exact), Subscription((EXIT,), loose)])
    assert wanted.kinds == (EXEC, EXIT)
    assert wanted.filtered_by == (0, 1 << EventKey.UID | 1 << EventKey.COMM, 1 << EventKey.UID, 0)
    execs, exits = 1 << EXEC.position, 1 << EXIT.position
    assert set(wanted.keys) == {
        (EventKey.UID, 0, execs | exits),
        (EventKey.UID, 1, execs | exits),
        (EventKey.UID, 2, exits),
        (EventKey.COMM, "sh", execs),
    }


def test_too_many_values_are_left_to_user_space() -> None:
    """They are on a command line, and in a map of one size."""
    many = [Subscription((FORK,), Filter(uid=tuple(range(at, at + 65)), ppid=(1,))) for at in (0, 100)]
    assert wanted_events(many).filtered_by[FORK.position] == 1 << EventKey.PPID
    assert len(wanted_events(many[:1]).keys) == 66


NAMES = st.sampled_from(["sh", "ls", "s*", "[[]kernel]", "\\x01", "é"])
FILTERS = st.builds(
    Filter,
    comm=st.lists(NAMES, max_size=2).map(tuple),
    parent=st.lists(NAMES, max_size=2).map(tuple),
    uid=st.lists(st.integers(0, 2), max_size=2).map(tuple),
    pid=st.lists(st.integers(1, 2), max_size=2).map(tuple),
)
SUBSCRIPTIONS = st.builds(Subscription, st.lists(st.sampled_from(EventKind), min_size=1, max_size=3, unique=True), FILTERS)
EVENTS = st.builds(
    lambda kind, pid, uid, comm, parent: EVENT._replace(kind=kind, pid=pid, uid=uid, comm=comm, parent_comm=parent),
    st.sampled_from(EventKind),
    st.integers(1, 2),
    st.integers(0, 2),
    *[st.sampled_from([b"sh", b"ls", b"\1", "é".encode(), b"[kernel]"])] * 2,
)


@given(st.lists(SUBSCRIPTIONS, max_size=3), EVENTS)
def test_the_kernel_sends_whatever_a_subscriber_wants(subscriptions: list[Subscription], event: Event) -> None:
    """Its filter may let too much through, never too little."""
    wanted = wanted_events(subscriptions)
    if any(each.matches()(event) for each in subscriptions):
        assert is_sent(wanted, event)


def is_sent(wanted: WantedEvents, event: Event) -> bool:
    """As `event_of` in bpf/events.bpf.c."""
    values: dict[int, int | bytes] = {
        EventKey.UID: event.uid,
        EventKey.PID: event.pid,
        EventKey.PPID: event.ppid,
        EventKey.COMM: event.comm,
        EventKey.PARENT: event.parent_comm,
    }
    bits = {(each.by, each.value.encode() if isinstance(each.value, str) else each.value): each.kinds for each in wanted.keys}
    tested = [key for key in EventKey if wanted.filtered_by[event.kind.position] >> key & 1]
    return event.kind in wanted.kinds and all(bits.get((key, values[key]), 0) >> event.kind.position & 1 for key in tested)


def test_what_an_event_lacks_does_not_match() -> None:
    """An exec has no outcome and no runtime; an exit no path."""
    matches = Subscription((EXEC, EXIT), Filter(outcome=("signal",), max_runtime_seconds=1)).matches()
    assert (matches(EVENT), matches(EXITED), matches(KILLED)) == (False, True, False)
    assert not Subscription((EXIT,), Filter(exe=("/bin/*",))).matches()(EXITED)


def test_subscriptions_reach_the_broker() -> None:
    """It is another process, and is told once."""
    config = Config(handlers=(HandlerConfig("a:b", filter=Filter(uid=(5,)), events=("exit",)), HandlerConfig("c:d")))
    settings = loader_settings(config)
    assert settings.events == wanted_events([Subscription((EXIT,), Filter(uid=(5,)))])
    assert Settings.from_json(settings.to_json()) == settings
    assert loader_settings(Config()).events.kinds == ()


def test_keys_that_events_do_not_have_are_refused(tmp_path: Path) -> None:
    """A handler that silently gets nothing would be noticed when it is needed."""
    (tmp_path / "event_handlers.py").write_text(MODULE)
    handler = HandlerConfig("event_handlers:KeepBoth", (str(tmp_path),), Filter(unit=("a",), pod=("b",)), events=("exec",))
    with pytest.raises(ConfigError) as caught:
        plan.make((handler,), Sinks())
    assert [each.partition(":")[0] for each in caught.value.problems] == ["handlers[0].filter.unit", "handlers[0].filter.pod"]
    with pytest.raises(ConfigError, match="records: false, but it has no events either"):
        plan.make((replace(handler, events=(), records=False),), Sinks())
    with pytest.raises(ValueError, match="events do not have unit"):
        exporter.watch(events=["exec"], only=Filter(unit=("a",)))
    with pytest.raises(ValueError, match="'clone' is not a valid EventKind"):
        exporter.watch(events=["clone"])  # type: ignore[list-item]
    (file := tmp_path / "exporter.yml").write_text("handlers: [{name: 'a:B', events: [clone]}]")
    with pytest.raises(ConfigError, match=r"handlers\[0\].events\[0\]: 'clone' is not one of fork, exec, exit, signal"):
        loading.load(str(file))


def test_events_reach_those_who_asked(tmp_path: Path) -> None:
    """By kind and filter; a handler for events alone gets no records, and one for records alone no events."""
    consumer = started(
        planned(tmp_path, "KeepEvents", "exec", "signal", wanted=Filter(comm=("sh",)), path=str(tmp_path / "events")),
        planned(tmp_path, "KeepBoth", "exit", path=str(tmp_path / "both")),
        Planned("records", "event_handlers:KeepBoth", (str(tmp_path),), options={"path": str(tmp_path / "records")}),
    )
    consumer.offer_events([EVENT, EXITED, KILLED._replace(pid=5), EVENT._replace(comm=b"ls")])
    consumer.offer([record(77)])
    consumer.offer_events([EVENT._replace(pid=6)])
    consumer.close(60)
    assert lines(tmp_path / "events") == ["exec 42", "signal 5", "exec 6"]
    assert lines(tmp_path / "both") == ["exit 42", "record 77"]
    assert lines(tmp_path / "records") == ["record 77"]
    assert Handlers(Plan((planned(tmp_path, "Fails", "exec"),), live=False)).consumers == [], "no record is read for it"
    assert [(each.handled, each.events, each.lost_events) for each in consumer.status().handlers] == [(0, 3, 0), (1, 1, 0), (1, 0, 0)]
    assert sum(consumer.dropped_events().values()) == 0


def test_the_example_of_the_manual(tmp_path: Path) -> None:
    """It is copied."""
    manual = (Path(__file__).parents[2] / "docs/handlers.md").read_text().partition("## Events")[2]
    (tmp_path / "root_shells.py").write_text(re.findall(r"```python\n(.*?)```", manual, re.DOTALL)[0])
    consumer = started(Planned("shells", "root_shells:RootShells", (str(tmp_path),), events=("exec", "signal"), records=False))
    consumer.offer_events([EVENT, KILLED])
    consumer.close(60)
    assert (of(consumer, "shells").events, of(consumer, "shells").errors) == (2, 0)


def test_what_fails_is_counted_by_kind(tmp_path: Path) -> None:
    """An exception loses the batch; a crash what was under way, and the next process goes on."""
    consumer = started(planned(tmp_path, "Fails", "exec", "exit"))
    consumer.offer_events([EVENT, EXITED])
    eventually(lambda: of(consumer, "Fails").lost_events == 2)
    assert of(consumer, "Fails").errors == 1
    consumer.offer_events([EVENT._replace(pid=13), EXITED, EXITED])
    eventually(lambda: consumer.status().restarts == 1)
    consumer.offer_events([EXITED])
    eventually(lambda: of(consumer, "Fails").lost_events == 3)
    consumer.close(60)
    assert {key: n for key, n in consumer.dropped_events().items() if n} == {(EXEC, "crash"): 1, (EXIT, "crash"): 2}
    consumer.offer_events([KILLED])
    assert consumer.dropped_events()[SIGNAL, "down"] == 1


def test_a_storm_of_events_leaves_room_for_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share one queue, and only those who asked for events should pay for them."""
    monkeypatch.setattr(feed, "_MOST_WITH_EVENTS", 2000)
    queue = Feed()
    for _ in range(20):
        queue.add_events([EVENT, EXITED])
    queue.add([record()])
    down = queue.events_dropped[EXEC, "down"]
    assert 0 < down == queue.events_dropped[EXIT, "down"] < 20
    assert queue.dropped["down"] == 0
    queue.drop_queue("down")
    assert queue.events_dropped[EXEC, "down"] == 20
    assert queue.dropped["down"] == 1


def test_a_program_that_does_not_pop_loses_events_by_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not cost memory without end."""
    monkeypatch.setattr(inbox, "_MOST_WAITING", 2)
    each = EventInbox(Subscription((EXEC, EXIT), Filter()).matches())
    each.offer_events([EVENT, KILLED, EXITED, EVENT, EXITED, EXITED])
    assert each.pop_all() == ([EVENT, EXITED], True)
    assert each.dropped_events() == {(EXEC, "slow"): 1, (EXIT, "slow"): 2}
    each.release()


def test_without_subscription_there_is_nothing_to_iterate_over() -> None:
    """A loop over it would wait for ever."""
    with pytest.raises(ValueError, match="no events were asked for"):
        exporter.follow("http://localhost").events  # noqa: B018


def test_a_source_without_events_says_so() -> None:
    """The log and `doctor` show it."""
    assert FakeSource().publish_events(lambda _: None) == "only the mode ebpf_core tells events"


def test_json() -> None:
    """What a kind does not have is null; the two kinds with a signal show its name."""
    whole = as_json(EVENT)
    assert (whole["kind"], whole["at"], whole["exe"], whole["outcome"], whole["signal"]) == (
        "exec",
        "1970-01-01T00:00:00.000000001Z",
        "/bin/sh",
        None,
        None,
    )
    assert (as_json(EXITED)["signal"], as_json(EXITED)["exit_code"], as_json(EXITED)["runtime_seconds"]) == ("SIGKILL", None, 5e-9)
    assert (as_json(KILLED)["signal"], as_json(KILLED)["exit_code"], as_json(KILLED)["sender_comm"]) == ("SIGTERM", None, "kill")
    json.dumps(whole)


def test_metrics_exist_where_somebody_subscribes() -> None:
    """Each kind with all reasons from the start, so that `increase()` sees the first loss; none for others."""

    def rendered(*handlers: HandlerConfig) -> str:
        return Exposition(Config(handlers=handlers, metrics=CONFIG.metrics), counted, LastReload()).render().decode()

    def counted() -> Any:
        snapshot = worst()
        snapshot.view.counts.add(Counts(events={EXEC: 5}))
        snapshot.events_dropped[EXEC, "reader", "full"] = 2
        return snapshot

    text = rendered(HandlerConfig("a:b", events=("exit", "exec")))
    assert 'shortproc_events_total{kind="exec"} 5' in text
    assert 'shortproc_events_total{kind="exit"} 0' in text
    assert 'shortproc_events_dropped_total{consumer="reader",kind="exec",reason="full"} 2' in text
    assert len(re.findall("^shortproc_events_dropped_total{", text, re.MULTILINE)) == 2 * 6
    assert "fork" not in "".join(re.findall("^shortproc_events.*", text, re.MULTILINE))
    assert "shortproc_events" not in rendered()
