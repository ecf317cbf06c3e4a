"""Decoding and counting of netlink messages: recorded, lost and missing ones."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.kernel import capabilities
from exporter.kernel.netlink_sockets import refusal
from exporter.kernel.proc_connector import SLOT_BYTES
from exporter.kernel.recvmmsg import Datagrams, widen
from exporter.kernel.taskstats import Stats, decode
from exporter.model import UNKNOWN_COMM, Lost, ModeUnavailable, SourceFailed
from exporter.model.dimensions import COMM
from exporter.sources.netlink.shortfall import SILENT_CHECKS, Shortfall
from exporter.sources.netlink.source import NetlinkSource
from exporter.sources.netlink.thread_groups import Groups
from exporter.sources.tally import Tally
from tests.unit.fake_proc import SCALE, FakeProc
from tests.unit.netlink_messages import FAMILY, feed, recorded


def replay(groups: Groups, events: str, stats: str | None) -> None:
    """Feed recorded messages to `groups`."""
    for message in recorded(stats) if stats else []:
        found = decode(memoryview(message), FAMILY)
        assert isinstance(found, Stats)
        groups.waiting.put(found)
    assert feed(groups, recorded(events)) == 0


def test_replay_with_taskstats(proc: FakeProc, tally: Tally) -> None:
    """With taskstats, comms, outcomes, CPU and threads of the recorded programs are known."""
    groups = Groups(tally, proc.procfs, taskstats=True)
    replay(groups, "root-events", "root-taskstats")
    counts = tally.drain()
    assert counts.of(COMM).row(b"nothing").exits == [4, 0, 0, 0]
    assert counts.of(COMM).row(b"workload").exits == [11, 4, 2, 0]
    assert counts.of(COMM).row(b"true").exits == [1, 0, 0, 0]
    assert [counts.of(COMM).row(name).exits for name in (b"c0", b"c1", b"c2")] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert counts.threads == 2 * 3 + 2 + 1 + 1
    assert counts.signals == {9: 2}
    assert counts.total.execs == sum(each.execs for each in counts.of(COMM).rows.values()) == 1 + 8 + 3 + 3 + 2
    assert counts.lost == {}
    assert groups.alive == {}


def test_replay_without_taskstats(proc: FakeProc, tally: Tally) -> None:
    """Without taskstats, each exit has its outcome. A comm that cannot be read is `unknown`, and counted as lost."""
    bare = Groups(tally, proc.procfs)
    replay(bare, "nobody-events", None)
    counts = tally.drain()
    assert counts.total.exits == [18, 5, 3, 0]
    assert counts.lost == {Lost.NAME_RACE: sum(counts.of(COMM).row(UNKNOWN_COMM).exits)}
    assert counts.total.runtime_ns > 0
    assert counts.total.cpu_ns == 0
    assert bare.alive == {}


def test_shortfall_counts_once_and_starts_anew(proc: FakeProc, tally: Tally) -> None:
    """The number of missing clones never decreases, and the next loss is added to it."""
    proc.clones(100)
    shortfall = Shortfall(proc.procfs, tally)
    shortfall.begin(0)
    shortfall.lost = True
    proc.clones(150)
    assert shortfall.compare(140, 10) is False  # still counting: at least 30
    assert tally.peek().lost == {Lost.OVERRUN: 30}
    shortfall.compare(150, 15)
    assert tally.peek().lost == {Lost.OVERRUN: 35}
    assert shortfall.lost is False
    proc.clones(160)
    shortfall.compare(160, 25)
    assert tally.peek().lost == {Lost.OVERRUN: 35}


def test_a_silent_loss_is_believed_at_the_second_look(proc: FakeProc, tally: Tally) -> None:
    """One missing event may be late. If it is still missing at the next check, the kernel dropped it."""
    shortfall = Shortfall(proc.procfs, tally)
    shortfall.begin(0)
    proc.clones(5)
    assert shortfall.compare(5, 4) is False
    assert shortfall.compare(5, 5) is False
    assert shortfall.compare(5, 4) is False
    assert shortfall.compare(5, 4) is True
    assert tally.drain().lost == {Lost.OVERRUN: 1}


def test_events_that_stop_are_a_failure(proc: FakeProc, tally: Tally) -> None:
    """On older kernels, a process that unsubscribes twice stops the events for all."""
    shortfall = Shortfall(proc.procfs, tally)
    shortfall.begin(0)
    for clones in range(1, SILENT_CHECKS):
        proc.clones(clones + 1)
        shortfall.compare(clones, 0)
    with pytest.raises(SourceFailed, match="stopped sending process events"):
        shortfall.compare(SILENT_CHECKS, 0)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    yield ends
    for end in ends:
        end.close()


def test_many_datagrams_a_read(pair: tuple[socket.socket, socket.socket]) -> None:
    """Datagrams are returned in order, each with its size, and not more than there are slots."""
    here, there = pair
    datagrams = Datagrams(4, SLOT_BYTES)
    assert datagrams.read(here) == []
    sent = [b"a" * 5, b"", b"c" * SLOT_BYTES, b"d" * 3 * SLOT_BYTES, b"e"]
    for each in sent:
        there.send(each)
    assert datagrams.read(here) == [5, 0, SLOT_BYTES, SLOT_BYTES]
    assert bytes(datagrams.view[:5]) == b"aaaaa"
    assert bytes(datagrams.view[3 * SLOT_BYTES :]) == b"d" * SLOT_BYTES
    assert datagrams.read(here) == [1]
    here.detach()
    with pytest.raises(OSError, match="Bad file descriptor"):
        datagrams.read(here)


def test_the_buffer_is_what_the_kernel_gives(pair: tuple[socket.socket, socket.socket]) -> None:
    """An unprivileged user gets the limit `rmem_max`, without an error."""
    assert widen(pair[0], 1 << 28) > 0


def test_refused_outside_the_initial_pid_namespace(tmp_path: Path) -> None:
    """In another PID namespace the kernel sends neither acknowledgement nor error."""
    proc = FakeProc(tmp_path / "proc", sees_host=False)
    assert "pid namespace" in (refusal(proc.procfs) or "")
    with pytest.raises(ModeUnavailable, match="pid namespace"):
        NetlinkSource(SCALE, proc.procfs).start()


def test_a_kernel_without_it(monkeypatch: pytest.MonkeyPatch, proc: FakeProc) -> None:
    """The reason names CONFIG_PROC_EVENTS if the kernel is built without it."""

    def absent(*_: object) -> None:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr("socket.socket", absent)
    (proc.root / "self/ns").mkdir(parents=True)
    proc.write("self/ns/user", b"")
    monkeypatch.setattr(capabilities, "INITIAL_USER_NAMESPACE", (proc.root / "self/ns/user").stat().st_ino)
    assert "CONFIG_PROC_EVENTS" in (refusal(proc.procfs) or "")
