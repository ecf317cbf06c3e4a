"""For whom processes ran, by events: ancestors and cgroups, exact or unknown, never guessed."""

from __future__ import annotations

import time

import pytest

from exporter.model import NS, Mode
from exporter.model.origins import DEEP, UNKNOWN, Lineage, Origin
from exporter.records.record import Record
from exporter.sources.netlink import allowance
from exporter.sources.netlink.allowance import Allowance
from exporter.sources.netlink.thread_groups import Groups
from exporter.sources.tally import Tally
from tests.unit.fake_proc import TICK, FakeProc
from tests.unit.test_groups import last

MS = NS // 1000
CRON, SH, SCRIPT, TRUE = 10, 11, 12, 13

pytestmark = pytest.mark.usefixtures("only_v2")


@pytest.fixture
def groups(proc: FakeProc, tally: Tally) -> Groups:
    """Cron has run for 10 s; a shell and a script are young."""
    groups = Groups(tally, proc.procfs, taskstats=True)
    proc.add(CRON, b"cron")
    proc.cgroup(CRON, b"/cron.service")
    groups.forked(0, 1, 1, CRON, CRON)
    groups.renamed(CRON, CRON, b"cron")
    start(groups, SH, CRON, 10 * NS)
    start(groups, SCRIPT, SH, 10 * NS + MS)
    return groups


def start(groups: Groups, pid: int, parent: int, at_ns: int) -> None:
    groups.forked(at_ns, parent, parent, pid, pid)
    groups.renamed(pid, pid, b"p%d" % pid)


def end(groups: Groups, tally: Tally, pid: int, parent: int, at_ns: int, *, uid: int = 0) -> Origin:
    """Return the origin of a process that exits."""
    groups.waiting.put(last(pid, ppid=parent, uid=uid, elapsed_us=500))
    groups.exited(at_ns, pid, pid, 0, parent)
    (origin,) = tally.origins().rows
    return origin


def test_the_spawner_is_the_nearest_lasting_ancestor(groups: Groups, tally: Tally) -> None:
    """Whatever the parent is called: a cron starts a shell, that a script, that a program."""
    start(groups, TRUE, SCRIPT, 10 * NS + 2 * MS)
    assert end(groups, tally, TRUE, SCRIPT, 10 * NS + 3 * MS, uid=54321) == Origin(b"/cron.service", 54321, b"sh", b"p12", b"cron")
    start(groups, TRUE, SCRIPT, 11 * NS + 2 * MS)
    assert end(groups, tally, TRUE, SCRIPT, 11 * NS + 3 * MS).spawner == b"p12", "by now it lasts itself"


def test_a_chain_that_is_too_long_is_deep(groups: Groups, tally: Tally) -> None:
    """As in the kernel's programs: 8 ancestors are looked at."""
    for pid in range(20, 28):
        start(groups, pid, pid - 1 if pid > 20 else CRON, 10 * NS + pid)
    assert end(groups, tally, 27, 26, 10 * NS + MS).spawner == b"cron"
    start(groups, 27, 26, 10 * NS + 27)
    start(groups, 28, 27, 10 * NS + 28)
    start(groups, 29, 28, 10 * NS + 29)
    assert end(groups, tally, 29, 28, 10 * NS + MS).spawner == DEEP


def test_an_unknown_ancestor(groups: Groups, tally: Tally) -> None:
    """Its fork was lost: what its own ancestors are is not guessed."""
    start(groups, TRUE, 77, 10 * NS)
    assert end(groups, tally, TRUE, 77, 10 * NS + MS).spawner == UNKNOWN


def test_a_reused_pid_is_no_ancestor(groups: Groups, tally: Tally) -> None:
    """The ancestor has exited, and a younger process has its PID."""
    start(groups, TRUE, SCRIPT, 10 * NS + 2 * MS)
    groups.exited(10 * NS + 3 * MS, SH, SH, 0, CRON)
    tally.origins()
    start(groups, SH, 1, 12 * NS)
    assert end(groups, tally, TRUE, SCRIPT, 10 * NS + 500 * MS).spawner == UNKNOWN


@pytest.mark.parametrize("start_ns", [10 * NS + MS, 5 * NS])
def test_an_orphan_has_a_new_parent(groups: Groups, tally: Tally, proc: FakeProc, monkeypatch: pytest.MonkeyPatch, start_ns: int) -> None:
    """`/proc` tells which, if the PID is still that process."""
    monkeypatch.setattr("time.clock_gettime_ns", lambda _: time.monotonic_ns())
    start(groups, TRUE, SCRIPT, 10 * NS + 2 * MS)
    groups.exited(10 * NS + 3 * MS, SH, SH, 0, CRON)
    tally.origins()
    proc.add(SCRIPT, ppid=CRON, start=start_ns // TICK)
    assert end(groups, tally, TRUE, SCRIPT, 10 * NS + 4 * MS).spawner == (b"cron" if start_ns > 9 * NS else UNKNOWN)


def lineages(tally: Tally) -> list[Lineage]:
    """Those of the records until now."""
    got: list[Record] = []
    tally.publish(got.extend)
    tally.flush(Mode.NETLINK)
    return [each.lineage for each in got]


def test_all_ancestors(groups: Groups, tally: Tally) -> None:
    """Up to process 1; those above the spawner are looked up once a second."""
    tally.publish(lambda _: None)
    start(groups, 1, 0, -NS)
    start(groups, TRUE, SCRIPT, 10 * NS + 2 * MS)
    end(groups, tally, TRUE, SCRIPT, 10 * NS + 3 * MS)
    groups.alive[1].comm = b"renamed"
    for at_ns in (10 * NS + 4 * MS, 11 * NS):
        start(groups, TRUE, CRON, at_ns)
        end(groups, tally, TRUE, CRON, at_ns + 3 * MS)
    assert lineages(tally) == [(b"p1", b"cron", b"p11", b"p12"), (b"p1", b"cron"), (b"renamed", b"cron")]


def test_unknown_and_deep_ancestors(groups: Groups, tally: Tally) -> None:
    """The chain begins with what it is."""
    tally.publish(lambda _: None)
    start(groups, TRUE, 77, 10 * NS)
    end(groups, tally, TRUE, 77, 10 * NS + MS)
    for pid in range(20, 30):
        start(groups, pid, pid - 1 if pid > 20 else CRON, 10 * NS + pid)
    end(groups, tally, 29, 28, 10 * NS + MS)
    assert lineages(tally) == [(UNKNOWN,), (DEEP, *(b"p%d" % pid for pid in range(21, 29)))]


def test_the_cgroup_is_that_of_the_parent_at_the_fork(groups: Groups, tally: Tally, proc: FakeProc) -> None:
    """Exact unless the process moved; the parent may be gone, or have moved since."""
    start(groups, TRUE, CRON, 11 * NS)
    proc.cgroup(CRON, b"/elsewhere")
    start(groups, 14, CRON, 11 * NS + 1)
    assert end(groups, tally, TRUE, CRON, 11 * NS + MS).cgroup == b"/cron.service"
    assert end(groups, tally, 14, CRON, 11 * NS + MS).cgroup == b"/cron.service", "read a moment ago"
    groups.alive[CRON].cgroup_at_ns = 0
    start(groups, 14, CRON, 11 * NS + 2)
    assert end(groups, tally, 14, CRON, 11 * NS + MS).cgroup == b"/elsewhere"


def test_the_cgroup_is_read_after_an_exec(groups: Groups, tally: Tally, proc: FakeProc) -> None:
    """Service managers and container runtimes move a process before they exec. One that has exited keeps that of its parent."""
    for pid in (TRUE, 14):
        start(groups, pid, CRON, 11 * NS)
        groups.execed(11 * NS + 1, pid)
    proc.add(TRUE)
    proc.cgroup(TRUE, b"/web.service")
    groups.cgroups.read()
    assert end(groups, tally, TRUE, CRON, 11 * NS + MS).cgroup == b"/web.service"
    assert end(groups, tally, 14, CRON, 11 * NS + MS).cgroup == b"/cron.service"


def test_what_was_there_before_is_read(groups: Groups, tally: Tally, proc: FakeProc) -> None:
    """An old daemon that fails must have its owner."""
    proc.add(30, b"daemon")
    proc.cgroup(30, b"/daemon.service")
    groups.scan_proc(lost=False)
    groups.cgroups.read()
    groups.waiting.put(last(30, b"daemon", exit_code=0x100, elapsed_us=7_000_000))
    groups.exited(time.monotonic_ns(), 30, 30, 0x100, CRON)
    assert {(each.cgroup, row.failed_exits) for each, row in tally.origins().rows.items() if row.failed_exits} == {(b"/daemon.service", 1)}


def test_an_exit_whose_fork_was_lost(groups: Groups, tally: Tally) -> None:
    """Taskstats reports its parent, so its spawner is known."""
    assert end(groups, tally, 99, SCRIPT, 10 * NS + 5 * MS) == Origin(b"/cron.service", 0, b"sh", b"p12", b"cron")


def test_reads_take_a_share_of_the_time(groups: Groups, proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a storm, events must not wait for reads; those that wait are read later, the youngest first."""
    now = [begun := time.monotonic_ns() + 10 * NS]
    reads = groups.cgroups._allowance
    monkeypatch.setattr(reads, "_now", lambda: now[0])

    def slow(pid: int) -> bytes:
        now[0] += 4 * MS
        return b"/%d" % pid

    monkeypatch.setattr(groups.cgroups._cgroups, "path", slow)
    for pid in (CRON, SH, SCRIPT):
        groups.cgroups.read_soon(pid)
    for _ in range(3):
        groups.cgroups.read_soon(SCRIPT)
        groups.cgroups.read()
    assert now[0] == begun + 12 * MS
    assert allowance.READS_SHARE * 12 * MS > NS, "the second that was saved up is spent"
    assert (groups.alive[SCRIPT].cgroup, groups.alive[CRON].cgroup) == (b"/12", b"/10")
    now[0] += NS
    groups.cgroups.read()
    assert groups.alive[SCRIPT].cgroup_at_ns


def test_an_allowance_saves_up_to_a_limit() -> None:
    """After an hour of rest there is no burst of an hour's work."""
    now = [0]
    each = Allowance(10, lambda: now[0])
    now[0] = 3600
    spent = []
    for _ in range(5):
        spent.append(each.is_spent)
        each.charge(3)
    assert spent == [False, False, False, False, True]


def test_what_exited_is_not_read(groups: Groups, tally: Tally) -> None:
    """Nothing of a storm's processes may stay."""
    for pid in range(100, 200):
        start(groups, pid, CRON, 11 * NS)
        groups.execed(11 * NS + 1, pid)
        end(groups, tally, pid, CRON, 11 * NS + MS)
    groups.cgroups.read()
    assert len(groups.cgroups._unread) == 0
