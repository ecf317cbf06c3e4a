"""What the kernel counts, against storms whose truth is known: the same for both loaders of eBPF programs."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from exporter.kernel.bpf import possible_cpus
from exporter.kernel.layout import MAX_COMMS
from exporter.kernel.procfs import Procfs
from exporter.loaders.core import refusal
from exporter.model import Lost, Mode, RuntimeScale
from exporter.model.counts import Counts, ProcessCounts
from exporter.model.dimensions import COMM
from exporter.sources.ebpf.source import EbpfSource
from exporter.supervision.completeness import Completeness, Sample
from tests.kernel.bcc_watching import needs_bcc, watching_bcc
from tests.kernel.programs import SLOW, Program, named, watching
from tests.origins import short_children

THREADS = 8
NO_IO_URING = (96, 97, 98)
PR_SET_NAME = 15

_refusal = refusal()
needs_core = pytest.mark.skipif(_refusal is not None, reason=_refusal or "")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(watching, id="core-group_dead", marks=needs_core),
        pytest.param(partial(watching, force_guard=True, several_copies=True), id="core-guard-several_copies", marks=needs_core),
        pytest.param(watching_bcc, id="bcc-group_dead", marks=needs_bcc),
        pytest.param(partial(watching_bcc, force_guard=True, several_copies=True), id="bcc-counted-several_copies", marks=needs_bcc),
    ],
)
def attached(request: pytest.FixtureRequest) -> Iterator[EbpfSource]:
    """The programs, as this kernel is used; and as one whose tracepoint doesn't tell which thread is the last, and that preempts them."""
    attached: Callable[[RuntimeScale], AbstractContextManager[EbpfSource]] = request.param
    with attached(SLOW) as source:
        yield source


def exits(source: EbpfSource, ok: int, error: int = 0) -> list[int]:
    """What is to be counted; without the kernel's headers, the programs of bcc can't see an outcome."""
    return [ok, error, 0, 0] if source.mode is Mode.EBPF_CORE else [0, 0, 0, ok + error]


def test_every_exec_and_exit_is_counted(source: EbpfSource, workload: Program, nothing: Program) -> None:
    """Fork, exec and exit at full speed: the plainest storm, exact by name, outcome and parent."""
    workload.storm("forkexec", 1000, nothing.path)
    counts = source.peek()
    assert counts.of(COMM).row(nothing.comm).exits == exits(source, 1000)
    assert counts.of(COMM).row(nothing.comm).short_exits == counts.of(COMM).row(nothing.comm).execs == 1000
    assert counts.of(COMM).row(workload.comm).exits == exits(source, 1)
    assert counts.of(COMM).row(workload.comm).execs == 1
    assert short_children(source)[workload.comm] == 1000
    assert not any(counts.lost.values())


@pytest.mark.alone
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
        assert _all_at_least(earlier.total, later.total)
        assert _all_at_least(earlier.of(COMM).row(workload.comm), later.of(COMM).row(workload.comm))
        assert earlier.forks <= later.forks
    for peek in peeks:
        assert named(peek).exits == peek.total.exits
        assert named(peek).runtime_ns == peek.total.runtime_ns
        assert abs(sum(peek.total.buckets) - sum(peek.total.exits)) <= possible_cpus(), "but for a program under way on each CPU"
    assert peeks[-1].of(COMM).row(workload.comm).exits == exits(source, 5001)
    assert len(peeks) > 3


@pytest.mark.parametrize("way", ["together", "scatter"])
def test_many_threads_are_one_process(source: EbpfSource, workload: Program, way: str) -> None:
    """Threads that leave at the same moment each look like the last one; only one of them is."""
    before = source.peek().threads
    workload.storm(way, 300, THREADS)
    counts = source.peek()
    assert counts.of(COMM).row(workload.comm).exits == exits(source, 301)
    assert sum(counts.of(COMM).row(workload.comm).buckets) == 301
    assert short_children(source)[workload.comm] == 300
    assert counts.threads - before >= 300 * (THREADS - 1)


def test_a_leader_that_leaves_first(source: EbpfSource, workload: Program) -> None:
    """A process lives until its last thread has left, and that one's exit code is its outcome."""
    workload.storm("leader", 30, 21, 5)
    mine = source.peek().of(COMM).row(workload.comm)
    assert mine.exits == exits(source, 1, 30)
    assert mine.buckets[:2] == [0, 0], "from fork to the leader's exit is far below 20 ms"


def test_an_exec_chain_is_one_process(source: EbpfSource, workload: Program, nothing: Program) -> None:
    """An exec gives a process a new name, not a new life: three execs, one end."""
    before = source.peek().total.execs
    workload.storm("chain", 50, nothing.path)
    counts = source.peek()
    assert counts.of(COMM).row(nothing.comm).exits == exits(source, 50)
    assert counts.of(COMM).row(nothing.comm).execs == 50
    assert counts.of(COMM).row(b"exe").execs >= 100, "the two before, by the name of /proc/self/exe"
    assert counts.total.execs - before >= 151
    assert short_children(source)[workload.comm] == 50


def test_an_exec_by_another_thread(source: EbpfSource, nothing: Program) -> None:
    """The thread takes over the leader's id, and the process goes on under its name."""
    code = (
        "import os, sys, threading; threading.Thread(target=os.execv, args=(sys.argv[1], [sys.argv[1]])).start(); threading.Event().wait()"
    )
    for _ in range(10):
        subprocess.run([sys.executable, "-c", code, nothing.path], check=True)
    counts = source.peek()
    assert counts.of(COMM).row(nothing.comm).exits == exits(source, 10)
    assert counts.of(COMM).row(nothing.comm).execs == 10


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
    assert [source.peek().of(COMM).row(nothing.comm + b"-%d" % number).exits for number in range(3)] == [exits(source, 1)] * 3


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
    assert workers == 0
    assert source.peek().of(COMM).row(workload.comm).exits == exits(source, 1 + 1000 + 1 + 100 + 1 + 20)


@pytest.mark.alone
def test_a_flood_of_names_is_whole(source: EbpfSource, workload: Program) -> None:
    """More names than the kernel's map holds: what finds no room is counted as other."""
    names = 2 * MAX_COMMS
    workload.storm("comms", names)
    counts = source.peek()
    flooded = sum(sum(each.exits) for comm, each in counts.of(COMM).rows.items() if re.fullmatch(rb"c\d+", comm))
    assert len(counts.of(COMM).rows) <= MAX_COMMS
    assert flooded + sum(counts.of(COMM).other.exits) >= names
    assert sum(counts.of(COMM).other.exits) >= names - MAX_COMMS
    assert counts.of(COMM).other.short_exits >= names - MAX_COMMS
    assert named(counts).exits == counts.total.exits
    assert short_children(source)[workload.comm] == names


@pytest.mark.parametrize(
    "watch", [pytest.param(watching, marks=needs_core), pytest.param(watching_bcc, marks=needs_bcc)], ids=["core", "bcc"]
)
@pytest.mark.parametrize(
    "gone", [("on_exit",), ("on_exit_2",), ("on_exit_3",), ("on_exit", "on_exit_2"), ("on_exit", "on_exit_3")], ids="-".join
)
def test_a_later_copy_stands_in(watch: Callable[..., AbstractContextManager[EbpfSource]], gone: Sequence[str], workload: Program) -> None:
    """Where the kernel skips some copies, one of the others counts the exit, once, and nothing is lost. Here they are detached."""
    with watch(several_copies=True) as source:
        workload.storm("together", 50, THREADS)
        for name in gone:
            os.close(source._kernel.links.pop(name))
        workload.storm("together", 100, THREADS)
        counts = source.peek()
        assert counts.of(COMM).row(workload.comm).exits == exits(source, 51 + 101)
        assert source._cpu_totals().stand_ins >= 100 * THREADS * ("on_exit" in gone)
        assert not counts.lost[Lost.PROGRAM_MISSED]


def _all_at_least(earlier: ProcessCounts, later: ProcessCounts) -> bool:
    pairs = [*zip(earlier.exits, later.exits, strict=True), *zip(earlier.buckets, later.buckets, strict=bool(earlier.buckets))]
    pairs += [(n, later.lifetimes.get(index, 0)) for index, n in earlier.lifetimes.items()]
    pairs += [(getattr(earlier, name), getattr(later, name)) for name in ("short_exits", "execs", "runtime_ns", "cpu_ns", "short_cpu_ns")]
    return all(a <= b for a, b in pairs)
