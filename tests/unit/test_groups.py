"""Thread groups: rare orders of kernel events, and corrections by `/proc`."""

from __future__ import annotations

import pytest

from exporter.kernel.taskstats import Stats
from exporter.model import KERNEL_THREADS, NS, UNKNOWN_COMM, Lost
from exporter.model.dimensions import COMM
from exporter.sources.netlink.thread_groups import Groups
from exporter.sources.netlink.waiting import MAX_WAITING
from exporter.sources.tally import Tally
from tests.origins import short_by
from tests.unit.fake_proc import TICK, FakeProc

MS = 1_000_000
OK = 0


@pytest.fixture
def groups(proc: FakeProc, tally: Tally) -> Groups:
    """Thread groups with taskstats."""
    return Groups(tally, proc.procfs, taskstats=True)


@pytest.fixture
def groups_without_taskstats(proc: FakeProc, tally: Tally) -> Groups:
    """Thread groups without taskstats."""
    return Groups(tally, proc.procfs)


def last(pid: int, comm: bytes = b"sh", **fields: int) -> Stats:
    """Return a message of the last thread of a process."""
    return thread(pid, comm, group_dead=True, **fields)


def thread(pid: int, comm: bytes = b"sh", *, group_dead: bool = False, **fields: int) -> Stats:
    values = {"tgid": pid, "ppid": 1, "exit_code": 0, "uid": 0, "elapsed_us": 500, "cpu_us": 100} | fields
    return Stats(pid=pid, comm=comm, group_dead=group_dead, **values)


def test_one_end_however_the_threads_leave(groups: Groups, tally: Tally) -> None:
    """The exit event of the last thread (AGROUP) may come before that of another thread."""
    groups.forked(0, 1, 1, 10, 10)
    groups.forked(1, 1, 1, 11, 10)
    groups.waiting.put(last(11, tgid=10, exit_code=0x700, elapsed_us=9))
    groups.waiting.put(thread(10, b"leader"))
    groups.exited(5, 11, 10, 0x700, 0)
    assert sum(tally.peek().total.exits) == 0
    groups.exited(6, 10, 10, 0, 1)
    counts = tally.drain()
    assert counts.of(COMM).row(b"leader").exits == [0, 1, 0, 0]
    assert counts.total.runtime_ns == 9000
    assert counts.total.cpu_ns == 200_000


@pytest.mark.parametrize("found", [False, True])
def test_a_core_dump_of_any_thread(groups: Groups, tally: Tally, proc: FakeProc, found: bool) -> None:
    """Only the thread that dumped has the bit. It need not be the last thread, nor the last one reported."""
    if found:
        proc.add(10, b"sh", threads=2)
        groups.scan_proc(lost=False)
    else:
        groups.forked(0, 1, 1, 10, 10)
        groups.forked(1, 1, 1, 11, 10)
    groups.waiting.put(last(10, exit_code=0x06))
    groups.exited(5, 10, 10, 0x06, 1)
    groups.exited(6, 11, 10, 0x86, 1)
    counts = tally.drain()
    assert (counts.of(COMM).row(b"sh").exits, counts.core_dumps) == ([0, 0, 1, 0], 1)


def test_an_exit_whose_other_thread_was_not_reported(groups: Groups, tally: Tally) -> None:
    """The kernel may silently drop an event for lack of memory. AGROUP still ends the process."""
    groups.forked(0, 1, 1, 10, 10)
    groups.forked(1, 1, 1, 11, 10)
    groups.waiting.put(last(10))
    groups.exited(5, 10, 10, 0, 1)
    groups.reconcile(6)
    assert sum(tally.peek().total.exits) == 0
    groups.reconcile(6 + 2 * NS)
    assert tally.drain().of(COMM).row(b"sh").exits[OK] == 1
    assert groups.alive == {}


@pytest.mark.parametrize("tid", [10, 11])
def test_exec_of_another_thread_than_the_leader(groups: Groups, tally: Tally, tid: int) -> None:
    """The exit event of the old leader has its own TID or that of the new leader: a race in the kernel."""
    groups.forked(0, 1, 1, 10, 10)
    groups.forked(1, 1, 1, 11, 10)
    groups.waiting.put(thread(10, b"old"))
    groups.waiting.put(last(10, b"new"))
    groups.exited(5, tid, 10, 9, 1)
    groups.execed(6, 10)
    groups.exited(7, 10, 10, 0, 1)
    counts = tally.drain()
    assert counts.of(COMM).row(b"new").exits == [1, 0, 0, 0]
    assert counts.of(COMM).row(b"new").execs == 1
    assert counts.total.cpu_ns == 200_000
    assert counts.lost == {}


def test_versions_without_a_group_pair_by_thread(groups: Groups, tally: Tally) -> None:
    """Before version 12 there is no AGROUP: the exit is the last exit event, with its time."""
    groups.forked(0, 1, 1, 10, 10)
    groups.forked(1, 1, 1, 11, 10)
    for pid in (10, 11):
        groups.waiting.put(thread(pid, b"old", tgid=0))
    groups.exited(5 * MS, 10, 10, 0, 1)
    groups.exited(7 * MS, 11, 10, 0x300, 0)
    counts = tally.drain()
    assert counts.of(COMM).row(b"old").exits == [0, 1, 0, 0]
    assert counts.total.runtime_ns == 7 * MS
    assert counts.total.cpu_ns == 200_000


def test_a_pid_given_out_twice_in_one_read(groups: Groups, tally: Tally) -> None:
    """A storm reuses PIDs within two seconds, and the exporter may be stopped for longer."""
    groups.waiting.put(last(10, b"first"))
    groups.waiting.put(last(10, b"second"))
    for at_ns in (0, NS):
        groups.forked(at_ns, 1, 1, 10, 10)
        groups.exited(at_ns + 5, 10, 10, 0, 1)
    counts = tally.drain()
    assert [counts.of(COMM).row(name).exits[OK] for name in (b"first", b"second")] == [1, 1]


def test_an_end_without_its_taskstats(groups: Groups, tally: Tally) -> None:
    """The taskstats socket may overflow alone: the exit counts, its comm is from `/proc`, and its CPU counts as lost."""
    groups.forked(0, 1, 1, 10, 10)
    groups.execed(1, 10)
    groups.exited(5, 10, 10, 0, 1)
    counts = tally.drain()
    assert counts.of(COMM).row(UNKNOWN_COMM).exits[OK] == counts.of(COMM).row(UNKNOWN_COMM).execs == 1
    assert counts.lost == {Lost.NAME_RACE: 1, Lost.CPU_NEVER_CAME: 1}


def test_execs_of_the_living_are_named_in_time(groups: Groups, tally: Tally, proc: FakeProc) -> None:
    """The exec of a daemon must be counted before the daemon exits."""
    proc.add(10)
    proc.write("10/comm", b"daemon\n")
    groups.forked(0, 1, 1, 10, 10)
    groups.execed(5, 10)
    assert groups.name_execs(5) is True
    assert tally.peek().total.execs == 0
    assert groups.name_execs(6) is False
    assert tally.drain().of(COMM).row(b"daemon").execs == 1
    groups.waiting.put(last(10, b"daemon"))
    groups.exited(9, 10, 10, 0, 1)
    assert tally.drain().total.execs == 0


def test_names_without_taskstats(groups_without_taskstats: Groups, tally: Tally, proc: FakeProc) -> None:
    """Comms are read at the exec and inherited at the fork, but not from a thread, which may have another comm."""
    proc.add(10)
    proc.write("10/comm", b"a) b\n")
    groups_without_taskstats.forked(0, 1, 1, 10, 10)
    groups_without_taskstats.execed(1, 10)
    groups_without_taskstats.forked(2, 10, 10, 20, 20)
    groups_without_taskstats.exited(3, 20, 20, 0, 10)
    groups_without_taskstats.forked(4, 11, 10, 21, 21)
    groups_without_taskstats.exited(5, 21, 21, 0, 10)
    groups_without_taskstats.renamed(10, 10, b"new")
    groups_without_taskstats.renamed(11, 10, b"a thread's")
    groups_without_taskstats.exited(6, 10, 10, 0, 1)
    counts = tally.drain()
    assert {name: each.exits[OK] for name, each in counts.of(COMM).rows.items()} == {b"a) b": 1, UNKNOWN_COMM: 1, b"new": 1}
    assert short_by(tally.origins(), lambda origin: origin.parent) == {b"a) b": 2, UNKNOWN_COMM: 1}


def test_kernel_threads_have_one_name(groups: Groups, tally: Tally) -> None:
    """The children of kthreadd have many comms, which would use up the series."""
    groups.forked(0, 2, 2, 30, 30)
    groups.waiting.put(last(30, b"kworker/0:1", ppid=2))
    groups.exited(5, 30, 30, 0, 2)
    assert tally.drain().of(COMM).row(KERNEL_THREADS).exits[OK] == 1


def test_what_was_there_before_ends_as_proc_says(groups_without_taskstats: Groups, tally: Tally, proc: FakeProc) -> None:
    """The threads of a running process may change while they are counted, so the count may be wrong."""
    proc.add(10, b"java", threads=2)
    groups_without_taskstats.scan_proc(lost=False)
    proc.add(10, b"java", threads=3)
    groups_without_taskstats.exited(5, 11, 10, 0, 0)
    groups_without_taskstats.exited(6, 12, 10, 0, 0)
    assert sum(tally.peek().total.exits) == 0
    proc.add(10, b"java", state="Z", threads=1)
    groups_without_taskstats.exited(7, 10, 10, 0x200, 1)
    groups_without_taskstats.exited(8, 13, 10, 0x200, 1)
    assert tally.drain().of(COMM).row(b"java").exits == [0, 1, 0, 0]


def test_what_was_there_before_ends_as_taskstats_says(groups: Groups, tally: Tally, proc: FakeProc) -> None:
    """AGROUP is exact; the number of threads in `/proc` may be outdated when it is read."""
    proc.add(10, b"java", threads=3)
    groups.scan_proc(lost=False)
    groups.waiting.put(thread(12, tgid=10))
    groups.exited(5, 12, 10, 0, 0)
    assert sum(tally.peek().total.exits) == 0
    groups.waiting.put(last(10, b"java", elapsed_us=7_000_000))
    groups.exited(9, 10, 10, 0, 1)
    groups.reconcile(9 + 2 * NS)  # the third may have gone while it was counted
    counts = tally.drain()
    assert counts.of(COMM).row(b"java").exits == [1, 0, 0, 0]
    assert counts.total.runtime_ns == 7 * NS


def test_after_an_overrun_proc_is_the_truth(groups: Groups, tally: Tally, proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that `/proc` no longer lists count as lost, unless taskstats reported their exit. New ones are added."""
    monkeypatch.setattr("time.clock_gettime_ns", lambda _: 0)
    monkeypatch.setattr("time.monotonic_ns", lambda: 0)
    for pid in (10, 20, 30):
        groups.forked(pid * TICK, 1, 1, pid, pid)
    groups.waiting.put(last(20, b"told", elapsed_us=1))
    groups.waiting.put(last(50, b"unborn", elapsed_us=2))
    proc.add(10, start=10)
    proc.add(40, b"new", start=40)
    groups.scan_proc(lost=True)
    assert groups.alive.keys() == {10, 20, 30, 40}
    groups.reconcile(60 * TICK, lost=True)
    counts = tally.drain()
    assert groups.alive.keys() == {10, 40}
    assert {name: each.exits[OK] for name, each in counts.of(COMM).rows.items() if sum(each.exits)} == {b"told": 1, b"unborn": 1}
    assert counts.lost == {Lost.OVERRUN: 1}, "30 is lost; 50 counts as a clone that was not told of"


def test_proc_is_ahead_of_the_events(groups: Groups, tally: Tally, proc: FakeProc) -> None:
    """For a late reader the process is gone at the exit event of its first thread. It must not be counted twice."""
    proc.add(10, b"java", threads=2)
    groups.scan_proc(lost=False)
    proc.remove(10)
    for tid, stats in ((11, thread(11, tgid=10)), (12, thread(12, tgid=10)), (10, last(10, b"java"))):  # one came while they were counted
        groups.waiting.put(stats)
        groups.exited(5, tid, 10, 0, 1)
    groups.reconcile(2 * NS)
    assert tally.drain().total.exits == [1, 0, 0, 0]


def test_proc_is_ahead_of_the_events_alone(groups_without_taskstats: Groups, tally: Tally, proc: FakeProc) -> None:
    """Without taskstats the status is that of the last thread; a core dump may be reported by any thread."""
    proc.add(10, b"java", threads=3)
    groups_without_taskstats.scan_proc(lost=False)
    proc.remove(10)
    for tid, code in ((11, 0x00), (12, 0x86), (10, 0x06)):
        assert sum(tally.peek().total.exits) == 0
        groups_without_taskstats.exited(5, tid, 10, code, 1)
    counts = tally.drain()
    assert (counts.total.exits, counts.core_dumps) == ([0, 0, 1, 0], 1)


def test_an_exit_that_came_after_the_listing(groups: Groups, tally: Tally) -> None:
    """The exit event of a process missing in `/proc` may still wait in the socket."""
    groups.forked(0, 1, 1, 10, 10)
    groups.scan_proc(lost=True)
    groups.waiting.put(last(10))
    groups.exited(5, 10, 10, 0, 1)
    groups.reconcile(9, lost=True)
    counts = tally.drain()
    assert counts.total.exits[OK] == 1
    assert counts.lost == {}


def test_a_pid_that_came_round_unseen(groups: Groups, tally: Tally) -> None:
    """A fork with the same PID shows that the exit event of the older process was lost."""
    groups.forked(0, 1, 1, 10, 10)
    groups.forked(5 * NS, 1, 1, 10, 10)
    assert tally.drain().lost == {Lost.OVERRUN: 1}
    assert groups.alive[10].start_ns == 5 * NS


def test_waiting_taskstats_are_bounded(groups: Groups) -> None:
    """All exit events may be lost; memory must stay bounded."""
    for pid in range(3 * MAX_WAITING):
        groups.waiting.put(last(pid + 1))
    assert len(groups.waiting) <= 2 * MAX_WAITING
    groups.reconcile(0)
    groups.reconcile(0)
    assert len(groups.waiting) == 0
