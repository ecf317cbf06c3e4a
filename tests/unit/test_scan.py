"""What a scan concludes from two looks at a table of processes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from exporter.kernel.procfs import Procfs
from exporter.model import NS, UNKNOWN_COMM, Lost, ModeUnavailable, Outcome, RuntimeScale, SourceFailed
from exporter.model.dimensions import COMM
from exporter.model.exits import ProcessExit
from exporter.sources.scan.slow import ScanSource
from exporter.sources.tally import MAX_NAMES, SecondsRing, Tally
from tests.origins import short_children
from tests.unit.fake_proc import BOUNDS, SCALE, TICK, Clock, FakeProc


class Scene:
    """A scan of a fake `/proc`, made pass by pass."""

    def __init__(self, root: Path, *, sees_host: bool = True) -> None:
        self.proc = FakeProc(root, sees_host=sees_host)
        self.clock = Clock()
        self.source = ScanSource(SCALE, self.proc.procfs, NS, self.clock)
        self.proc.add(1, b"init", ppid=0)
        self.proc.add(500, b"make", start=self.clock.ticks - 5)

    def begin(self) -> None:
        """Take stock, without the thread."""
        self.source._table.begin(self.source._pids())
        self.source._unseen.begin()

    def after(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.source.scan()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    scene = Scene(tmp_path)
    scene.begin()
    return scene


def test_a_process_comes_and_goes(scene: Scene) -> None:
    """The one thing that a scan is for."""
    scene.proc.add(600, b"cc", ppid=500, start=scene.clock.advance(0.2), utime=3, stime=1)
    scene.after(0.2)
    scene.proc.remove(600)
    scene.after(0.4)
    counts = scene.source.peek()
    cc = counts.of(COMM).rows[b"cc"]
    assert (counts.forks, counts.threads) == (1, 0)
    assert cc.exits[Outcome.UNKNOWN.position] == cc.short_exits == 1
    assert cc.cpu_ns == cc.short_cpu_ns == 4 * TICK
    assert cc.runtime_ns == pytest.approx(0.4 * NS, abs=TICK)
    assert cc.buckets == []
    assert counts.total.buckets == [0, 0, 0, 1, 0, 0]
    assert short_children(scene.source) == {b"make": 1}
    assert counts.lost == {}


def test_long_lives_are_not_short(scene: Scene) -> None:
    """What was there at the start is no clone, but its end counts."""
    scene.after(5)
    scene.proc.remove(500)
    scene.after(1)
    counts = scene.source.drain()
    assert counts.forks == scene.source.clones() == 0
    assert (counts.of(COMM).rows[b"make"].short_exits, counts.of(COMM).rows[b"make"].exits[Outcome.UNKNOWN.position]) == (0, 1)
    assert short_children(scene.source) == {}


def test_the_name_is_the_last_one(scene: Scene) -> None:
    """A fork has its parent's name until it execs."""
    start = scene.clock.ticks
    for comm in (b"make", b"cc"):
        scene.proc.add(600, comm, ppid=500, start=start)
        scene.after(0.1)
    scene.proc.remove(600)
    scene.after(0.1)
    assert list(scene.source.drain().of(COMM).rows) == [b"cc"]


def test_pid_reuse(scene: Scene) -> None:
    """A PID given out again between two looks is one end and one birth."""
    scene.proc.add(600, b"old", start=scene.clock.advance(0.1))
    scene.after(0.1)
    scene.proc.add(600, b"new", start=scene.clock.advance(0.3))
    scene.after(0.1)
    counts = scene.source.drain()
    assert counts.forks == 2
    assert list(counts.of(COMM).rows) == [b"old"]
    assert counts.total.runtime_ns == pytest.approx(0.25 * NS, abs=TICK)


def test_a_zombie_ends_once(scene: Scene) -> None:
    """A parent may take hours to reap; the process ended all the same, and only once."""
    start = scene.clock.advance(0.1)
    scene.proc.add(600, b"zed", start=start)
    scene.after(0.1)
    for _ in range(3):
        scene.proc.add(600, b"zed", start=start, state="Z", utime=2)
        scene.after(0.1)
    scene.proc.remove(600)
    scene.after(0.1)
    counts = scene.source.drain()
    assert counts.of(COMM).rows[b"zed"].exits[Outcome.UNKNOWN.position] == 1
    assert counts.of(COMM).rows[b"zed"].cpu_ns == 2 * TICK
    assert 600 not in scene.source._table.processes


def test_a_zombie_seen_first(scene: Scene) -> None:
    """It was born and it ended; its life lies between the two."""
    scene.proc.add(600, b"zed", start=scene.clock.advance(0.1), state="Z")
    scene.after(0.2)
    counts = scene.source.drain()
    assert counts.forks == counts.total.short_exits == 1
    assert counts.total.runtime_ns == pytest.approx(0.1 * NS, abs=TICK)


def test_threads_are_estimated_from_growth(scene: Scene) -> None:
    """A new process with n threads is n clones; later growth adds, shrinking does not take away."""
    start = scene.clock.ticks
    for threads in (4, 6, 2, 3):
        scene.proc.add(600, b"java", start=start, threads=threads)
        scene.after(1)
    counts = scene.source.drain()
    assert (counts.forks, counts.threads) == (1, 3 + 2 + 1)
    assert scene.source.clones() == 7


def test_unseen_never_falls_and_forgives_late_sights(scene: Scene) -> None:
    """A clone that the kernel counted just after a look is not lost if the next look finds it."""
    scene.proc.clones(1)
    scene.after(1)
    assert Lost.UNSEEN not in scene.source.peek().lost
    scene.proc.add(600, start=scene.clock.ticks)
    scene.after(1)
    assert Lost.UNSEEN not in scene.source.peek().lost
    scene.proc.clones(11)
    scene.after(1)
    scene.after(1)
    assert scene.source.peek().lost[Lost.UNSEEN] == 10
    scene.proc.add(601, start=scene.clock.ticks)
    scene.after(1)
    assert scene.source.drain().lost[Lost.UNSEEN] == 10
    scene.after(1)
    assert scene.source.drain().lost == {}


def test_a_container_has_no_unseen(tmp_path: Path) -> None:
    """There, the kernel's count is the host's, and ours is not."""
    scene = Scene(tmp_path, sees_host=False)
    scene.begin()
    for clones in (100, 200, 300):
        scene.proc.clones(clones)
        scene.after(1)
    assert scene.source.drain().lost == {}
    assert not scene.source.counts_host()


def test_what_can_not_be_read_is_counted_once(scene: Scene) -> None:
    """Losses are counted by their cause, once for each process, and are not unseen as well."""
    scene.proc.unreadable(601)
    scene.proc.add(602)
    scene.proc.write("602/stat", b"garbage")
    (scene.proc.root / "603").mkdir()  # listed, gone when read
    scene.proc.clones(3)
    scene.after(1)
    (scene.proc.root / "603").rmdir()
    scene.after(1)
    scene.after(1)
    counts = scene.source.drain()
    assert counts.lost == {Lost.UNREADABLE: 1, Lost.MALFORMED: 1, Lost.VANISHED: 1}
    assert (counts.forks, scene.source.clones()) == (0, 0)
    assert scene.source._table.unread == {601, 602}
    scene.proc.remove(602)
    scene.after(1)
    assert scene.source._table.unread == {601}


def test_a_failed_second_look_is_no_loss(scene: Scene) -> None:
    """Short of descriptors, a look at a known process fails; it is still there, and looked at again."""
    scene.proc.write("500/stat", b"garbage")
    scene.after(1)
    assert scene.source.peek().lost == {}
    scene.proc.add(500, b"renamed", start=scene.source._table.processes[500].start_ticks)
    scene.after(1)
    scene.proc.remove(500)
    scene.after(1)
    assert list(scene.source.drain().of(COMM).rows) == [b"renamed"]


def test_a_known_process_that_vanishes_while_read_has_ended(scene: Scene) -> None:
    """It was seen: that is an end, not a loss."""
    (scene.proc.root / "500/stat").unlink()
    scene.after(1)
    counts = scene.source.drain()
    assert counts.lost == {}
    assert counts.of(COMM).rows[b"make"].exits[Outcome.UNKNOWN.position] == 1


def test_an_unknown_parent_has_a_name(scene: Scene) -> None:
    """A parent that was never seen, or has no process at all (ppid 0), is unknown."""
    scene.proc.add(600, ppid=77777, start=scene.clock.ticks)
    scene.after(0.1)
    scene.proc.remove(600)
    scene.after(0.1)
    assert short_children(scene.source) == {UNKNOWN_COMM: 1}


def test_nothing_grows_with_time(scene: Scene) -> None:
    """An exporter runs for months: 2,000 processes must leave nothing behind."""
    for first in range(1000, 3000, 500):
        for pid in range(first, first + 500):
            scene.proc.add(pid, start=scene.clock.ticks)
        scene.after(0.1)
        for pid in range(first, first + 500):
            scene.proc.remove(pid)
        scene.after(0.1)
    assert scene.source.drain().total.exits[Outcome.UNKNOWN.position] == 2_000
    assert scene.source._table.processes.keys() == {1, 500}
    assert not scene.source._table.unread


def test_peek_changes_nothing_and_drain_takes_all(scene: Scene) -> None:
    """Two Prometheus servers must see the same, and nothing may be in two drains."""
    scene.proc.add(600, start=scene.clock.ticks)
    scene.after(0.1)
    first = scene.source.peek()
    assert first == scene.source.peek()
    first.total.exits[0] = 99
    assert scene.source.drain().total.exits[0] == 0
    assert scene.source.drain().forks == 0
    assert scene.source.clones() == 1


def test_names_are_bounded() -> None:
    """A comm is chosen by whoever runs the process: past the cap, counts go to `other` and totals still add up."""
    tally = Tally(SCALE)
    for n in range(MAX_NAMES + 10):
        tally.exited(n, ProcessExit(0, 5, b"c%d" % n, b"p%d" % n, cpu_ns=1))
    tally.exited(1, ProcessExit(0, 5, b"c0", b"p0", cpu_ns=1))
    counts = tally.drain()
    assert (len(counts.of(COMM).rows), counts.of(COMM).other.short_exits) == (MAX_NAMES, 10)
    assert counts.total.short_exits == MAX_NAMES + 11 == sum(each.short_exits for each in counts.of(COMM).rows.values()) + 10
    assert counts.of(COMM).rows[b"c0"].short_exits == 2


@pytest.mark.parametrize("per_comm", [True, False])
def test_buckets(per_comm: bool) -> None:
    """A runtime falls into the first bucket whose bound it does not exceed; the last is for all longer ones."""
    tally = Tally(RuntimeScale(NS, BOUNDS, per_comm_buckets=per_comm))
    for runtime in (0, BOUNDS[0], BOUNDS[0] + 1, BOUNDS[-1] + 1):
        tally.exited(1, ProcessExit(0, runtime, b"x", b"y"))
    counts = tally.drain()
    assert counts.total.buckets == [2, 1, 0, 0, 0, 1]
    assert counts.of(COMM).rows[b"x"].buckets == (counts.total.buckets if per_comm else [])
    assert len(tally.drain().total.buckets) == len(BOUNDS) + 1


@pytest.mark.parametrize("schema", [3, 4, None])
def test_native_histograms(schema: int | None) -> None:
    """By name and of the whole, each drain from zero; nothing where they are switched off."""
    tally = Tally(RuntimeScale(NS, BOUNDS, lifetimes=schema))
    for comm, runtime in ((b"x", NS), (b"x", NS), (b"x", NS + 1), (b"y", 2 * NS)):
        tally.exited(1, ProcessExit(0, runtime, comm, b""))
    counts = tally.drain()
    rows = counts.of(COMM).rows
    two = 2**schema if schema else 0
    assert counts.total.lifetimes == ({0: 2, 1: 1, two: 1} if schema else {})
    assert (rows[b"x"].lifetimes, rows[b"y"].lifetimes) == (({0: 2, 1: 1}, {two: 1}) if schema else ({}, {}))
    assert tally.drain().total.lifetimes == {}


def test_threshold_is_exclusive() -> None:
    """Short is below the threshold."""
    tally = Tally(SCALE)
    tally.exited(1, ProcessExit(0, NS, b"x", b"y"))
    tally.exited(2, ProcessExit(0, NS - 1, b"x", b"y"))
    assert tally.drain().total.short_exits == 1


def test_peak_leaves_out_the_current_second_and_the_old_ones() -> None:
    """The current second is not over, and a peak of two minutes ago is history."""
    ring = SecondsRing()
    for second, n in ((1000, 9), (1010, 5), (1061, 7)):
        for _ in range(n):
            ring.add(second)
    assert ring.before(1061) == {1010: 5}
    assert ring.before(1060) == {1000: 9, 1010: 5}
    assert ring.before(1062) == {1010: 5, 1061: 7}
    assert ring.before(1500) == {}


def test_the_thread(tmp_path: Path) -> None:
    """Start, look, stop; what was seen comes with the drain after."""
    scene = Scene(tmp_path)
    source = ScanSource(SCALE, scene.proc.procfs, NS // 100, scene.clock)
    assert source.gauges().scan_duration_seconds is None
    source.start()
    scene.proc.add(700, b"new", start=scene.clock.ticks)
    _until(lambda: source.clones() == 1)
    _until(lambda: source.gauges().scan_duration_seconds is not None)
    assert source.gauges().peak_per_second == 0
    source.stop()
    source.stop()
    assert source.drain().forks == 1


def test_a_broken_thread_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that looks no more must not pass for one that sees nothing."""
    scene = Scene(tmp_path)
    source = ScanSource(SCALE, scene.proc.procfs, NS // 100, scene.clock)
    monkeypatch.setattr(source, "scan", lambda: 1 // 0)
    source.start()
    _until(lambda: source._failure is not None)
    with pytest.raises(SourceFailed, match="ZeroDivisionError"):
        source.drain()
    source.stop()
    assert source.drain().forks == 0


@pytest.mark.parametrize("root", ["nowhere", "."])
def test_no_procfs_is_unusable(tmp_path: Path, root: str) -> None:
    """A wrong --path.procfs must be said, not shown as a host without processes."""
    with pytest.raises(ModeUnavailable, match=str(tmp_path / root)):
        ScanSource(SCALE, Procfs(str(tmp_path / root))).start()


def _until(holds: object) -> None:
    for _ in range(1000):
        if holds():  # type: ignore[operator]
            return
        time.sleep(0.01)
    pytest.fail("it never came")
