"""The turns of a fast scan: names, starts, listings and the budget."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from select import EPOLLIN

import pytest

from exporter.kernel.inotify import IN_OPEN, Inotify, proc_reports
from exporter.kernel.procfs import Procfs
from exporter.model import NS, Outcome
from exporter.model.dimensions import COMM
from exporter.sources.scan import fast
from exporter.sources.scan.fast import CREDIT_NS, MS, YOUNG_NS, Budget, FastScanSource
from tests.origins import short_children
from tests.unit.fake_proc import SCALE, TICK, FakeProc
from tests.unit.fast_scan_scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


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
    assert counts.of(COMM).rows[b"cc"].short_exits == 1
    assert short_children(scene.source) == {b"make": 1}
    assert counts.total.runtime_ns == pytest.approx(0.022 * NS, abs=0.003 * NS)
    assert counts.lost == {}
    assert scene.table.processes.keys() == {500}
    assert len(scene.exits) == 0


def test_where_pids_can_not_be_probed_an_exec_makes_a_listing_due(scene: Scene, tmp_path: Path) -> None:
    """A proc mount with subset=pid hides which PID was given out last; most short lives fall between two listings at an even pace."""
    (program := tmp_path / "program").touch()
    with closing(Inotify()) as inotify:
        inotify.watch(str(program), IN_OPEN)
        scene.epoll.register(inotify.fd, EPOLLIN)
        scene.source._inotify, scene.source._probe = inotify, None
        scene.start(1001)
        scene.turn()
        assert 1001 not in scene.table.processes
        program.read_bytes()
        scene.turn()
        assert 1001 in scene.table.processes
        scene.pidfds.end(1001)
        scene.turn()
        assert scene.source.peek().total.exits == [0, 0, 0, 1]


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
    monkeypatch.setattr(fast, "MAX_YOUNG", 3)
    monkeypatch.setattr(fast, "MAX_REREADS", 1)
    for pid in range(1001, 1021):
        scene.start(pid)
        scene.turn()
    assert len(scene.source._young) == 3
    assert scene.source.clones() == 20


def test_foreign_procfs_is_only_listed(tmp_path: Path) -> None:
    """PIDs in a host's `/proc` mean nothing to `pidfd_open` in a container; threads are estimated there."""
    proc = FakeProc(tmp_path)
    proc.add(1)
    source = FastScanSource(SCALE, proc.procfs)
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
    assert counts.forks == counts.total.exits[Outcome.UNKNOWN.position] == 2_000
    assert scene.table.processes.keys() == {500}
    assert len(scene.exits) == len(scene.source._young) == len(scene.table.unread) == 0
    assert counts.lost == {}


def test_known_processes_are_refreshed_in_turn(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU and comm of long lives follow, a batch at each listing."""
    monkeypatch.setattr(fast, "MAX_REFRESHED", 2)
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
    source = FastScanSource(SCALE, procfs)
    source.start()
    source.stop()
    source.stop()
    FastScanSource(SCALE, procfs).stop()
    procfs.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert source._thread is None
    assert source._table.estimate_threads == (source._probe is None)
