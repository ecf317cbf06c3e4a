"""For whom processes ran, in the modes that count in user space, in storms whose truth is known."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.kernel.procfs import Procfs
from exporter.model import NS
from exporter.model.origins import Origin, Origins
from exporter.sources.base import Source
from exporter.sources.netlink.source import NetlinkSource
from exporter.sources.scan.fast import FastScanSource
from exporter.sources.scan.slow import ScanSource
from tests.kernel.netlink_watching import needs_netlink
from tests.kernel.programs import Program, ended, until
from tests.kernel.test_origins import OLD_AFTER, USER, YOUNG, cgroup_root, of, shell

__all__ = ["cgroup_root"]


@contextmanager
def running(source: Source) -> Iterator[None]:
    source.start()
    try:
        yield
    finally:
        source.stop()


@pytest.fixture
def netlink() -> Iterator[NetlinkSource]:
    """With taskstats, if that is allowed."""
    source = NetlinkSource(YOUNG, Procfs())
    with running(source):
        yield source


@pytest.fixture
def cgroups(cgroup_root: Path) -> Iterator[list[Path]]:
    """Some that are empty."""
    top = cgroup_root / f"shortproc-test-{os.getpid()}"
    folders = [top, *(top / f"c{number}" for number in range(4))]
    for folder in folders:
        folder.mkdir()
    yield folders[1:]
    for folder in reversed(folders):
        folder.rmdir()


def start_in(cgroup: Path, *command: object) -> int:
    """Start a program in a cgroup."""
    pid = os.fork()
    if pid == 0:
        (cgroup / "cgroup.procs").write_text("0")
        os.execv(str(command[0]), [str(each) for each in command])
    return pid


def below_root(cgroup: Path, cgroup_root: Path) -> bytes:
    return b"/" + os.fsencode(cgroup.relative_to(cgroup_root))


def seen(source: Source, comm: bytes, short: int) -> Counter[Origin]:
    """The origins of a program, once so many of its processes are counted."""
    whole = Origins()

    def count() -> int:
        whole.add(source.origins())
        return sum(of(whole, comm).values())

    until(count, lambda n: n >= short)
    return of(whole, comm)


@needs_netlink
def test_netlink_finds_the_spawner(netlink: NetlinkSource, tmp_path: Path, nothing: Program) -> None:
    """A cron starts sh, that a script, that 1,000 programs in all: each is cron's."""
    cron, middle, script = (shell(tmp_path, name) for name in ("n-cron", "n-middle", "n-script"))
    loop = f"i=0; while [ $i -lt 10 ]; do {nothing.path}; i=$((i + 1)); done; :"
    rounds = "; ".join([f"{middle} -c '{script} -c \"$LOOP\"; :'"] * 100)
    environment = {"LOOP": loop, "PATH": os.environ["PATH"]}
    assert os.spawnve(os.P_WAIT, cron, [str(cron), "-c", f"sleep {2 * OLD_AFTER}; {rounds}; :"], environment) == 0
    origins = seen(netlink, nothing.comm, 1000)
    assert Counter(each.spawner for each in origins.elements()) == {b"n-cron": 1000}
    assert {each.parent for each in origins} == {b"n-script"}


@needs_netlink
def test_netlink_finds_the_new_parent_of_orphans(netlink: NetlinkSource, tmp_path: Path, nothing: Program) -> None:
    """A script that is left alone belongs to the reaper, not to whoever has the PID of its parent now."""
    script = shell(tmp_path, "n-orphan")
    loop = f"sleep 0.05; i=0; while [ $i -lt 20 ]; do {nothing.path}; i=$((i + 1)); done; :"
    assert os.spawnve(os.P_WAIT, "/bin/sh", ["sh", "-c", f"{script} -c '{loop}' &"], os.environ) == 0
    origins = seen(netlink, nothing.comm, 20)
    assert {each.parent for each in origins} == {b"n-orphan"}
    assert not {each.spawner for each in origins} & {b"sh", b"n-orphan"}


@needs_netlink
def test_netlink_knows_users(netlink: NetlinkSource, nothing: Program) -> None:
    """From taskstats; without it, nobody is guessed."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    pid = os.fork()
    if pid == 0:
        Path("/proc/self/comm").write_bytes(b"n-gives-up")
        os.setresuid(USER, USER, USER)
        os._exit(0)
    assert ended(pid).status == 0
    assert {each.uid for each in seen(netlink, b"n-gives-up", 1)} == {USER if netlink._groups.taskstats else None}


@needs_netlink
def test_netlink_inherits_cgroups(netlink: NetlinkSource, cgroups: list[Path], cgroup_root: Path, nothing: Program) -> None:
    """In a storm of several services at once, whose processes are gone before anybody could read their cgroups."""
    begin, to_begin = os.pipe()
    os.set_inheritable(begin, True)
    loop = f"read -r _ </dev/fd/{begin}; i=0; while [ $i -lt 250 ]; do {nothing.path}; i=$((i + 1)); done; :"
    services = {start_in(each, "/bin/sh", "-c", loop): below_root(each, cgroup_root) for each in cgroups}
    until(lambda: {pid: group.cgroup for pid in services if (group := netlink._groups.alive.get(pid))}, lambda read: read == services)
    os.close(begin)
    os.close(to_begin)
    for pid in services:
        assert ended(pid).status == 0
    origins = seen(netlink, nothing.comm, 1000)
    assert Counter(each.cgroup for each in origins.elements()) == dict.fromkeys(services.values(), 250)


@needs_netlink
def test_netlink_reads_cgroups_of_those_that_moved(
    netlink: NetlinkSource, cgroups: list[Path], cgroup_root: Path, workload: Program
) -> None:
    """They move before the exec, as with a service manager, and run long enough to be read, unless reads have just taken too much time."""
    whole = Origins()

    def named() -> set[bytes]:
        for each in cgroups:
            assert ended(start_in(each, workload.path, "leader", 1, 100, 0)).status == 0
        whole.add(netlink.origins())
        return {each.cgroup for each in of(whole, workload.comm)}

    truth = {below_root(each, cgroup_root) for each in cgroups}
    assert until(named, truth.issubset) >= truth


@pytest.mark.parametrize("mode", [FastScanSource, ScanSource])
def test_scans_read_cgroup_user_and_spawner(
    mode: type[FastScanSource | ScanSource], cgroups: list[Path], cgroup_root: Path, tmp_path: Path
) -> None:
    """Of the processes that they see, whoever started them."""
    if mode is ScanSource:
        pytest.importorskip("psutil")
    procfs = Procfs()
    source = mode(YOUNG, procfs, NS // 50)
    with running(source):
        time.sleep(0.1)
        for each in cgroups:
            napping = shell(tmp_path, f"s-nap-{each.name}")
            assert ended(start_in(each, napping, "-c", "sleep 0.15; :")).status == 0
        time.sleep(0.2)
    procfs.close()
    origins = source.origins()
    for each in cgroups:
        (mine,) = of(origins, f"s-nap-{each.name}".encode())
        assert (mine.cgroup, mine.uid) == (below_root(each, cgroup_root), os.geteuid())
        assert mine.parent == mine.spawner == Path("/proc/self/comm").read_bytes()[:-1]
