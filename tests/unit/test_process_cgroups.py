"""Cgroups of processes as `/proc` shows them: the same paths as those that the kernel reports to BPF programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporter.kernel import process_cgroups
from exporter.kernel.cgroups import Hierarchy
from exporter.kernel.process_cgroups import ProcessCgroups
from exporter.kernel.procfs import PF_EXITING, parse_cgroup
from tests.unit.fake_proc import FakeProc

V1 = Hierarchy("", is_pids=True, id=8)
V2 = Hierarchy("", is_pids=False, id=0)
OURS = "/kubepods/burstable/pod1/exporter"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"0::/system.slice/cron.service\n", b"/system.slice/cron.service"),
        (b"8:pids:/a\n1:name=systemd:/b\n0::/c:0::/d\n", b"/c:0::/d"),
        (b"0::/\n", b"/"),
        (b"0::/gone (deleted)\n", b"/gone"),
    ],
)
def test_the_path_of_v2(data: bytes, path: bytes) -> None:
    """Users name cgroups: a name with colons is no other hierarchy. The name of a removed one is that which it had."""
    assert parse_cgroup(data, 0) == path


@pytest.mark.parametrize("data", [b"", b"18:pids:/a\n", b"8:cpu,pids:/cut", b"8:pids\n"])
def test_no_path(data: bytes) -> None:
    """A path that may be cut would name another cgroup."""
    with pytest.raises(ValueError, match=r"not found|not enough"):
        parse_cgroup(data, 8)


def test_v1_hides_the_cgroup_of_the_exiting(proc: FakeProc) -> None:
    """It says that they are in the root, which would be counted as the system's."""
    for pid, path, flags in ((10, b"/a", PF_EXITING), (11, b"/", PF_EXITING), (12, b"/", 0)):
        proc.add(pid, flags=flags)
        proc.write(f"{pid}/cgroup", b"9:memory:/m\n8:pids:%b\n0::/v2\n" % path)
    assert [ProcessCgroups(proc.procfs, V1).path(pid) for pid in (10, 11, 12, 13)] == [b"/a", b"", b"/", b""]
    proc.cgroup(11, b"/")
    assert ProcessCgroups(proc.procfs, V2).path(11) == b"/"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our directory in `/proc`, in a cgroup namespace, and a hierarchy of which nothing can be seen."""
    own = tmp_path / "self"
    (own / "ns").mkdir(parents=True)
    (own / "ns/cgroup").touch()
    (own / "cgroup").write_text("0::/\n")
    root = tmp_path / "cgroup"
    root.mkdir()
    monkeypatch.setattr(process_cgroups, "hierarchy", lambda: Hierarchy(str(root), is_pids=False, id=0))
    return own


def in_namespace(proc: FakeProc, own: Path, init: bytes, *paths: bytes) -> list[bytes]:
    proc.add(1)
    proc.cgroup(1, init)
    cgroups = ProcessCgroups(proc.procfs, own=str(own))
    for pid, path in enumerate(paths, 10):
        proc.add(pid)
        proc.cgroup(pid, path)
    return [cgroups.path(pid) for pid in range(10, 10 + len(paths))]


def test_in_a_cgroup_namespace(proc: FakeProc, own: Path) -> None:
    """A container sees paths from its own cgroup. If the host's hierarchy is mounted, it can tell where that is."""
    folder = own.parent / f"cgroup{OURS}"
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text(f"7\n{os.getpid()}\n")
    paths = (b"/../../../../system.slice/cron.service", b"/../../pod2/app", b"/", b"/child", b"/../../../..")
    assert in_namespace(proc, own, b"/../../../../init.scope", *paths) == [
        b"/system.slice/cron.service",
        b"/kubepods/burstable/pod2/app",
        OURS.encode(),
        f"{OURS}/child".encode(),
        b"/",
    ]


def test_in_a_cgroup_namespace_that_is_not_found(proc: FakeProc, own: Path) -> None:
    """Then only paths from the host's root are known. The others would name the wrong cgroup."""
    paths = (b"/../../system.slice/cron.service", b"/../app", b"/")
    assert in_namespace(proc, own, b"/../../init.scope", *paths) == [b"/system.slice/cron.service", b"", b""]


def test_in_a_container_that_sees_only_itself(proc: FakeProc, own: Path) -> None:
    """Its processes are in some cgroup of the host, not in the root."""
    assert in_namespace(proc, own, b"/", b"/", b"/child") == [b"", b""]


def test_a_host_without_cgroups(proc: FakeProc, tmp_path: Path) -> None:
    """Nothing fails."""
    proc.add(10)
    assert ProcessCgroups(proc.procfs, own=str(tmp_path / "nowhere")).path(10) == b""


def test_many_paths_take_bounded_memory(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each user can make cgroups without end."""
    monkeypatch.setattr(process_cgroups, "_MAX_PATHS", 2)
    cgroups = ProcessCgroups(proc.procfs, V2)
    for pid in range(10, 15):
        proc.add(pid)
        proc.cgroup(pid, b"/%d" % pid)
        assert cgroups.path(pid) == b"/%d" % pid
    assert len(cgroups._paths) <= 2


def test_the_owner_of_a_process(proc: FakeProc) -> None:
    """Its directory belongs to its user; a process that is gone has none."""
    proc.add(10)
    assert (proc.procfs.owner(10), proc.procfs.owner(11)) == (os.geteuid(), None)
