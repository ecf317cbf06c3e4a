from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.handlers.parent import Handlers
from exporter.handlers.tallies import plausible
from exporter.handlers.wire import MOST_FRAME_BYTES, HandlerTally
from exporter.model import Outcome
from exporter.records.hub import Hub
from tests.unit.handler_child import eventually, lines, of, planned, record, running

HOSTILE = [
    record(1, comm=b"a\nb\"c'd\\", parent_comm=b"\xff\xfe\x1b[31m", exe=b"/tmp/<script>alert(1)</script>", cgroup="/ü".encode()),
    record(2, comm=b"", exe=b"", cgroup=b"", uid=None, code=None, cpu_ns=None, ppid=0, outcome=Outcome.UNKNOWN),
    record(3, uid=2**32 - 2, ended_ns=2**63 - 1, runtime_ns=2**62, code=255, exe=b"/" + b"x" * 255),
]


def pid_of(consumer: Handlers) -> int:
    eventually(lambda: consumer.status().running)
    assert consumer._child is not None
    return consumer._child.pid


def hung(consumer: Handlers, label: str) -> bool:
    return of(consumer, label).timeouts == 1


def test_records_reach_a_handler_as_they_were(tmp_path: Path) -> None:
    """Names are what a process chose, and some numbers are not known: neither may be changed on the way."""
    with running(planned(tmp_path, "Keep", path=str(tmp_path / "kept"))) as consumer:
        consumer.offer(HOSTILE)
    assert lines(tmp_path / "kept") == [repr(each) for each in HOSTILE]
    assert of(consumer, "Keep").handled == 3


def test_it_is_a_consumer_of_the_hub(tmp_path: Path) -> None:
    """Source and handlers only meet there."""
    hub = Hub(10)
    with running(planned(tmp_path, "Keep", path=str(tmp_path / "kept"))) as consumer:
        hub.attach(consumer)
        assert hub.live
        hub.publish(HOSTILE)
    assert len(lines(tmp_path / "kept")) == 3
    assert set(hub.dropped()) == {("handlers", reason) for reason in ("full", "down", "timeout", "crash", "malformed")}


def test_one_that_does_not_wait_for_cpu_has_records_of_its_own(tmp_path: Path) -> None:
    """The records that come at once go to it alone, and the complete ones to the others; none twice."""
    hub, early, whole, other = Hub(10), record(2, cpu_ns=None), record(2, cpu_ns=5), record(4)
    soon = replace(planned(tmp_path, "Keep", path=str(tmp_path / "soon")), at_once=True)
    with running(soon, planned(tmp_path, "Even", path=str(tmp_path / "whole"))) as consumer:
        for each in consumer.consumers:
            hub.attach(each)
        assert hub.at_once
        hub.first([early])
        hub.completed([whole])
        hub.publish([other])
    assert lines(tmp_path / "soon") == [repr(early), repr(other)]
    assert lines(tmp_path / "whole") == [repr(whole), repr(other)]


def test_a_handlers_own_filter_chooses(tmp_path: Path) -> None:
    """It is half of the interface."""
    with running(planned(tmp_path, "Even", path=str(tmp_path / "kept"))) as consumer:
        consumer.offer([record(number) for number in range(10)])
    assert len(lines(tmp_path / "kept")) == 5
    assert of(consumer, "Even").handled == 5


@pytest.mark.parametrize("what", ["raises", "exits", "eats_memory"])
def test_one_that_raises_loses_its_batch_and_no_one_elses(tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Handlers don't know of each other."""
    bad = planned(tmp_path, "Bad", what=what, at=1)
    with running(bad, planned(tmp_path, "Keep", path=str(tmp_path / "kept"))) as consumer:
        for number in (1, 1, 1, 2):
            consumer.offer([record(number)])
            eventually(lambda: consumer._read_page().done == consumer._feed.sent > 0)
    status = of(consumer, "Bad")
    assert (status.errors, status.lost, status.handled, status.timeouts) == (3, 3, 1, 0)
    assert of(consumer, "Keep").handled == len(lines(tmp_path / "kept")) == 4
    assert consumer.status().restarts == 0
    assert capfd.readouterr().err.count("a handler failed") == 1  # at most one line a minute


@pytest.mark.parametrize("what", ["hangs", "holds_the_gil"])
def test_one_that_hangs_is_killed_and_started_again(tmp_path: Path, what: str) -> None:
    """It never comes back by itself, and may not even let another thread run."""
    keep = planned(tmp_path, "Keep", path=str(tmp_path / "kept"))
    with running(keep, planned(tmp_path, "Bad", timeout_seconds=0.5, what=what, at=1)) as consumer:
        first = pid_of(consumer)
        consumer.offer([record(1)])
        eventually(lambda: hung(consumer, "Bad"))
        consumer.offer([record(2)])  # comes back at once, and waits for the next child
        eventually(lambda: of(consumer, "Keep").handled == 2)
        assert pid_of(consumer) != first
    assert consumer.dropped() == {"full": 0, "down": 0, "timeout": 1, "crash": 0, "malformed": 0}
    assert consumer.status().restarts == 1
    assert len(lines(tmp_path / "kept")) == 2


def test_one_that_ends_the_process_costs_what_was_under_way(tmp_path: Path) -> None:
    """What it took along is counted, and the rest goes on."""
    keep = planned(tmp_path, "Keep", path=str(tmp_path / "kept"))
    with running(planned(tmp_path, "Bad", what="crashes", at=1), keep) as consumer:
        consumer.offer([record(1)])
        eventually(lambda: consumer.status().restarts == 1)
        consumer.offer([record(2)])
        eventually(lambda: of(consumer, "Keep").handled == 1)
    assert consumer.dropped()["crash"] == 1


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    """A slow handler has to cost records, and never memory without end or the reader's time."""
    with running(planned(tmp_path, "Keep", path=str(tmp_path / "kept"))) as consumer:
        pid = pid_of(consumer)
        eventually(lambda: consumer._read_page().progress == 2)
        os.kill(pid, signal.SIGSTOP)
        offered = 0
        while consumer.dropped()["full"] == 0:
            consumer.offer([record(number) for number in range(1000)])
            offered += 1000
            assert offered < 1_000_000
        os.kill(pid, signal.SIGCONT)
    assert of(consumer, "Keep").handled == len(lines(tmp_path / "kept")) == offered - consumer.dropped()["full"]
    assert sum(consumer.dropped().values()) == consumer.dropped()["full"]


def test_closing_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    """A restart of the exporter must not leave a gap; systemd tells the child to end at the same moment."""
    with running(planned(tmp_path, "Keep", path=str(tmp_path / "kept"))) as consumer:
        pid = pid_of(consumer)
        eventually(lambda: consumer._read_page().progress == 2)
        for at in range(0, 20_000, 1000):
            consumer.offer([record(number) for number in range(at, at + 1000)])
        os.kill(pid, signal.SIGTERM)
    assert len(lines(tmp_path / "kept")) == 20_000
    assert sum(consumer.dropped().values()) == 0
    consumer.offer([record()])
    assert consumer.dropped()["down"] == 1


def test_closing_gives_what_waits_one_last_chance(tmp_path: Path) -> None:
    """A child that ended just before must not cost what it never saw."""
    with running(planned(tmp_path, "Keep", path=str(tmp_path / "kept"))) as consumer:
        os.kill(pid_of(consumer), signal.SIGKILL)
        eventually(lambda: not consumer.status().running)
        consumer.offer([record()])
    assert len(lines(tmp_path / "kept")) == 1
    assert sum(consumer.dropped().values()) == 0


def test_closing_does_not_wait_for_one_that_hangs(tmp_path: Path) -> None:
    """The exporter has to stop when it is told."""
    with running(planned(tmp_path, "Bad", timeout_seconds=600, what="hangs", at=1)) as consumer:
        eventually(lambda: consumer._read_page().progress == 2)
        consumer.offer([record(1)])
        consumer.close(0.5)
        assert not consumer.status().running
        assert consumer.dropped()["timeout"] == 1


@pytest.mark.parametrize("target", ["NotMade", "Missing"])
def test_one_that_cannot_be_made_leaves_the_others_alone(tmp_path: Path, target: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A handler whose server is down at start must not keep the sinks from working."""
    keep = planned(tmp_path, "Keep", path=str(tmp_path / "kept"))
    with running(planned(tmp_path, target), keep) as consumer:
        consumer.offer([record()])
    assert (of(consumer, target).errors, of(consumer, target).lost, of(consumer, "Keep").handled) == (1, 1, 1)
    assert f"handler={target}" in capfd.readouterr().err


def test_the_child_is_told_nothing_in_public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Command lines can be read by everybody, and the exporter's environment may hold what is no business of a handler's."""
    monkeypatch.setenv("SOME_TOKEN", "token-of-the-exporter")
    with running(planned(tmp_path, "Facts", path=str(tmp_path / "facts"), secret="password-of-the-handler")) as consumer:
        pid = pid_of(consumer)
        command = Path(f"/proc/{pid}/cmdline").read_text()
    (facts,) = lines(tmp_path / "facts")
    assert facts.startswith("/ ")
    assert "password" not in command + facts
    assert "TOKEN" not in facts
    assert "printed by a handler" in capfd.readouterr().err


def test_what_no_record_can_hold_is_counted(tmp_path: Path) -> None:
    """`offer` must not raise, whatever a source makes of a broken event."""
    with running(planned(tmp_path, "Keep", path=str(tmp_path / "kept"))) as consumer:
        consumer.offer([record(0, exe=bytes(MOST_FRAME_BYTES))])
        consumer.offer([record(1)])
        consumer.offer([])
    assert consumer.dropped()["malformed"] == 1
    assert len(lines(tmp_path / "kept")) == 1


def test_numbers_of_the_child_are_believed_within_limits() -> None:
    """It runs code of others: counters must neither fall nor overflow because of it."""
    assert plausible(HandlerTally(5, 1, 0, 0), HandlerTally(3, 2**64 - 1, 0, 2**64 - 1)) == HandlerTally(5, 2**53, 0, 2**53)
