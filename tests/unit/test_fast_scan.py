"""Probing, pidfds, wrap and budget, without privilege and without the real `/proc`."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from fake_proc import MEASURES, TICK, Clock, FakePidfds, FakeProc

from exporter.model import NS, UNKNOWN_OUTCOME, Lost
from exporter.sources import fast_scan, probe
from exporter.sources.fast_scan import CREDIT_NS, MS, YOUNG_NS, Budget, FastScanSource
from exporter.sources.inotify import IN_OPEN, Inotify, proc_reports
from exporter.sources.probe import ExitWatch, Probe, given_out
from exporter.sources.procfs import Procfs

LIMIT = 4


class Scene:
    """A fast scan of a fake `/proc`, made turn by turn."""

    def __init__(self, root: Path, *, pidfds: bool = True) -> None:
        self.proc = FakeProc(root)
        self.clock = Clock()
        self.pidfds = FakePidfds()
        self.epoll = select.epoll()
        self.source = FastScanSource(MEASURES, self.proc.procfs, clock=self.clock)
        self.exits = ExitWatch(self.epoll, LIMIT, self.pidfds)
        self.table = self.source._table
        self.table.estimate_threads = False
        exits = self.exits if pidfds else None
        self.probe = Probe(self.proc.procfs, self.table, self.source._tally, exits, self.clock)
        self.source._epoll, self.source._exits, self.source._probe = self.epoll, exits, self.probe
        self.proc.add(500, b"make", ppid=0)
        self.table.begin([500])
        self.source._listing_due_ns = 1 << 62
        self.turn(0)

    def start(self, pid: int, comm: bytes = b"sh", **fields: int) -> None:
        """Start a process with a pidfd, as the newest."""
        self.proc.add(pid, comm, ppid=500, start=self.clock.ticks, **fields)
        self.pidfds.processes.add(pid)
        self.proc.last_pid(pid)

    def turn(self, seconds: float = 0.002, *, listing: bool = False) -> None:
        """Let time pass and make one turn."""
        self.clock.advance(seconds)
        self.source._turn([fd for fd, _ in self.epoll.poll(0)])
        if listing:
            self.source.list_all()

    def close(self) -> None:
        self.exits.close()
        self.epoll.close()
        self.proc.procfs.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


def test_newest_first_and_over_the_wrap() -> None:
    """The newest are the likeliest to be alive; PIDs begin again at 300."""
    assert given_out(1000, 1000, 32768) == []
    assert given_out(1000, 1003, 32768) == [1003, 1002, 1001]
    assert given_out(32765, 302, 32768) == [302, 301, 300, 32767, 32766]
    assert given_out(32765, 302, 32768, limit=4) == [302, 301, 300, 32767]
    assert given_out(1000, 9000, 32768, limit=2) == [9000, 8999]


def test_a_short_life(scene: Scene) -> None:
    """Found by its PID, named at its end, timed from between two turns to its pidfd."""
    scene.turn(1)
    scene.start(1001, b"make")
    scene.turn(0.002)
    scene.proc.add(1001, b"cc", ppid=500, start=scene.clock.ticks)
    scene.turn(0.02)
    scene.proc.remove(1001)
    scene.pidfds.end(1001)
    scene.turn(0.002)
    counts = scene.source.drain()
    assert counts.forks == scene.source.clones() == 1
    assert counts.by_comm[b"cc"].short_exits == 1
    assert counts.short_exits_by_parent == {b"make": 1}
    assert counts.total.runtime_ns == pytest.approx(0.022 * NS, abs=0.003 * NS)
    assert counts.lost == {}
    assert scene.table.processes.keys() == {500}
    assert len(scene.exits) == 0


def test_the_start_is_known_better_than_a_tick(scene: Scene) -> None:
    """A tick is 10 ms; a process found between two turns started between them."""
    scene.clock.ns = 200 * NS + TICK // 2
    scene.turn(0)
    scene.start(1001)
    scene.turn(0.002)
    assert scene.table.processes[1001].born_ns == 200 * NS + TICK // 2 + MS


def test_a_name_is_read_again_at_doubling_ages(scene: Scene) -> None:
    """Most forks exec within milliseconds: soon at first, and then left to the listing."""
    scene.start(1001)
    scene.turn(0.002)
    looks, look = [], scene.table.look

    def looked(pid: int) -> object:
        looks.append(scene.clock.ns)
        return look(pid)

    scene.table.look = looked  # type: ignore[method-assign, assignment]
    born = scene.table.processes[1001].born_ns
    for _ in range(400):
        scene.turn(0.001)
    ages = [(at - born) / MS for at in looks]
    assert 5 <= len(ages) <= 8
    assert ages[0] <= 5
    assert all(later >= 1.5 * age for age, later in pairwise(ages))
    assert ages[-1] <= 2.1 * YOUNG_NS / MS
    assert scene.source._young == []


def test_rereads_are_bounded_in_a_storm(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """More young processes than can be read again must not pile up."""
    monkeypatch.setattr(fast_scan, "MAX_YOUNG", 3)
    monkeypatch.setattr(fast_scan, "MAX_REREADS", 1)
    for pid in range(1001, 1021):
        scene.start(pid)
        scene.turn()
    assert len(scene.source._young) == 3
    assert scene.source.clones() == 20


def test_threads_are_told_from_processes(scene: Scene) -> None:
    """Threads are clones, but not processes; they count once, though num_threads grows too."""
    scene.turn(1)
    scene.proc.add(500, b"make", ppid=0, threads=3)
    for tid in (1001, 1002):
        scene.proc.add(tid, b"make", start=scene.clock.ticks)
        scene.pidfds.threads.add(tid)
    scene.proc.last_pid(1002)
    scene.turn()
    for tid in (1001, 1002):  # a thread has no entry in the listing
        scene.proc.remove(tid)
    scene.turn(listing=True)
    scene.turn(listing=True)
    counts = scene.source.drain()
    assert (counts.forks, counts.threads) == (0, 2)
    assert scene.table.processes.keys() == {500}


def test_an_old_thread_is_not_new_after_a_wrap(scene: Scene) -> None:
    """The kernel passes over PIDs in use; those between two looks may be days old."""
    scene.proc.add(1001, b"make", start=scene.clock.ticks - 50)
    scene.pidfds.threads.add(1001)
    scene.proc.last_pid(1002)
    scene.turn(1)
    assert scene.source.drain().threads == 0


def test_an_old_process_is_not_new_after_a_wrap(scene: Scene) -> None:
    """The same for a process that is in the table, watched or not."""
    scene.pidfds.processes.add(500)
    scene.proc.last_pid(499)
    scene.turn()  # a wrap: everything up to 499
    scene.proc.last_pid(501)
    scene.turn()
    counts = scene.source.drain()
    assert (counts.forks, counts.total.exits) == (0, [0, 0, 0, 0])
    scene.proc.last_pid(499)
    scene.turn()
    assert scene.pidfds.asked.count(500) <= 1


def test_a_pid_given_out_again(scene: Scene) -> None:
    """Identity is PID and start time, whichever way the new process is found."""
    scene.start(1001, b"old")
    scene.turn()
    scene.pidfds.end(1001)
    scene.turn()  # ended, its stat still there: as a zombie's
    scene.proc.last_pid(1000)
    scene.turn()
    scene.clock.advance(1)
    scene.start(1001, b"new")
    scene.turn()
    counts = scene.source.drain()
    assert counts.forks == 2
    assert {comm: each.exits[UNKNOWN_OUTCOME] for comm, each in counts.by_comm.items()} == {b"old": 1}


def test_gone_before_it_was_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found is not observed: the ratio may only count what was read. What hidepid hides is told apart."""
    monkeypatch.setattr(probe, "_still_there", lambda fd: scene.pidfds.asked[-1] == 1002)
    scene.pidfds.processes |= {1001, 1002}
    scene.proc.last_pid(1003)
    scene.turn()
    counts = scene.source.drain()
    assert counts.lost == {Lost.VANISHED: 1, Lost.UNREADABLE: 1}
    assert scene.source.clones() == counts.forks == len(scene.exits) == 0
    assert scene.pidfds.asked == [1003, 1002, 1001]


def test_the_oldest_makes_room(scene: Scene) -> None:
    """Descriptors are bounded; the listing sees the end of what is no longer watched."""
    for pid in range(1001, 1007):
        scene.start(pid, b"p%d" % pid)
        scene.turn()
    assert len(scene.exits) == LIMIT
    assert [pid for pid, process in scene.table.processes.items() if process.watched] == [1003, 1004, 1005, 1006]
    scene.proc.remove(1001)
    scene.turn(listing=True)
    assert list(scene.source.drain().by_comm) == [b"p1001"]


def test_what_probing_passed_over_is_listed(scene: Scene) -> None:
    """A burst larger than a turn's bound leaves survivors that the listing finds, and watches."""
    scene.start(1001)
    scene.proc.last_pid(1001 + probe.MAX_PROBES)
    scene.turn()
    assert scene.source.clones() == 0
    scene.turn(listing=True)
    assert scene.source.clones() == 1
    assert scene.table.processes[1001].watched


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM])
def test_short_of_descriptors(scene: Scene, code: int) -> None:
    """Without a pidfd a process is still seen, by its status; a thread by its Tgid."""

    def short(pid: int) -> int:
        raise OSError(code, "short")

    scene.exits.open = short
    _process_and_thread(scene)


def test_without_pidfds(tmp_path: Path) -> None:
    """Kernels before 5.3 have none."""
    scene = Scene(tmp_path, pidfds=False)
    _process_and_thread(scene)
    scene.close()


def _process_and_thread(scene: Scene) -> None:
    scene.turn(1)
    scene.proc.add(1001, b"sh", ppid=500, start=scene.clock.ticks)
    scene.proc.add(1002, b"sh", start=scene.clock.ticks)
    for pid in (1001, 1002):
        scene.proc.write(f"{pid}/status", b"Name:\tx\nUmask:\t0022\nTgid:\t1001\n")
    scene.proc.last_pid(1003)
    scene.turn()
    scene.proc.remove(1002)
    assert (scene.source.peek().forks, scene.source.peek().threads) == (1, 1)
    scene.proc.remove(1001)
    scene.turn(listing=True)
    counts = scene.source.drain()
    assert counts.total.exits[UNKNOWN_OUTCOME] == 1
    assert counts.lost == {}


def test_foreign_procfs_is_only_listed(tmp_path: Path) -> None:
    """PIDs in a host's `/proc` mean nothing to `pidfd_open` in a container; threads are estimated there."""
    proc = FakeProc(tmp_path)
    proc.add(1)
    source = FastScanSource(MEASURES, proc.procfs)
    source._prepare()
    assert source._probe is None
    assert source._table.estimate_threads
    source.stop()
    proc.procfs.close()


def test_nothing_grows_with_time(scene: Scene) -> None:
    """An exporter runs for months: 2,000 processes must leave nothing behind."""
    pid = 1000
    for n in range(400):
        pids = [300 + (pid + k) % 32000 for k in range(5)]
        pid += 5
        for each in pids:
            scene.start(each)
        scene.turn()
        for each in pids:
            scene.proc.remove(each)
            if scene.table.processes[each].watched:
                scene.pidfds.end(each)
        scene.turn(listing=n % 10 == 9)
    for _ in range(5):
        scene.turn(0.2)
    counts = scene.source.drain()
    assert counts.forks == counts.total.exits[UNKNOWN_OUTCOME] == 2_000
    assert scene.table.processes.keys() == {500}
    assert len(scene.exits) == len(scene.source._young) == len(scene.table.unread) == 0
    assert counts.lost == {}


def test_known_processes_are_refreshed_in_turn(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU and comm of long lives follow, a batch at each listing."""
    monkeypatch.setattr(fast_scan, "MAX_REFRESHED", 2)
    for pid in range(1001, 1006):
        scene.proc.add(pid, start=scene.clock.ticks)
    scene.turn(listing=True)
    for pid in range(1001, 1006):
        scene.proc.add(pid, b"renamed", start=scene.table.processes[pid].start_ticks, utime=5)
    for _ in range(5):
        scene.turn(listing=True)
    assert {process.comm for process in scene.table.processes.values()} == {b"renamed", b"make"}


def test_budget() -> None:
    """Work that cost c is followed by a rest of c/share, less at most the credit: over time never more than the share."""
    budget = Budget(0.05)
    now = 1000 * NS
    assert budget.charge(now, 0) == now - CREDIT_NS
    assert budget.charge(now, 2 * MS) == now - CREDIT_NS + 40 * MS
    assert budget.charge(now, MS) == now - CREDIT_NS + 60 * MS
    spent, begun = 0, now + 10 * NS
    now = begun
    while now < begun + 10 * NS:
        spent += MS
        now = max(now + MS, budget.charge(now, MS))
    assert spent <= 0.05 * (now - begun + CREDIT_NS) + MS


def test_inotify_wakes_and_says_who() -> None:
    """The numbers of the watches that fired are how the start-up test of `/proc` is read."""
    inotify = Inotify()
    try:
        assert not proc_reports(inotify, "/nonexistent")
        inotify.clear()
        watch = inotify.watch(str(Path(__file__).parent), IN_OPEN)
        other = inotify.watch("/", IN_OPEN)
        assert watch != other
        os.close(os.open(__file__, os.O_RDONLY))
        assert watch in inotify.fired()
        with pytest.raises(OSError, match="No such file"):
            inotify.watch("/nonexistent", IN_OPEN)
    finally:
        inotify.close()


def test_start_gives_everything_back(tmp_path: Path) -> None:
    """A mode that is left must leave no descriptor and no thread, started or not."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    procfs = Procfs()
    source = FastScanSource(MEASURES, procfs)
    source.start()
    source.stop()
    source.stop()
    FastScanSource(MEASURES, procfs).stop()
    procfs.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert source._thread is None
    assert source._table.estimate_threads == (source._probe is None)


def test_a_copy_in_a_fork_does_not_wake(scene: Scene) -> None:
    """A descriptor that another process inherited stays in the epoll when ours is closed, and its number is given out again."""
    scene.start(1001)
    scene.turn()
    copy = os.dup(next(iter(scene.exits._watched)))
    scene.proc.remove(1001)
    scene.pidfds.end(1001)
    scene.turn()
    assert scene.epoll.poll(0) == []
    os.close(copy)


def test_close_closes_every_pidfd(scene: Scene) -> None:
    """They are as many as short processes were alive."""
    for pid in (1001, 1002):
        scene.start(pid)
        scene.turn()
    before = len(list(Path("/proc/self/fd").iterdir()))
    scene.exits.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 2
