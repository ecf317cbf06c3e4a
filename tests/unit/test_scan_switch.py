"""How a scan takes over and is taken over from: it looks at the very moment, and dates what it finds by when it looked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.model import NS, Lost
from exporter.sources.scan.process_table import boottime_ns
from exporter.sources.scan.slow import ScanSource
from tests.unit.fake_proc import SCALE, TICK, FakeProc

HOUR_NS = 3600 * NS
AHEAD_NS = NS // 4


class Scene:
    """A scan with its thread, of a fake `/proc` by the real clock. It looks only when it must, unless told otherwise."""

    def __init__(self, root: Path) -> None:
        self.proc = FakeProc(root)
        self.source = ScanSource(SCALE, self.proc.procfs, HOUR_NS)
        self.add(1)
        self.add(500)

    def add(self, pid: int) -> None:
        """Start a process just now."""
        self.proc.add(pid, b"sh", start=boottime_ns() // TICK)

    def soon(self) -> int:
        return time.monotonic_ns() + AHEAD_NS

    def known(self) -> set[int]:
        return set(self.source._table.processes)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path / "proc")
    yield scene
    scene.source.stop()


def until(holds: Callable[[], bool]) -> None:
    """Wait for the thread."""
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    pytest.fail("it never came")


def test_stock_is_taken_at_the_moment(scene: Scene) -> None:
    """Who came and went before is none of its own; who is there is no new process, but its exit counts."""
    scene.proc.clones(100)
    scene.source.start(standby=True)
    scene.add(600)
    scene.proc.remove(500)
    scene.proc.clones(150)
    scene.source.count_from(scene.soon())
    until(lambda: scene.known() == {1, 600})
    assert (scene.source.peek().forks, sum(scene.source.peek().total.exits)) == (0, 0)
    scene.proc.remove(600)
    scene.add(700)
    scene.proc.clones(151)
    scene.source.count_until(scene.soon())
    until(lambda: scene.known() == {1, 700})
    scene.source.stop()
    counts = scene.source.drain()
    assert (counts.forks, sum(counts.total.exits)) == (1, 1)
    assert Lost.UNSEEN not in counts.lost, "the kernel's count is compared from the moment on"


def test_the_last_look_is_at_the_moment(scene: Scene) -> None:
    """What went before it is still found out; then the thread ends, and nothing more counts or goes unseen."""
    scene.proc.clones(100)
    scene.source.start()
    scene.add(600)
    scene.proc.remove(500)
    scene.proc.clones(110)
    scene.source.count_until(scene.soon())
    thread = scene.source._thread
    assert thread is not None
    until(lambda: not thread.is_alive())
    scene.add(700)
    scene.proc.clones(200)
    counts = scene.source.drain()
    assert (counts.forks, scene.source.clones(), sum(counts.total.exits)) == (1, 1, 1)
    assert counts.lost[Lost.UNSEEN] == 9
    assert counts.lost[Lost.SWITCH_UNSURE] >= 1, "the process may have exited between the moment and the look"
    scene.source.stop()
    assert scene.source.drain().forks == 0


def test_it_is_woken_for_the_moment(scene: Scene) -> None:
    """It waits for its next look, in an hour, when it is told."""
    scene.source.start(standby=True)
    for tell in (scene.source.count_from, scene.source.count_until):
        time.sleep(0.05)
        tell(scene.soon())
    thread = scene.source._thread
    assert thread is not None
    until(lambda: not thread.is_alive())


def test_standby_can_be_ended(scene: Scene) -> None:
    """By a switch that fails."""
    scene.source.start(standby=True)
    scene.proc.remove(500)
    scene.source.stop()
    assert scene.source._thread is None
    assert sum(scene.source.drain().total.exits) == 0
