"""The mode `ebpf_bcc` against storms whose truth is known, without kernel headers: outcomes are unknown, all else is exact."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from bcc_watching import needs_bcc, watching_bcc
from programs import MEASURES, Program, named, watching

from exporter.bpfmap import possible_cpus
from exporter.completeness import Completeness, Sample
from exporter.model import Counts, ProcessCounts
from exporter.sources.ebpf import EbpfSource
from exporter.sources.procfs import Procfs

pytestmark = needs_bcc

THREADS = 8
NO_IO_URING = (96, 97, 98)
PR_SET_NAME = 15


@pytest.fixture(params=[False, True], ids=["group_dead", "counted"])
def source(request: pytest.FixtureRequest) -> Iterator[EbpfSource]:
    """The programs attached, as this kernel is used and as those whose tracepoint doesn't tell which thread is the last one."""
    with watching_bcc(force_guard=request.param) as source:
        yield source


def test_every_exec_and_exit_is_counted(source: EbpfSource, workload: Program, nothing: Program) -> None:
    """Fork, exec and exit at full speed: the plainest storm, exact by name and parent."""
    workload.storm("forkexec", 1000, nothing.path)
    counts = source.peek()
    assert counts.of(nothing.comm).exits == [0, 0, 0, 1000]
    assert counts.of(nothing.comm).short_exits == counts.of(nothing.comm).execs == 1000
    assert counts.of(workload.comm).exits == [0, 0, 0, 1]
    assert counts.of(workload.comm).execs == 1
    assert counts.short_exits_by_parent[workload.comm] == 1000
    assert not any(counts.lost.values())


def test_looking_on_changes_nothing(source: EbpfSource, workload: Program) -> None:
    """A scrape in the middle of a storm neither costs a count nor shows one that is taken back."""
    peeks: list[Counts] = [source.peek()]
    storm = threading.Thread(target=workload.storm, args=("vfork", 5000))
    storm.start()
    while storm.is_alive():
        peeks.append(source.peek())
    storm.join()
    peeks.append(source.peek())
    for earlier, later in pairwise(peeks):
        assert all(a <= b for a, b in zip(_numbers(earlier.of(workload.comm)), _numbers(later.of(workload.comm)), strict=True))
        assert earlier.forks <= later.forks
    for peek in peeks:
        assert named(peek).exits == peek.total.exits
        assert abs(sum(peek.total.buckets) - sum(peek.total.exits)) <= possible_cpus(), "but for a program under way on each CPU"
    assert peeks[-1].of(workload.comm).exits == [0, 0, 0, 5001]
    assert len(peeks) > 3


@pytest.mark.parametrize("way", ["together", "scatter"])
def test_many_threads_are_one_process(source: EbpfSource, workload: Program, way: str) -> None:
    """Threads that leave at the same moment each look like the last one; only one of them is."""
    before = source.peek().threads
    workload.storm(way, 300, THREADS)
    counts = source.peek()
    assert counts.of(workload.comm).exits == [0, 0, 0, 301]
    assert sum(counts.of(workload.comm).buckets) == 301
    assert counts.short_exits_by_parent[workload.comm] == 300
    assert counts.threads - before >= 300 * (THREADS - 1)


def test_a_leader_that_leaves_first(source: EbpfSource, workload: Program) -> None:
    """A process lives until its last thread has left."""
    workload.storm("leader", 30, 21, 5)
    mine = source.peek().of(workload.comm)
    assert mine.exits == [0, 0, 0, 31]
    assert mine.buckets[:2] == [0, 0], "from fork to the leader's exit is far below 20 ms"


def test_an_exec_chain_is_one_process(source: EbpfSource, workload: Program, nothing: Program) -> None:
    """An exec gives a process a new name, not a new life: three execs, one end."""
    before = source.peek().total.execs
    workload.storm("chain", 50, nothing.path)
    counts = source.peek()
    assert counts.of(nothing.comm).exits == [0, 0, 0, 50]
    assert counts.of(nothing.comm).execs == 50
    assert counts.of(b"exe").execs >= 100, "the two before, by the name of /proc/self/exe"
    assert counts.total.execs - before >= 151
    assert counts.short_exits_by_parent[workload.comm] == 50


def test_an_exec_by_another_thread(source: EbpfSource, nothing: Program) -> None:
    """The thread takes over the leader's id, and the process goes on under its name."""
    code = (
        "import os, sys, threading; threading.Thread(target=os.execv, args=(sys.argv[1], [sys.argv[1]])).start(); threading.Event().wait()"
    )
    for _ in range(10):
        subprocess.run([sys.executable, "-c", code, nothing.path], check=True)
    counts = source.peek()
    assert counts.of(nothing.comm).exits == [0, 0, 0, 10]
    assert counts.of(nothing.comm).execs == 10


def test_new_names(source: EbpfSource, nothing: Program) -> None:
    """A process may rename itself, or be renamed by a file of /proc; a thread's own name is not the process's."""
    for number in range(3):
        if os.fork() == 0:
            name = nothing.comm + b"-%d" % number
            if number == 0:
                ctypes.CDLL(None).prctl(PR_SET_NAME, name)
            elif number == 1:
                Path(f"/proc/{os.getpid()}/comm").write_bytes(name)
            else:
                ctypes.CDLL(None).prctl(PR_SET_NAME, name)
                threading.Thread(target=lambda: ctypes.CDLL(None).prctl(PR_SET_NAME, b"a thread's")).start()
                time.sleep(0.05)
            os._exit(0)
        os.wait()
    assert [source.peek().of(nothing.comm + b"-%d" % number).exits for number in range(3)] == [[0, 0, 0, 1]] * 3


def test_an_orphan_has_no_known_parent(source: EbpfSource, workload: Program) -> None:
    """Which process adopts it is not to be seen; its late parent's name would be wrong."""
    before = source.peek().short_exits_by_parent.get(b"unknown", 0)
    reading, writing = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.1)
        os._exit(0)
    os.close(writing)
    os.wait()
    os.read(reading, 1)  # until the orphan has gone
    os.close(reading)
    assert source.peek().short_exits_by_parent[b"unknown"] - before >= 1


def test_each_clone_is_counted_as_the_kernel_does(source: EbpfSource, workload: Program) -> None:
    """Processes, threads and io_uring's workers: the capture ratio rests on it, and it is exact whatever else runs."""
    procfs = Procfs()
    completeness = Completeness(procfs.kernel_clones)
    completeness.begin(source.clones)
    workload.storm("vfork", 1000)
    workload.storm("together", 100, THREADS)
    workers = os.waitstatus_to_exitcode(workload.run("uring", 20).status)
    sample = completeness.sample(source.clones, immediate=True)
    procfs.close()
    assert sample is not None
    assert sample == Sample(sample.kernel, sample.kernel)
    assert sample.kernel >= 1000 + 100 * THREADS + (0 if workers else 40)
    if workers in NO_IO_URING:
        pytest.skip("io_uring is switched off here; all but its workers was tested")
    assert source.peek().of(workload.comm).exits == [0, 0, 0, 1 + 1000 + 1 + 100 + 1 + 20]


def test_signals_are_counted_by_number(source: EbpfSource, workload: Program) -> None:
    """SIGXFSZ, since nobody else sends it; and no SIGKILL, of which an exit_group makes one for each thread."""
    workload.storm("kill", 50, int(signal.SIGXFSZ))
    workload.storm("together", 50, THREADS)
    signals = source.peek().signals
    assert signals[signal.SIGXFSZ] == 50
    assert signal.SIGKILL not in signals


def test_a_flood_of_names_is_whole(source: EbpfSource, workload: Program) -> None:
    """More names than the kernel's map holds: what finds no room is counted as other."""
    workload.storm("comms", 3000)
    counts = source.peek()
    flooded = sum(sum(each.exits) for comm, each in counts.by_comm.items() if comm[:1] == b"c" and comm[1:].isdigit())
    assert len(counts.by_comm) <= 2048
    assert flooded + sum(counts.other.exits) >= 3000
    assert sum(counts.other.exits) >= 3000 - 2048
    assert named(counts).exits == counts.total.exits
    assert counts.short_exits_by_parent[workload.comm] == 3000


def test_the_same_as_ebpf_core(requires_bpf: None, workload: Program, nothing: Program) -> None:
    """Both at once: the same processes, and lives that differ by what lies between the clock of the fork and the tracepoint."""
    with watching() as core, watching_bcc() as bcc:
        workload.storm("forkexec", 500, nothing.path)
        workload.storm("vfork", 2000)
        workload.storm("together", 100, THREADS)
        counted, kernel = bcc.peek(), core.peek()
    for comm in (workload.comm, nothing.comm):
        theirs, ours = kernel.of(comm), counted.of(comm)
        assert (sum(ours.exits), ours.execs, ours.short_exits) == (sum(theirs.exits), theirs.execs, theirs.short_exits)
        assert ours.runtime_ns == pytest.approx(theirs.runtime_ns, rel=0.01)
    assert counted.forks <= kernel.forks
    assert counted.short_exits_by_parent[workload.comm] == kernel.short_exits_by_parent[workload.comm]


def _numbers(counts: ProcessCounts) -> list[int]:
    buckets = counts.buckets or [0] * (len(MEASURES.bounds_ns) + 1)
    return [*counts.exits, counts.short_exits, counts.execs, counts.runtime_ns, *buckets]
