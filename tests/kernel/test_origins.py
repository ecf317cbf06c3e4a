"""For whom processes ran: cgroup, user, parent and spawner, each exact in storms whose truth is known."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.kernel.cgroups import hierarchy
from exporter.kernel.process_cgroups import ProcessCgroups
from exporter.kernel.procfs import Procfs
from exporter.model import NS, Lost
from exporter.model.origins import DEEP, MAX_ABOVE, MAX_HOPS, CgroupCounts, Origin, Origins
from exporter.records.record import Record
from exporter.sources.ebpf import source as ebpf
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel import failing
from tests.kernel.programs import SCALE, Program, ended, until, watching
from tests.origins import origins_of, short_by

OLD_AFTER = float(os.environ.get("OLD_AFTER_SECONDS", "0.3"))
"""Seconds after which an ancestor is not short-lived, in these tests. The loops of shells must take less, which emulated machines need."""
YOUNG = replace(SCALE, threshold_ns=round(OLD_AFTER * NS))
USER = 54321
CGROUPS = 500


@pytest.fixture
def quick(requires_bpf: None) -> Iterator[EbpfSource]:
    """A source for which processes are short that live for less than 0.3 s."""
    with watching(YOUNG) as source:
        yield source


@pytest.fixture
def cgroup_root(requires_bpf: None) -> Path:
    """Where cgroups can be made; that needs root, and a hierarchy that is mounted."""
    mounted = hierarchy().root
    if not mounted:
        pytest.skip("no hierarchy of cgroups is mounted")
    root = Path(mounted)
    try:
        (root / "shortproc-test").mkdir(exist_ok=True)
    except OSError as error:
        pytest.skip(f"no cgroup can be made below {root}: {error.strerror}")
    (root / "shortproc-test").rmdir()
    return root


def shell(tmp_path: Path, name: str) -> Path:
    """A shell that is called so."""
    return Path(shutil.copy("/bin/sh", tmp_path / name))


def of(origins: Origins, comm: bytes) -> Counter[Origin]:
    """Short processes of that name."""
    return Counter({each: row.short_exits for each, row in origins.rows.items() if each.comm == comm and row.short_exits})


def test_the_spawner_is_the_nearest_lasting_ancestor(quick: EbpfSource, tmp_path: Path, nothing: Program) -> None:
    """A cron starts sh, that a script, that 300 programs: all of them are cron's, though their parents are three others."""
    got: list[Record] = []
    quick.publish(got.extend, live=True)
    cron, middle, script = (shell(tmp_path, name) for name in ("a-cron", "a-middle", "a-script"))
    loop = f"i=0; while [ $i -lt 10 ]; do {nothing.path}; i=$((i + 1)); done; :"  # a script that lasts would be the spawner
    rounds = "; ".join([f"{middle} -c '{script} -c \"$LOOP\"; :'"] * 30)
    assert (
        os.spawnve(os.P_WAIT, cron, [str(cron), "-c", f"sleep {2 * OLD_AFTER}; {rounds}; :"], {"LOOP": loop, "PATH": os.environ["PATH"]})
        == 0
    )
    origins = origins_of(quick)
    mine = of(origins, nothing.comm)
    assert {(each.parent, each.spawner): n for each, n in mine.items()} == {(b"a-script", b"a-cron"): 300}
    assert {(each.parent, each.spawner): n for each, n in of(origins, b"a-script").items()} == {(b"a-middle", b"a-cron"): 30}
    assert {(each.parent, each.spawner): n for each, n in of(origins, b"a-middle").items()} == {(b"a-cron", b"a-cron"): 30}
    records = until(lambda: [each for each in got if each.comm == nothing.comm], lambda mine: len(mine) >= 300)
    assert Counter((each.parent_comm, each.spawner) for each in records) == {(b"a-script", b"a-cron"): 300}
    assert Counter(each.lineage for each in records) == {(*lineage(MAX_ABOVE), b"a-cron", b"a-middle", b"a-script"): 300}


def lineage(most: int) -> tuple[bytes, ...]:
    """Return ancestors of our children as /proc tells them, ourselves last."""
    with contextlib.closing(Procfs()) as procfs:
        pid, names = os.getpid(), list[bytes]()
        while pid and len(names) < most:
            stat = procfs.stat(pid)
            assert not isinstance(stat, Lost)
            names.insert(0, stat.comm)
            pid = stat.ppid
        return (*([DEEP] if pid else []), *names)


def test_a_chain_that_is_too_long_is_deep(source: EbpfSource) -> None:
    """Of a process with more than 8 short-lived ancestors the spawner is not known, and never guessed."""
    leaf = b"leaf-of-chain"
    got: list[Record] = []
    source.publish(got.extend, live=True)
    pid = os.fork()
    if pid == 0:
        for _ in range(9):
            if child := os.fork():
                os.waitpid(child, 0)
                os._exit(0)
        Path("/proc/self/comm").write_bytes(leaf)
        os._exit(0)
    assert ended(pid).status == 0
    assert [(each.spawner, n) for each, n in of(origins_of(source), leaf).items()] == [(DEEP, 1)]
    assert [each.spawner for each in until(lambda: [each for each in got if each.comm == leaf], bool)] == [DEEP]
    ours = Path("/proc/self/comm").read_bytes().rstrip(b"\n")
    assert [each.lineage for each in got if each.comm == leaf] == [(DEEP, *[ours] * MAX_HOPS)]


def test_the_user_is_the_one_at_the_exit(source: EbpfSource) -> None:
    """Exact even if it is given up just before."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    for user in (0, USER, USER + 1):
        pid = os.fork()
        if pid == 0:
            Path("/proc/self/comm").write_bytes(b"gives-up-root")
            os.setresuid(user, user, user)
            os._exit(0)
        assert ended(pid).status == 0
    assert Counter(each.uid for each in of(origins_of(source), b"gives-up-root").elements()) == {0: 1, USER: 1, USER + 1: 1}


@pytest.mark.alone
def test_cgroups_that_live_for_milliseconds_are_named(source: EbpfSource, cgroup_root: Path, workload: Program) -> None:
    """Made, entered by one process, and removed: nobody could read their names afterwards."""
    folder = cgroup_root / f"shortproc-test-{os.getpid()}"
    folder.mkdir()
    pods = 'i=0; while [ $i -lt "$1" ]; do mkdir pod-$i; (echo 0 >pod-$i/cgroup.procs); rmdir pod-$i; i=$((i + 1)); done'
    try:
        subprocess.run(["sh", "-ec", pods, "-", str(CGROUPS)], cwd=folder, check=True)
    finally:
        folder.rmdir()
    inside = Counter(each.cgroup for each in short_origins(origins_of(source)) if each.cgroup.startswith(f"/{folder.name}/".encode()))
    assert inside == {f"/{folder.name}/pod-{number}".encode(): 1 for number in range(CGROUPS)}


def short_origins(origins: Origins) -> Iterator[Origin]:
    """Each as often as it had a short process."""
    for each, row in origins.rows.items():
        yield from [each] * row.short_exits


def test_cpu_by_cgroup(source: EbpfSource, cgroup_root: Path, workload: Program) -> None:
    """The kernel knows it only at the free, when the process has left its cgroup for long."""
    folder = cgroup_root / f"shortproc-test-{os.getpid()}"
    folder.mkdir()
    pid = os.fork()
    if pid == 0:
        (folder / "cgroup.procs").write_text("0")
        os.execv(workload.path, [str(workload.path), "burn", "5", "5", "1"])
    used = ended(pid).cpu_ns
    deadline = time.monotonic() + 20
    cgroup, whole = f"/{folder.name}".encode(), Origins()
    while whole.cgroups.get(cgroup, CgroupCounts()).short_cpu_ns < 0.99 * used and time.monotonic() < deadline:
        whole.add(origins_of(source))
        time.sleep(0.05)
    folder.rmdir()
    assert whole.cgroups[cgroup].short_cpu_ns == pytest.approx(used, rel=0.02)


def test_oom_kills_by_cgroup(source: EbpfSource, cgroup_root: Path, workload: Program) -> None:
    """Each once, whatever its runtime; a SIGKILL of somebody else is none. The cgroup of the limit may be that of another hierarchy."""
    seen = origins_of(source)
    try:
        failing.oom_kills(2)
    except failing.Unavailable as reason:
        pytest.skip(str(reason))
    workload.storm("kill", 2, int(signal.SIGKILL))
    seen.add(origins_of(source))
    victims = {cgroup: counts.oom_kills for cgroup, counts in seen.cgroups.items() if counts.oom_kills}
    assert list(victims.values()) == [2]
    assert ProcessCgroups(Procfs()).path(os.getpid()) in victims or any(b"shortproc-test" in cgroup for cgroup in victims)


def test_failed_exits(source: EbpfSource, workload: Program, nothing: Program) -> None:
    """Those of short processes and of others; a long-lived process that does not fail is not counted at all."""
    workload.storm("end", 20, 3)
    origins = origins_of(source)
    failed = {each.comm: row.failed_exits for each, row in origins.rows.items() if row.failed_exits}
    assert failed[workload.comm] == 20


@pytest.mark.alone
@pytest.mark.usefixtures("always_due")
def test_every_short_process_is_in_one_row(own_source: EbpfSource, workload: Program, nothing: Program) -> None:
    """Through storms of names without end, drained meanwhile: what the rows and `other` say is the whole."""
    thread = threading.Thread(target=lambda: [workload.storm("comms", 6_000), workload.storm("forkexec", 1000, nothing.path)])
    thread.start()
    drains: list[tuple[Origins, int]] = []
    while thread.is_alive():
        time.sleep(0.2)
        own_source.swap_maps({})
        drains.append((own_source.origins(), own_source.drain().total.short_exits))
    thread.join()
    own_source.stop()
    drains.append((own_source.origins(), own_source.drain().total.short_exits))
    short = sum(n for _, n in drains)
    assert short >= 7_000
    assert sum(sum(row.short_exits for row in origins.rows.values()) + origins.other.short_exits for origins, _ in drains) == short
    assert sum(short_by(origins, lambda origin: origin.comm)[nothing.comm] for origins, _ in drains) == 1000


@pytest.fixture
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Swap at each turn."""
    monkeypatch.setattr(ebpf, "_DRAIN_EVERY_NS", 0)
