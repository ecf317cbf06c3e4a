"""The mode `netlink` on the real kernel: the truth is what the workloads did and what getrusage says."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from exporter.kernel import taskstats
from exporter.kernel.procfs import Procfs
from exporter.model import NS, UNKNOWN_COMM, Lost, Outcome
from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import COMM
from exporter.sources.base import Source
from exporter.sources.netlink import source as netlink
from exporter.sources.netlink.source import NetlinkSource
from tests.kernel.netlink_watching import following, needs_netlink, settled
from tests.kernel.programs import Program, ended, named, until, watching
from tests.origins import short_children

pytestmark = needs_netlink

OK, ERROR, SIGNAL, _ = Outcome
OUTCOMES = list(Outcome)


@pytest.fixture(params=["taskstats", "events"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[NetlinkSource]:
    """With taskstats, and with the proc connector alone."""
    if request.param == "events":
        monkeypatch.setattr(taskstats.Registration, "open", not_permitted)
    with following() as source:
        if request.param == "taskstats" and not source._groups.taskstats:
            pytest.skip(source.about())
        yield source


@pytest.fixture
def with_taskstats() -> Iterator[NetlinkSource]:
    with following() as source:
        if not source._groups.taskstats:
            pytest.skip(source.about())
        yield source


def not_permitted(_: int) -> None:
    raise PermissionError(1, "Operation not permitted")


def exits(counts: ProcessCounts, outcome: Outcome = OK) -> int:
    return counts.exits[OUTCOMES.index(outcome)]


@pytest.mark.alone
def test_every_fork_and_exec_is_named(with_taskstats: NetlinkSource, workload: Program, nothing: Program) -> None:
    """The mode's promise to root, at full speed."""
    workload.storm("forkexec", 4_000, nothing.path)
    counts = settled(with_taskstats, nothing, 4_000)
    mine = counts.of(COMM).row(nothing.comm)
    assert mine.exits == [4_000, 0, 0, 0]
    assert mine.execs == 4_000
    assert short_children(with_taskstats)[workload.comm] >= 4_000
    assert not {Lost.OVERRUN, Lost.MALFORMED} & counts.lost.keys()
    assert mine.buckets[0] + mine.buckets[1] > 3_600


def test_cpu_is_that_of_all_threads(with_taskstats: NetlinkSource, workload: Program) -> None:
    """Against getrusage, loosely: the kernel samples it at its ticks, and beside other work half of them may be charged to that."""
    result = workload.storm("burn", 20, 20, 4)
    mine = settled(with_taskstats, workload, 21).of(COMM).row(workload.comm)
    assert 0.2 < mine.cpu_ns / result.cpu_ns < 1.3


@pytest.mark.alone
def test_no_exit_is_lost_at_full_speed(source: NetlinkSource, workload: Program) -> None:
    """Twenty thousand lives of some 40 us each."""
    workload.storm("vfork", 20_000)
    counts = settled(source, workload, 20_001)
    assert counts.of(COMM).row(workload.comm).exits == [20_001, 0, 0, 0]
    assert counts.forks >= 20_001
    assert not {Lost.OVERRUN, Lost.MALFORMED} & counts.lost.keys()


@pytest.mark.parametrize("how", ["together", "scatter"])
def test_threads_that_leave_at_once_are_one_end(source: NetlinkSource, workload: Program, how: str) -> None:
    """Each thread has an exit event, and any of them may be the last."""
    workload.storm(how, 300, 8)
    counts = settled(source, workload, 301)
    time.sleep(0.1)
    counts = source.peek()
    assert counts.of(COMM).row(workload.comm).exits == [301, 0, 0, 0]
    assert counts.threads >= 300 * 7
    assert len([group for group in source._groups.alive.values() if group.comm == workload.comm]) == 0


@pytest.fixture
def dumping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs started now may dump core, here."""
    monkeypatch.chdir(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, limits)


def about_to_dump(workload: Program, threads: int) -> tuple[int, psutil.Process]:
    """A process with all its threads that is stopped before it dumps core, behind its parent, which waits for it."""
    parent = workload.start("dump", 1, threads, 2000)
    (child,) = until(psutil.Process(parent).children, bool)
    assert until(child.num_threads, lambda n: n == threads) == threads
    child.suspend()
    return parent, child


def test_core_dumps_of_many_threads(source: NetlinkSource, workload: Program, dumping: None, requires_bpf: None) -> None:
    """Whichever thread it is that dumps, and whether the process is older than the mode; `ebpf_core` has it from the process as a whole."""
    if workload.run("dump", 1, 2, 0).status:
        pytest.skip("this machine writes no core dumps")
    old = [about_to_dump(workload, threads) for threads in (2, 8, 32)]

    def signalled(source: Source) -> int:
        return exits(source.peek().of(COMM).row(workload.comm), SIGNAL)

    until(partial(signalled, source), lambda n: n == 1)
    with watching() as truth, following() as late:
        before = [each.peek().core_dumps for each in (truth, source, late)]
        for parent, child in old:  # in turn: they write one file
            child.resume()
            assert ended(parent).status == 0
        workload.storm("dump", 20, 8, 0)
        for each, dumps in zip((truth, source, late), before, strict=True):
            aborted = 23 + (each is source)
            assert until(partial(signalled, each), aborted.__le__) == aborted
            assert each.peek().core_dumps - dumps == 23


def test_leader_leaves_first(source: NetlinkSource, workload: Program) -> None:
    """The end is the last thread's, in time and in code."""
    workload.storm("leader", 40, 30, 7)
    mine = settled(source, workload, 41).of(COMM).row(workload.comm)
    assert exits(mine, ERROR) == 40
    assert exits(mine) == 1
    assert mine.runtime_ns > 40 * 25 * NS // 1000


def test_outcomes(source: NetlinkSource, workload: Program) -> None:
    """As wait(2) has them; SIGKILL from the exit code."""
    workload.storm("end", 30, 3)
    workload.storm("kill", 20, signal.SIGTERM)
    workload.storm("kill", 10, signal.SIGKILL)
    counts = settled(source, workload, 63)
    mine = counts.of(COMM).row(workload.comm).exits
    assert mine[1:] == [30, 30, 0]
    assert mine[0] + counts.lost.get(Lost.NAME_RACE, 0) >= 3, "the storms themselves, whose names may have been read too late"
    assert counts.signals[signal.SIGKILL] >= 10


def test_exec_in_another_thread_than_the_leader(source: NetlinkSource, nothing: Program, tmp_path: Path) -> None:
    """The kernel gives that thread the leader's id (`de_thread`): one process, one end."""
    script = f"import os, threading, time; threading.Thread(target=os.execv, args=({str(nothing.path)!r}, ['x'])).start(); time.sleep(9)"
    for _ in range(20):
        subprocess.run([sys.executable, "-c", script], check=True)
    time.sleep(0.2)
    counts = source.peek()
    names = counts.of(COMM).row(nothing.comm).exits[0] + counts.of(COMM).row(UNKNOWN_COMM).exits[0]
    assert names >= 20
    assert counts.of(COMM).row(nothing.comm).exits[0] <= 20
    if source._groups.taskstats:
        assert counts.of(COMM).row(nothing.comm).exits[0] == 20
        assert counts.of(COMM).row(nothing.comm).execs >= 20


def test_exec_chain(source: NetlinkSource, workload: Program, nothing: Program) -> None:
    """An exec is no end, and each one counts."""
    workload.storm("chain", 100, nothing.path)
    settled(source, workload, 1)
    counts = until(source.peek, lambda counts: counts.total.execs >= 301 and counts.total.exits[0] >= 101)
    assert sum(counts.of(COMM).row(name).execs for name in (nothing.comm, b"exe", UNKNOWN_COMM)) >= 300
    assert counts.of(COMM).row(nothing.comm).exits[0] <= 100
    if source._groups.taskstats:
        assert counts.of(COMM).row(nothing.comm).exits == [100, 0, 0, 0]


def test_io_workers_are_clones(source: NetlinkSource, workload: Program) -> None:
    """The kernel counts them, and the connector tells of them: the capture ratio must not suffer."""
    probe = workload.run("uring", 1)
    if probe.status:
        pytest.skip("no io_uring here")
    before = settled(source, workload, 2).threads
    workload.storm("uring", 20)
    assert settled(source, workload, 23).threads >= before + 20


def test_clones_are_the_kernels(source: NetlinkSource, workload: Program) -> None:
    """Otherwise the ratio that it publishes would be about something else."""
    procfs = Procfs()

    def ahead() -> int:
        before = procfs.kernel_clones() or 0
        time.sleep(0.1)
        return before - source.clones() if before == procfs.kernel_clones() else -1

    offset = until(ahead, lambda n: n >= 0)
    workload.storm("together", 50, 4)
    workload.storm("forkexec", 100, workload.path)
    assert until(ahead, lambda n: n == offset) == offset


def test_exec_of_a_process_that_lives_on(source: NetlinkSource, workload: Program) -> None:
    """Its exec must not wait for its end."""
    pid = workload.start("leader", 1, 600, 0)
    try:
        counts = until(source.peek, lambda counts: counts.of(COMM).row(workload.comm).execs == 1, seconds=0.5)
        assert counts.of(COMM).row(workload.comm).execs == 1
    finally:
        os.waitpid(pid, 0)


def test_a_process_that_was_there_before(workload: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end counts, though its fork was never told: it is found by looking again, here soon."""
    monkeypatch.setattr(netlink, "RECONCILE_NS", NS // 5)
    pid = workload.start("leader", 1, 400, 5)
    time.sleep(0.1)
    with following() as source:
        os.waitpid(pid, 0)
        mine = settled(source, workload, 2).of(COMM).row(workload.comm)
        assert mine.exits == [1, 1, 0, 0]
        assert mine.execs == 0
        assert mine.runtime_ns > 2 * 350 * NS // 1000


def test_totals_add_up(source: NetlinkSource, workload: Program) -> None:
    """What is by name sums up to the whole."""
    workload.storm("comms", 90)
    settled(source, workload, 1)
    counts = source.peek()
    assert named(counts).exits == counts.total.exits
    assert named(counts).execs == counts.total.execs
