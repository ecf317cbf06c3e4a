"""The PIDs between two looks, and the pidfds of who has them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.model import Lost, Outcome
from exporter.model.dimensions import COMM
from exporter.sources.scan import pid_probe
from exporter.sources.scan.pid_probe import new_pids
from tests.unit.fast_scan_scene import LIMIT, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


def test_newest_first_and_over_the_wrap() -> None:
    """The newest are the likeliest to be alive; PIDs begin again at 300."""
    assert new_pids(1000, 1000, 32768) == []
    assert new_pids(1000, 1003, 32768) == [1003, 1002, 1001]
    assert new_pids(32765, 302, 32768) == [302, 301, 300, 32767, 32766]
    assert new_pids(32765, 302, 32768, limit=4) == [302, 301, 300, 32767]
    assert new_pids(1000, 9000, 32768, limit=2) == [9000, 8999]


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


def test_a_pid_new_pids_again(scene: Scene) -> None:
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
    assert {comm: each.exits[Outcome.UNKNOWN.position] for comm, each in counts.of(COMM).rows.items()} == {b"old": 1}


def test_gone_before_it_was_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found is not observed: the ratio may only count what was read. What hidepid hides is told apart."""
    monkeypatch.setattr(pid_probe, "_exists", lambda fd: scene.pidfds.asked[-1] == 1002)
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
    assert list(scene.source.drain().of(COMM).rows) == [b"p1001"]


def test_what_probing_passed_over_is_listed(scene: Scene) -> None:
    """A burst larger than a turn's bound leaves survivors that the listing finds, and watches."""
    scene.start(1001)
    scene.proc.last_pid(1001 + pid_probe.MAX_PROBES)
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
    assert counts.total.exits[Outcome.UNKNOWN.position] == 1
    assert counts.lost == {}


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
