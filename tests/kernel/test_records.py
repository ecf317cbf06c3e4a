"""Records of single short processes: what each tells, and that none is lost without being counted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.kernel.layout import EXE_SLOTS
from exporter.kernel.procfs import Procfs
from exporter.model import Lost, Mode, ModeUnavailable, Outcome
from exporter.model.counts import Counts
from exporter.model.dimensions import COMM
from exporter.records.hub import Hub
from exporter.records.record import Record
from exporter.sources.base import Source
from exporter.sources.ebpf import decode
from exporter.sources.ebpf.source import EbpfSource
from exporter.sources.netlink.source import NetlinkSource
from exporter.sources.scan.slow import ScanSource
from tests.kernel.bcc_watching import watching_bcc
from tests.kernel.programs import SCALE, Program, descriptors, ended, renewed, until, watching


class Got:
    """What a source publishes."""

    def __init__(self, source: Source, *, live: bool = True) -> None:
        self.records: list[Record] = []
        source.publish(self.records.extend, live=live)

    def of(self, comm: bytes, n: int) -> list[Record]:
        return until(lambda: [each for each in self.records if each.comm == comm], lambda mine: len(mine) >= n)


WITH_BUFFERS = pytest.param(False, id="perf buffers")
"""As on kernels before 5.8."""


@pytest.fixture(scope="module")
def attached(requires_bpf: None) -> Iterator[EbpfSource]:
    with watching() as source:
        yield source


@pytest.fixture
def core(attached: EbpfSource) -> EbpfSource:
    """For a test that lets it run."""
    return renewed(attached)


def test_all_that_is_known(core: EbpfSource, workload: Program, nothing: Program) -> None:
    """Who, whose child, which program, how it ended: what a person wants to see."""
    got = Got(core)
    workload.storm("forkexec", 3, nothing.path)
    records = got.of(nothing.comm, 3)
    assert len(records) == 3
    (parent,) = got.of(workload.comm, 1)
    for record in records:
        assert (record.comm, record.parent_comm, record.exe) == (nothing.comm, workload.comm, os.fsencode(nothing.path))
        assert (record.ppid, record.uid, record.mode) == (parent.pid, os.geteuid(), Mode.EBPF_CORE)
        assert (record.outcome, record.code) == (Outcome.OK, 0)
        assert 0 < record.runtime_ns < SCALE.threshold_ns
        assert record.cgroup.startswith(b"/")
    assert parent.ppid == os.getpid()


@pytest.mark.parametrize(
    ("words", "outcome", "code"),
    [(("end", 5, 77), Outcome.ERROR, 77), (("kill", 5, int(signal.SIGTERM)), Outcome.SIGNAL, 15), (("stop", 5), Outcome.SIGNAL, 9)],
)
def test_how_it_ended(core: EbpfSource, workload: Program, words: tuple[object, ...], outcome: Outcome, code: int) -> None:
    """As wait(2) tells."""
    got = Got(core)
    workload.storm(*words)
    got.of(workload.comm, 6)
    assert [(each.outcome, each.code) for each in got.records if each.comm == workload.comm].count((outcome, code)) == 5


@pytest.mark.alone
@pytest.mark.parametrize("live", [True, False])
def test_each_short_end_is_a_record_or_counted_as_dropped(requires_bpf: None, workload: Program, live: bool) -> None:
    """A full ring costs records, never a count, and says how many; with a reader that waits and with one that looks now and then."""
    with watching() as source:
        got = Got(source, live=live)
        workload.storm("vfork", 10000)
        source.stop()
        counts: Counts = source.drain()
    mine = sum(each.comm == workload.comm for each in got.records)
    assert counts.of(COMM).row(workload.comm).exits == [10001, 0, 0, 0]
    assert mine + counts.records_dropped >= counts.of(COMM).row(workload.comm).short_exits >= 10000
    assert len(got.records) + counts.records_dropped <= counts.total.short_exits, "which may have been a few before it listened"


@pytest.mark.parametrize("threads", [1, 3])
def test_records_have_cpu(core: EbpfSource, workload: Program, threads: int) -> None:
    """The kernel tells it when it frees a process, after the record: each record waits for its own."""
    got = Got(core)
    spent = workload.storm("burn", 20, 5, threads).cpu_ns
    mine = got.of(workload.comm, 21)
    times = [each.cpu_ns or 0 for each in mine]
    assert len(times) == 21
    assert sum(times) == pytest.approx(spent, rel=0.05)


def test_a_zombie_does_not_hold_its_record_back(core: EbpfSource, nothing: Program) -> None:
    """A parent may never reap its child, and then the kernel never frees it. Later exits must not wait for it either."""
    got = Got(core)
    zombie = os.posix_spawn(nothing.path, [b"x"], {})
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    ended(later := os.posix_spawn(nothing.path, [b"x"], {}))
    first, second = got.of(nothing.comm, 2)
    late_ns = time.time_ns() - first.ended_ns
    os.waitpid(zombie, 0)
    assert (first.pid, first.cpu_ns, second.pid) == (zombie, None, later)
    assert second.cpu_ns
    assert late_ns < 1_000_000_000


def test_a_long_path_is_cut(core: EbpfSource, nothing: Program) -> None:
    """At 255 bytes and a NUL, as the kernel copies it; and the next record has nothing of it."""
    got = Got(core)
    long = b"/" * 300 + os.fsencode(nothing.path)[1:]
    ended(os.posix_spawn(long, [b"x"], {}))
    ended(os.posix_spawn(nothing.path, [b"x"], {}))
    first, second = got.of(nothing.comm, 2)
    assert first.exe == b"/" * 255
    assert second.exe == os.fsencode(nothing.path)


@pytest.fixture
def before_pid() -> Iterator[Callable[[int], None]]:
    """Sets which PID was given out last."""
    last = Path("/proc/sys/kernel/ns_last_pid")
    if not os.access(last, os.W_OK):
        pytest.skip("the kernel does not let us choose PIDs")
    before = last.read_text()

    def choose(pid: int) -> None:
        last.write_text(str(pid - 1))

    yield choose
    last.write_text(before)


def test_a_slot_that_is_used_again_costs_a_path_and_is_counted(
    core: EbpfSource, nothing: Program, before_pid: Callable[[int], None]
) -> None:
    """Paths are kept by PID modulo a number of slots: the path of another process must never be taken."""
    got = Got(core)
    sleep = shutil.which("sleep") or ""
    first = os.posix_spawn(sleep, ["sleep", "0.3"], {})
    second = first + EXE_SLOTS if first + EXE_SLOTS < 32768 else first - EXE_SLOTS
    for _ in range(100):  # another process of the host may take the PID
        before_pid(second)
        third = os.posix_spawn(nothing.path, [b"x"], {})
        ended(third)
        if third == second:
            break
    ended(first)
    exes = until(lambda: {each.pid: each.exe for each in got.records}, lambda exes: first in exes)
    assert third == second
    assert (exes[first], exes[second]) == (b"", os.fsencode(nothing.path))
    assert core.peek().lost[Lost.EXES_FULL] >= 1


def by_descriptor(file: int) -> int:
    """Execute an open file in a child, as fexecve(3) does, and close it; returns the PID."""
    os.set_inheritable(file, True)
    if not (pid := os.fork()):
        try:
            os.execve(file, [b"x"], {})
        finally:
            os._exit(99)
    assert ended(pid).status == 0
    os.close(file)
    return pid


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_file_executed_by_its_descriptor_has_its_own_path(core: EbpfSource, nothing: Program, tmp_path: Path, mounted: Path) -> None:
    """Binaries, scripts, other mounts, memory; only a path that is too deep stays /dev/fd/N, which tells nothing."""
    got = Got(core)
    script, deep = tmp_path / "script", tmp_path.joinpath(*"abcdefghijklmnopqrstuvwxyzabcdef", "x")
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    deep.parent.mkdir(parents=True)
    with os.fdopen(os.memfd_create("name"), "wb") as memory:
        memory.write(nothing.path.read_bytes())
        memory.flush()
        unwritable = os.open(f"/proc/self/fd/{memory.fileno()}", os.O_RDONLY)
    paths = (nothing.path, script, shutil.copy(nothing.path, mounted / "x"))
    expected = {by_descriptor(os.open(path, os.O_RDONLY)): os.fsencode(path) for path in paths}
    expected[by_descriptor(unwritable)] = b"memfd:name"
    too_deep = by_descriptor(os.open(shutil.copy(nothing.path, deep), os.O_RDONLY))
    exes = until(lambda: {each.pid: each.exe for each in got.records}, lambda exes: too_deep in exes)
    assert {pid: exes.get(pid) for pid in expected} == expected
    assert exes[too_deep].startswith(b"/dev/fd/")


def test_without_a_reader_there_are_none(core: EbpfSource, workload: Program) -> None:
    """Nobody who does not ask for records pays for them."""
    workload.storm("vfork", 1000)
    assert core.peek().records_dropped == 0
    assert core.peek().of(COMM).row(workload.comm).exits == [1001, 0, 0, 0]


@pytest.mark.parametrize("use_ring", [pytest.param(True, id="ring"), WITH_BUFFERS])
def test_bcc_tells_what_it_knows(requires_bpf: None, workload: Program, nothing: Program, use_ring: bool) -> None:
    """Without the kernel's headers nobody knows how it ended."""
    with watching_bcc(use_ring=use_ring) as source:
        got = Got(source)
        workload.storm("end", 20, 3)
        records = got.of(workload.comm, 21)
        workload.storm("forkexec", 20, nothing.path)
        paths = {record.exe for record in got.of(nothing.comm, 20)}
    assert len(records) == 21
    assert paths == {os.fsencode(nothing.path)}
    assert {record.mode for record in records} == {Mode.EBPF_BCC}
    assert {record.uid for record in records} == {os.geteuid()}


@pytest.mark.alone
@pytest.mark.parametrize("live", [True, False])
def test_full_perf_buffers_cost_records_only(requires_bpf: None, workload: Program, live: bool) -> None:
    """Each record is taken or counted as dropped here too, in the order of time, and no descriptor stays."""
    before = descriptors()
    with watching_bcc(use_ring=False) as source:
        got = Got(source, live=live)
        for _ in range(3):
            workload.storm("vfork", 10000)
        source.stop()
        counts: Counts = source.drain()
    mine = [each.ended_ns for each in got.records if each.comm == workload.comm]
    assert sum(counts.of(COMM).row(workload.comm).exits) == 30003
    assert len(mine) + counts.records_dropped >= counts.of(COMM).row(workload.comm).short_exits >= 30000
    assert len(got.records) + counts.records_dropped <= counts.total.short_exits
    assert not live or len(mine) > 20000
    assert descriptors() == before


@pytest.mark.alone
def test_perf_buffers_that_are_full_say_so(requires_bpf: None, workload: Program) -> None:
    """By records of their own, which are all that there is where programs are not told."""
    with watching_bcc(use_ring=False) as source:
        source._kernel.facts["buffers_count_lost"] = True
        got = Got(source, live=False)
        workload.storm("vfork", 20000)
        reader = source._records
        assert reader is not None

        def told() -> tuple[int, int]:
            workload.storm("vfork", 20)  # it is said with the next record of the same CPU
            time.sleep(0.3)
            return reader.lost, source._cpu_totals().sums()[decode._DROPPED]

        by_buffers, by_programs = until(told, lambda each: each[0] == each[1])
        source.stop()
    assert by_buffers == by_programs > 0
    assert got.records


def test_netlink_tells_what_it_knows(workload: Program) -> None:
    """Who and how, as root also whose and with what CPU; not which program."""
    procfs = Procfs()
    source = NetlinkSource(SCALE, procfs)
    try:
        source.start()
    except ModeUnavailable as error:
        pytest.skip(str(error))
    got = Got(source)
    workload.storm("end", 20, 3)
    records = got.of(workload.comm, 20)
    source.stop()
    procfs.close()
    assert len(records) >= 20
    assert {(each.outcome, each.code) for each in records} <= {(Outcome.ERROR, 3), (Outcome.OK, 0)}


def test_a_scan_tells_what_it_saw(workload: Program) -> None:
    """Late, and without an outcome."""
    procfs = Procfs()
    source = ScanSource(SCALE, procfs, 100_000_000)
    source.start()
    got = Got(source)
    subprocess.run(["sleep", "0.3"], check=True)
    mine = until(lambda: [each for each in got.records if (each.comm, each.ppid) == (b"sleep", os.getpid())], bool)
    source.stop()
    procfs.close()
    assert [each.outcome for each in mine] == [Outcome.UNKNOWN]


def test_the_hub_keeps_the_latest(core: EbpfSource, workload: Program) -> None:
    """Bounded, the newest last."""
    hub = Hub(100)
    core.publish(hub.publish, live=True)
    workload.storm("vfork", 1000)
    assert until(lambda: sum(hub.latencies.buckets), lambda n: n >= 1000) >= 1000
    recent = hub.recent()
    assert len(recent) == 100
    assert recent[0].ended_ns <= recent[-1].ended_ns
