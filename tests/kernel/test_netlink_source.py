"""The mode `netlink` on the real kernel: the truth is what the workloads did and what getrusage says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from programs import MEASURES, Program, descriptors, named, until

from exporter.model import NS, UNKNOWN_COMM, Counts, Lost, Outcome, ProcessCounts, SourceFailed, Unusable
from exporter.sources import sockets
from exporter.sources.netlink import NetlinkSource
from exporter.sources.procfs import Procfs

CHECKOUT = Path(__file__).parents[2]
OK, ERROR, SIGNAL, _ = Outcome
OUTCOMES = list(Outcome)

WATCHER = """
import json, subprocess, sys, time
from exporter.model import Lost, Measures, NS
from exporter.sources.netlink import NetlinkSource
from exporter.sources.procfs import Procfs
source = NetlinkSource(Measures(NS, (NS,)), Procfs())
source.start()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
source.stop()
counts = source.drain()
comms = {comm.decode(): [sum(each.exits), each.execs] for comm, each in counts.by_comm.items()}
lost = {reason: n for reason, n in counts.lost.items()}
print(json.dumps({"exits": sum(counts.total.exits), "comms": comms, "lost": lost, "forks": counts.forks,
    "threads": counts.threads, "runtime_ns": counts.total.runtime_ns, "about": source.about()}))
"""


@pytest.fixture(scope="module")
def requires_netlink() -> None:
    """Skip where the mode is refused."""
    if reason := sockets.refusal(Procfs()):
        pytest.skip(reason)


@contextmanager
def following(*, quiet: bool = False) -> Iterator[NetlinkSource]:
    source = NetlinkSource(MEASURES, Procfs())
    source.start(quiet=quiet)
    try:
        yield source
    finally:
        source.stop()


@pytest.fixture(params=["taskstats", "events"])
def source(request: pytest.FixtureRequest, requires_netlink: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[NetlinkSource]:
    """With taskstats, and with the proc connector alone."""
    if request.param == "events":
        monkeypatch.setattr(sockets.Registration, "made", not_permitted)
    with following() as source:
        if request.param == "taskstats" and not source._groups.taskstats:
            pytest.skip(source.about())
        yield source


@pytest.fixture
def with_taskstats(requires_netlink: None) -> Iterator[NetlinkSource]:
    with following() as source:
        if not source._groups.taskstats:
            pytest.skip(source.about())
        yield source


def not_permitted(_: int) -> None:
    raise PermissionError(1, "Operation not permitted")


def exits(counts: ProcessCounts, outcome: Outcome = OK) -> int:
    return counts.exits[OUTCOMES.index(outcome)]


def settled(source: NetlinkSource, program: Program, ends: int) -> Counts:
    """The counts once so many ends of a program are in."""
    return until(source.peek, lambda counts: sum(counts.of(program.comm).exits) >= ends)


def test_every_fork_and_exec_is_named(with_taskstats: NetlinkSource, workload: Program, nothing: Program) -> None:
    """The mode's promise to root, at full speed."""
    workload.storm("forkexec", 4_000, nothing.path)
    counts = settled(with_taskstats, nothing, 4_000)
    mine = counts.of(nothing.comm)
    assert mine.exits == [4_000, 0, 0, 0]
    assert mine.execs == 4_000
    assert counts.short_exits_by_parent[workload.comm] >= 4_000
    assert not {Lost.OVERRUN, Lost.MALFORMED} & counts.lost.keys()
    assert mine.buckets[0] + mine.buckets[1] > 3_600


def test_cpu_is_that_of_all_threads(with_taskstats: NetlinkSource, workload: Program) -> None:
    """Against getrusage, loosely: the kernel samples it at its ticks, and beside other work half of them may be charged to that."""
    result = workload.storm("burn", 20, 20, 4)
    mine = settled(with_taskstats, workload, 21).of(workload.comm)
    assert 0.2 < mine.cpu_ns / result.cpu_ns < 1.3


def test_no_exit_is_lost_at_full_speed(source: NetlinkSource, workload: Program) -> None:
    """Twenty thousand lives of some 40 us each."""
    workload.storm("vfork", 20_000)
    counts = settled(source, workload, 20_001)
    assert counts.of(workload.comm).exits == [20_001, 0, 0, 0]
    assert counts.forks >= 20_001
    assert not {Lost.OVERRUN, Lost.MALFORMED} & counts.lost.keys()


@pytest.mark.parametrize("how", ["together", "scatter"])
def test_threads_that_leave_at_once_are_one_end(source: NetlinkSource, workload: Program, how: str) -> None:
    """Each thread has an exit event, and any of them may be the last."""
    workload.storm(how, 300, 8)
    counts = settled(source, workload, 301)
    time.sleep(0.1)
    counts = source.peek()
    assert counts.of(workload.comm).exits == [301, 0, 0, 0]
    assert counts.threads >= 300 * 7
    assert len([group for group in source._groups.alive.values() if group.comm == workload.comm]) == 0


def test_leader_leaves_first(source: NetlinkSource, workload: Program) -> None:
    """The end is the last thread's, in time and in code."""
    workload.storm("leader", 40, 30, 7)
    mine = settled(source, workload, 41).of(workload.comm)
    assert exits(mine, ERROR) == 40
    assert exits(mine) == 1
    assert mine.runtime_ns > 40 * 25 * NS // 1000


def test_outcomes(source: NetlinkSource, workload: Program) -> None:
    """As wait(2) has them; SIGKILL from the exit code."""
    workload.storm("end", 30, 3)
    workload.storm("kill", 20, signal.SIGTERM)
    workload.storm("kill", 10, signal.SIGKILL)
    counts = settled(source, workload, 63)
    mine = counts.of(workload.comm).exits
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
    names = counts.of(nothing.comm).exits[0] + counts.of(UNKNOWN_COMM).exits[0]
    assert names >= 20
    assert counts.of(nothing.comm).exits[0] <= 20
    if source._groups.taskstats:
        assert counts.of(nothing.comm).exits[0] == 20
        assert counts.of(nothing.comm).execs >= 20


def test_exec_chain(source: NetlinkSource, workload: Program, nothing: Program) -> None:
    """An exec is no end, and each one counts."""
    workload.storm("chain", 100, nothing.path)
    settled(source, workload, 1)
    counts = until(source.peek, lambda counts: counts.total.execs >= 301 and counts.total.exits[0] >= 101)
    assert sum(counts.of(name).execs for name in (nothing.comm, b"exe", UNKNOWN_COMM)) >= 300
    assert counts.of(nothing.comm).exits[0] <= 100
    if source._groups.taskstats:
        assert counts.of(nothing.comm).exits == [100, 0, 0, 0]


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
        counts = until(source.peek, lambda counts: counts.of(workload.comm).execs == 1, seconds=0.5)
        assert counts.of(workload.comm).execs == 1
    finally:
        os.waitpid(pid, 0)


def test_a_process_that_was_there_before(requires_netlink: None, workload: Program) -> None:
    """Its end counts, though its fork was never told."""
    pid = workload.start("leader", 1, 400, 5)
    time.sleep(0.1)
    with following() as source:
        os.waitpid(pid, 0)
        mine = settled(source, workload, 2).of(workload.comm)
        assert mine.exits == [1, 1, 0, 0]
        assert mine.execs == 0
        assert mine.runtime_ns > 2 * 350 * NS // 1000


def test_overrun_is_counted_and_recovered_from(
    requires_netlink: None, monkeypatch: pytest.MonkeyPatch, workload: Program, nothing: Program
) -> None:
    """An exporter that did not get to run says what it missed, and holds nothing of it."""
    monkeypatch.setattr(sockets, "BUFFER_BYTES", 1 << 20)
    procfs = Procfs()
    with following() as source:
        before = procfs.kernel_clones() or 0
        stopped = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        with paused(source):
            workload.storm("vfork", 5_000)
            stopped.kill()
            stopped.wait()
        counts = until(source.peek, lambda counts: counts.lost.get(Lost.OVERRUN, 0) > 1_000)
        assert counts.lost[Lost.OVERRUN] > 1_000
        workload.storm("forkexec", 100, nothing.path)
        counts = until(source.peek, lambda counts: sum(counts.of(nothing.comm).exits) >= 100)
        assert counts.of(nothing.comm).exits == [100, 0, 0, 0]

        def unaccounted() -> float:
            time.sleep(0.2)
            cloned = (procfs.kernel_clones() or 0) - before
            return abs(source.clones() + source.peek().lost[Lost.OVERRUN] - cloned) / cloned

        assert until(unaccounted, lambda part: part < 0.01) < 0.01
        later = source.peek()
        assert all(after >= first for first, after in zip(counts.total.exits, later.total.exits, strict=True))
        assert not until(lambda: stopped.pid in source._groups.alive, lambda held: not held), "nothing is held for what is gone"


@contextmanager
def paused(source: NetlinkSource) -> Iterator[None]:
    """Keep the source's thread from reading, as SIGSTOP does."""
    read = source._events.read
    source._events.read = lambda sock: time.sleep(0.01) or []  # type: ignore[method-assign,func-returns-value]
    try:
        yield
    finally:
        source._events.read = read  # type: ignore[method-assign]


def test_stop_reads_what_is_waiting(requires_netlink: None, workload: Program) -> None:
    """The supervisor relies on it at a switch: what happened before the stop is counted after it."""
    with following() as source:
        workload.storm("vfork", 3_000)
        source.stop()
        assert source.drain().of(workload.comm).exits[0] == 3_001


def test_nothing_is_left_behind(requires_netlink: None) -> None:
    """Started and stopped often, at each try to climb."""
    with following():
        pass
    before = descriptors()
    for _ in range(3):
        with following():
            pass
    assert descriptors() == before


def test_quiet_lists_instead_of_counting(requires_netlink: None, workload: Program) -> None:
    """While another source still counts, this one must not; afterwards nothing is counted twice."""
    with following() as old, following(quiet=True) as new:
        old.list_ends(on=True)
        workload.storm("end", 20, 0)
        until(old.listed, lambda ends: sum(end.comm == workload.comm for _, end in ends) >= 21)
        now = time.monotonic_ns()
        old.cut(0, now)
        new.cut(now, 2**64 - 1)
        assert sum(new.peek().total.exits) == 0
        old.stop()
        counted = old.listed()
        listed = new.join(counted)
        assert not [pid for pid, end in listed if end.comm == workload.comm and counted.find(pid, end) is None]
        workload.storm("end", 20, 0)
        assert settled(new, workload, 21).of(workload.comm).exits[0] == 21
        assert old.drain().of(workload.comm).exits[0] == 21


def test_a_dead_socket_is_a_failed_source(requires_netlink: None) -> None:
    """The supervisor must step down, not show a standstill."""
    with following() as source:
        assert source._subscription is not None
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, source._subscription.socket.fileno())
        os.close(nothing)
        with pytest.raises(SourceFailed, match="netlink"):
            until(source.drain, lambda _: False, seconds=3)
    source.drain()


def test_an_ordinary_user(requires_netlink: None, nobody: int | None, compiled: Path) -> None:
    """Every exit counts with its runtime; most are named, and those that aren't say so."""
    run = watched(nobody)
    workload, nothing = (Program.copied(compiled / name, compiled) for name in ("workload", "nothing"))
    try:
        told = run([workload.path, "forkexec", 2000, nothing.path])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this kernel tells an ordinary user nothing: {error.stderr.splitlines()[-1]}")
    comms = told["comms"]
    unknown = comms.get("unknown", [0, 0])
    assert comms[nothing.path.name][0] + unknown[0] >= 2000
    assert comms[nothing.path.name][1] + unknown[1] >= 2000
    assert comms[nothing.path.name][0] >= 1000
    assert told["lost"].get(Lost.NAME_RACE, 0) == unknown[0]
    assert told["runtime_ns"] > 2000 * 50_000
    assert run([workload.path, "vfork", 20_000])["exits"] >= 20_001


def watched(user: int | None) -> Callable[[list[object]], dict[str, dict[str, list[int]]]]:
    """Run a command beside a source, as a user."""

    def run(command: list[object]) -> dict[str, dict[str, list[int]]]:
        arguments = [sys.executable, "-c", WATCHER, *map(str, command)]
        done = subprocess.run(
            arguments,
            cwd=CHECKOUT,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            check=True,
            capture_output=True,
            text=True,
        )
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize(
    ("unshared", "reason"), [("--net", "network namespace"), ("--pid --fork --mount-proc", "pid namespace"), ("--user", "user namespace")]
)
def test_refused_in_other_namespaces(requires_netlink: None, unshared: str, reason: str) -> None:
    """There the events are silently absent: the reason must be said before, and by both ways of asking."""
    code = (
        "from exporter.sources.netlink import *\nfrom exporter.sources.sockets import refusal\nprint(refusal(Procfs()))\n"
        "try: NetlinkSource(Measures(1, (1,)), Procfs()).start()\nexcept Unusable as error: print(error)"
    )
    command = ["unshare", *unshared.split(), sys.executable, "-c", code]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(done.stderr)
    first, second = done.stdout.splitlines()
    assert reason in first
    assert reason in second


def test_no_acknowledgement_is_a_refusal(requires_netlink: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events may come without one while others listen, and stop at any time."""
    monkeypatch.setattr("exporter.sources.connector.acknowledged", lambda *_: None)
    before = descriptors()
    source = NetlinkSource(MEASURES, Procfs())
    with pytest.raises(Unusable, match="acknowledge"):
        source.start()
    assert descriptors() == before


def test_totals_add_up(source: NetlinkSource, workload: Program) -> None:
    """What is by name sums up to the whole."""
    workload.storm("comms", 90)
    settled(source, workload, 1)
    counts = source.peek()
    assert named(counts).exits == counts.total.exits
    assert named(counts).execs == counts.total.execs
