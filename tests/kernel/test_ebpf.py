"""What the kernel counts, against storms whose truth is known."""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from programs import MEASURES, Program, ended, named, until, watching

from exporter.bpfmap import possible_cpus
from exporter.completeness import Completeness, Sample
from exporter.model import NS, Counts, Measures, ProcessCounts
from exporter.sources.ebpf import EbpfSource
from exporter.sources.procfs import Procfs

THREADS = 8
NO_IO_URING = (96, 97, 98)


def test_every_exec_and_exit_is_counted(source: EbpfSource, workload: Program, nothing: Program) -> None:
    """Fork, exec and exit at full speed: the plainest storm, exact by name, outcome and parent."""
    workload.storm("forkexec", 1000, nothing.path)
    counts = source.peek()
    assert counts.of(nothing.comm).exits == [1000, 0, 0, 0]
    assert counts.of(nothing.comm).short_exits == counts.of(nothing.comm).execs == 1000
    assert counts.of(workload.comm).exits == [1, 0, 0, 0]
    assert counts.of(workload.comm).execs == 1
    assert counts.short_exits_by_parent[workload.comm] == 1000


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
        assert _all_at_least(earlier.of(workload.comm), later.of(workload.comm))
        assert earlier.forks <= later.forks
    for peek in peeks:
        assert named(peek).exits == peek.total.exits
        assert named(peek).runtime_ns == peek.total.runtime_ns
        assert abs(sum(peek.total.buckets) - sum(peek.total.exits)) <= possible_cpus(), "but for a program under way on each CPU"
    assert peeks[-1].of(workload.comm).exits == [5001, 0, 0, 0]
    assert len(peeks) > 3


@pytest.mark.parametrize("way", ["together", "scatter"])
def test_many_threads_are_one_process(source: EbpfSource, workload: Program, way: str) -> None:
    """Threads that leave at the same moment each look like the last one; only one of them is."""
    before = source.peek().threads
    workload.storm(way, 300, THREADS)
    counts = source.peek()
    assert counts.of(workload.comm).exits == [301, 0, 0, 0]
    assert sum(counts.of(workload.comm).buckets) == 301
    assert counts.short_exits_by_parent[workload.comm] == 300
    assert counts.threads - before >= 300 * (THREADS - 1)


def test_a_leader_that_leaves_first(source: EbpfSource, workload: Program) -> None:
    """A process lives until its last thread has left, and that one's exit code is its outcome."""
    workload.storm("leader", 30, 21, 5)
    mine = source.peek().of(workload.comm)
    assert mine.exits == [1, 30, 0, 0]
    assert mine.buckets[:2] == [0, 0], "from fork to the leader's exit is far below 20 ms"


@pytest.mark.parametrize(
    ("words", "exits"),
    [
        (("end", 50, 0), [51, 0, 0, 0]),
        (("end", 50, 1), [1, 50, 0, 0]),
        (("end", 50, 77), [1, 50, 0, 0]),
        (("kill", 50, int(signal.SIGSEGV)), [1, 0, 50, 0]),
        (("kill", 50, int(signal.SIGTERM)), [1, 0, 50, 0]),
        (("stop", 50), [1, 0, 50, 0]),
    ],
    ids=["0", "1", "77", "SIGSEGV", "SIGTERM", "SIGKILL"],
)
def test_outcomes(source: EbpfSource, workload: Program, words: tuple[object, ...], exits: list[int]) -> None:
    """Exit codes and fatal signals, told apart as wait(2) does."""
    workload.storm(*words)
    assert source.peek().of(workload.comm).exits == exits


def test_an_exec_chain_is_one_process(source: EbpfSource, workload: Program, nothing: Program) -> None:
    """An exec gives a process a new name, not a new life: three execs, one end."""
    before = source.peek().total.execs
    workload.storm("chain", 50, nothing.path)
    counts = source.peek()
    assert counts.of(nothing.comm).exits == [50, 0, 0, 0]
    assert counts.of(nothing.comm).execs == 50
    assert counts.of(b"exe").execs >= 100, "the two before, by the name of /proc/self/exe"
    assert counts.total.execs - before >= 151
    assert counts.short_exits_by_parent[workload.comm] == 50


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


def test_signals_are_counted_by_number(source: EbpfSource, workload: Program) -> None:
    """SIGXFSZ, since nobody else sends it."""
    workload.storm("kill", 50, int(signal.SIGXFSZ))
    assert source.peek().signals[signal.SIGXFSZ] == 50


def test_sigkill_is_counted_once_a_process(source: EbpfSource, workload: Program) -> None:
    """The kernel delivers one to each thread of every exit_group; those are no kills."""
    workload.storm("together", 300, THREADS)
    assert source.peek().signals.get(signal.SIGKILL, 0) < 300
    before = source.peek().signals.get(signal.SIGKILL, 0)
    workload.storm("stop", 50)
    assert 50 <= source.peek().signals[signal.SIGKILL] - before < 100


def test_core_dumps(source: EbpfSource, workload: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted where the kernel says that it wrote one."""
    monkeypatch.chdir(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    before = source.peek().core_dumps
    pid = workload.start("end", 1, 0)
    os.waitpid(pid, 0)
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGQUIT)
        os._exit(0)
    if not os.WCOREDUMP(ended(pid).status):
        pytest.skip("this machine writes no core dumps")
    assert source.peek().core_dumps - before >= 1


def test_a_flood_of_names_is_whole(source: EbpfSource, workload: Program) -> None:
    """More names than the kernel's map holds: what finds no room is counted as other."""
    workload.storm("comms", 3000)
    counts = source.peek()
    assert len(counts.by_comm) <= 2048
    assert sum(_flooded(counts).values()) + sum(counts.other.exits) >= 3000
    assert sum(counts.other.exits) >= 3000 - 2048
    assert counts.other.short_exits >= 3000 - 2048
    assert named(counts).exits == counts.total.exits
    assert counts.short_exits_by_parent[workload.comm] == 3000


def test_without_histograms_by_name(requires_bpf: None, workload: Program) -> None:
    """They are off by default: no buckets by name, all of them as a whole."""
    with watching(Measures(NS, MEASURES.bounds_ns)) as source:
        workload.storm("end", 20, 0)
        counts = source.peek()
        assert counts.of(workload.comm).buckets == []
        assert counts.other.buckets == []
        assert len(counts.total.buckets) == len(MEASURES.bounds_ns) + 1
        assert sum(counts.total.buckets) == sum(counts.total.exits) >= 21


def test_histograms_by_name(source: EbpfSource, workload: Program) -> None:
    """Each runtime falls into the first bucket whose bound it does not exceed."""
    workload.storm("leader", 10, 21, 0)
    mine = source.peek().of(workload.comm)
    assert mine.buckets[:2] == [0, 0]
    assert sum(mine.buckets[2:]) == 11
    assert mine.buckets[3] + mine.buckets[4] >= 1, "the parent lived ten times as long"


def test_peak_per_second(source: EbpfSource, workload: Program) -> None:
    """The busiest whole second is told even when a scrape comes long after it."""
    assert source.gauges().peak_per_second is not None
    first = time.monotonic_ns() // NS
    workload.storm("vfork", 2000)
    spanned = time.monotonic_ns() // NS - first + 1
    peak = until(lambda: source.gauges().peak_per_second or 0, lambda peak: peak >= 2000 / spanned)
    assert 2000 / spanned <= peak <= source.peek().total.short_exits


def test_peak_is_of_whole_seconds_of_the_last_minute(requires_bpf: None, workload: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current second is left out, for it is not over; so is what is longer ago than 60 s."""
    with watching() as source:
        time.sleep(1 - time.monotonic() % 1)
        second = time.monotonic_ns() // NS
        workload.storm("vfork", 500)
        if time.monotonic_ns() // NS != second:
            pytest.skip("500 processes took this machine more than a second")
        peaks = []
        for now in (second, second + 1, second + 60, second + 61):
            with monkeypatch.context() as patch:
                patch.setattr(time, "monotonic_ns", lambda now=now: now * NS)
                peaks.append(source.gauges().peak_per_second or 0)
    assert [peak >= 500 for peak in peaks] == [False, True, True, False]


def _all_at_least(earlier: ProcessCounts, later: ProcessCounts) -> bool:
    pairs = [*zip(earlier.exits, later.exits, strict=True), *zip(earlier.buckets, later.buckets, strict=bool(earlier.buckets))]
    pairs += [(getattr(earlier, name), getattr(later, name)) for name in ("short_exits", "execs", "runtime_ns", "cpu_ns", "short_cpu_ns")]
    return all(a <= b for a, b in pairs)


def _flooded(counts: Counts) -> dict[bytes, int]:
    return {comm: sum(each.exits) for comm, each in counts.by_comm.items() if re.fullmatch(rb"c\d+", comm)}
