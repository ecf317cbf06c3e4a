"""CPU, runtimes and what is known of processes that are older than the programs: all that the kernel tells later than the exit."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from exporter.kernel.layout import CommRow
from exporter.model import NS, Lost, RuntimeScale
from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import COMM
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel.programs import MS, SCALE, Program, ended, until, watching
from tests.origins import short_children

CHARGED_SECONDS = 3
"""After this long a charge that has not come never comes."""


@pytest.mark.parametrize("words", [("burn", 40, 5, 1), ("burn", 60, 1, 8)], ids=["40x5ms", "60x8threads"])
def test_cpu_is_what_getrusage_says(source: EbpfSource, workload: Program, words: tuple[object, ...]) -> None:
    """Within 1 %, for one thread and for many; a process whose CPU never came is known to be missing."""
    result = workload.storm(*words)
    mine = charged_for(source, workload.comm, result.cpu_ns)
    assert mine.short_cpu_ns == mine.cpu_ns


@pytest.mark.alone
def test_every_process_of_a_storm_is_cpu_known_or_known_to_be_missing(source: EbpfSource, workload: Program) -> None:
    """Now and then the kernel does not tell of a process's release; its CPU is then lost, and counted as that."""
    workload.storm("vfork", 5000)
    charged = until(lambda: charges(source, workload.comm), lambda n: n >= 5001, CHARGED_SECONDS)
    assert charged <= 5001
    if charged < 5001:
        assert _audited(source, 5001 - charged)


def test_long_lived_processes(requires_bpf: None, workload: Program) -> None:
    """From the threshold on a process is not short, and neither is its CPU."""
    with watching(RuntimeScale(30 * MS, SCALE.bounds_ns, per_comm_buckets=True)) as source:
        result = workload.storm("burn", 3, 60, 1)
        mine = charged_for(source, workload.comm, result.cpu_ns)
        assert mine.exits == [4, 0, 0, 0]
        assert mine.short_exits == mine.short_cpu_ns == 0
        assert workload.comm not in short_children(source)


@pytest.mark.parametrize("force_guard", [False, True], ids=["group_dead", "guard"])
@pytest.mark.parametrize("threshold_ns", [3600 * NS, 1], ids=["short", "long"])
def test_processes_from_before_the_start(requires_bpf: None, force_guard: bool, threshold_ns: int) -> None:
    """Their end counts too, once, with the whole of their runtime and CPU."""
    comm = f"t-before-{os.getpid()}".encode()[:15]
    gate, release = os.pipe()
    begun = time.monotonic_ns()
    pid = os.fork()
    if pid == 0:
        os.close(release)
        Path("/proc/self/comm").write_bytes(comm)
        os.read(gate, 1)
        os._exit(0)
    forked = time.monotonic_ns()
    os.close(gate)
    with watching(RuntimeScale(threshold_ns, SCALE.bounds_ns), force_guard=force_guard) as source:
        released = time.monotonic_ns()
        os.close(release)
        result = ended(pid)
        mine = until(lambda: source.peek().of(COMM).row(comm), lambda counts: counts.cpu_ns >= result.cpu_ns - 2000)
        assert mine.exits == [1, 0, 0, 0]
        assert released - forked <= mine.runtime_ns <= time.monotonic_ns() - begun
        assert mine.cpu_ns == pytest.approx(result.cpu_ns, rel=0.01, abs=2000), "getrusage rounds to microseconds"
        is_short = threshold_ns > NS
        assert mine.short_exits == is_short
        assert mine.short_cpu_ns == (mine.cpu_ns if is_short else 0)


def test_zombies_from_before_the_start_are_not_charged(requires_bpf: None, workload: Program) -> None:
    """Their end was nobody's to count, so their CPU, known when they are reaped, is not either."""
    pid = workload.start("burn", 1, 5, 1)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with watching() as source:
        ended(pid)
        time.sleep(0.3)
        assert workload.comm not in source.peek().of(COMM).rows


def charges(source: EbpfSource, comm: bytes) -> int:
    """How many processes of that name were charged their CPU since the last drain."""
    rows = (source._map(name).lookup(comm.ljust(16, b"\0")) for name in ("comms_a", "comms_b"))
    at = CommRow.cpu_recorded.offset
    return sum(int.from_bytes(row[at : at + 8], "little") for row in rows if row is not None)


def charged_for(source: EbpfSource, comm: bytes, used_ns: int) -> ProcessCounts:
    """Wait for the CPU of all processes of a name. Each has its own, or is counted among those whose release the kernel did not tell of."""
    ends = sum(source.peek().of(COMM).row(comm).exits)
    charged = until(lambda: charges(source, comm), lambda n: n >= ends, CHARGED_SECONDS)
    mine = source.peek().of(COMM).row(comm)
    assert charged <= ends
    if charged == ends:
        assert mine.cpu_ns == pytest.approx(used_ns, rel=0.01)
    else:
        assert mine.cpu_ns <= used_ns * 1.01
        assert _audited(source, ends - charged)
    return mine


def _audited(source: EbpfSource, losses: int) -> bool:
    """Whether the audit finds as many. It needs a second or two of rest, which other processes may not give it at once."""

    def found() -> int:
        source.swap_maps({})
        time.sleep(0.1)
        return source.peek().lost.get(Lost.CPU_NEVER_CAME, 0)

    return until(found, lambda lost: lost >= losses) >= losses
