"""For whom processes ran, by scans of `/proc`: as last read, or unknown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporter.model.origins import DEEP, UNKNOWN, Origin
from exporter.records.record import Record
from tests.origins import short_by
from tests.unit.fake_proc import FakeProc
from tests.unit.fast_scan_scene import Scene as FastScene
from tests.unit.test_scan import Scene

pytestmark = pytest.mark.usefixtures("only_v2")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """`init` is old, `make` is young."""
    scene = Scene(tmp_path)
    scene.begin()
    return scene


def start(scene: Scene, pid: int, ppid: int, comm: bytes = b"sh", cgroup: bytes = b"/a.service") -> None:
    scene.proc.add(pid, comm, ppid=ppid, start=scene.clock.ticks)
    scene.proc.cgroup(pid, cgroup)


def origin(scene: Scene) -> Origin:
    """Of the only short process."""
    (origin,) = scene.source.origins().rows
    return origin


def test_cgroup_user_and_spawner(scene: Scene) -> None:
    """All from the same look; the parent is short-lived, its parent is not."""
    start(scene, 600, 500, b"cc")
    scene.after(0.1)
    scene.proc.remove(600)
    scene.after(0.1)
    assert origin(scene) == Origin(b"/a.service", os.geteuid(), b"cc", b"make", b"init")


def test_a_process_that_was_moved_and_called_exec(scene: Scene) -> None:
    """Service managers and container runtimes do it in this order, and the first look may come before."""
    start(scene, 600, 500, b"systemd", b"/init.scope")
    scene.after(0.1)
    scene.proc.add(600, b"web", ppid=500, start=scene.clock.ticks - 10)
    scene.proc.cgroup(600, b"/web.service")
    scene.after(0.1)
    scene.proc.remove(600)
    scene.after(0.1)
    assert origin(scene).cgroup == b"/web.service"


def test_gone_before_its_cgroup_was_read(scene: Scene) -> None:
    """It is not that of the parent: a scan finds processes long after they were moved."""
    scene.proc.add(600, ppid=500, start=scene.clock.ticks)
    scene.after(0.1)
    scene.proc.remove(600)
    scene.after(0.1)
    assert origin(scene).cgroup == b""


def test_a_family_that_goes_between_two_scans(scene: Scene) -> None:
    """Children are counted first, so that they still have parents, whatever their PIDs."""
    parents = [500, 900, 700, 800]
    for ppid, pid in zip(parents, [*parents[1:], 600], strict=True):
        start(scene, pid, ppid, b"p%d" % pid)
        scene.clock.advance(0.02)
    scene.after(0.1)
    scene.source._table.keep({1, 500}, scene.clock.ns)
    rows = scene.source.origins().rows
    assert {(each.comm, each.parent, each.spawner) for each in rows} == {
        (b"p600", b"p800", b"init"),
        (b"p800", b"p700", b"init"),
        (b"p700", b"p900", b"init"),
        (b"p900", b"make", b"init"),
    }


def test_all_ancestors(scene: Scene) -> None:
    """As far as the table has them: `unknown` and `deep` as in the other modes."""
    got: list[Record] = []
    scene.source.publish(got.extend, live=False)
    for pid in range(600, 609):
        start(scene, pid, pid - 1 if pid > 600 else 500, b"p%d" % pid)
    start(scene, 700, 77777)
    scene.after(0.1)
    for pid in (608, 601, 700):
        scene.proc.remove(pid)
        scene.source._table.look(pid)
    scene.after(0.1)
    assert [each.lineage for each in got] == [
        (DEEP, *(b"p%d" % pid for pid in range(600, 608))),
        (b"init", b"make", b"p600"),
        (UNKNOWN,),
    ]


def test_too_deep_and_unknown(scene: Scene) -> None:
    """8 ancestors are looked at, as in the other modes; an ancestor that is not in the table, or is younger, ends the search."""
    for pid in range(600, 609):
        start(scene, pid, pid - 1 if pid > 600 else 500)
    start(scene, 700, 77777)
    scene.after(0.1)
    start(scene, 77777, 500)
    scene.after(0.1)
    for pid, spawner in ((608, DEEP), (606, b"init"), (700, UNKNOWN)):
        scene.proc.remove(pid)
        scene.source._table.look(pid)
        assert origin(scene).spawner == spawner


def test_the_fast_scan_reads_them_too(tmp_path: Path, proc: FakeProc) -> None:
    """By the same table."""
    scene = FastScene(tmp_path / "fast")
    scene.start(1001, b"cc")
    scene.proc.cgroup(1001, b"/a.service")
    scene.turn()
    scene.proc.remove(1001)
    scene.pidfds.end(1001)
    scene.turn()
    (each,) = scene.source.origins().rows
    assert (each.cgroup, each.uid, each.parent) == (b"/a.service", os.geteuid(), b"make")
    scene.close()


def test_rows_add_up(scene: Scene) -> None:
    """However many there are: what is in no row is in `other`."""
    for pid in range(1000, 1400):
        start(scene, pid, 500, b"c%d" % pid, b"/%d" % (pid % 7))
    scene.after(0.1)
    for pid in range(1000, 1400):
        scene.proc.remove(pid)
    scene.after(0.1)
    short = scene.source.drain().total.short_exits
    assert sum(short_by(scene.source.origins(), lambda each: each.cgroup).values()) == short == 400
