"""The mode `netlink` on the real kernel where something is lost, ends, is replaced or refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exporter.kernel import netlink_sockets
from exporter.kernel.procfs import Procfs
from exporter.model import Lost, ModeUnavailable, SourceFailed
from exporter.model.dimensions import COMM
from exporter.sources.netlink.source import NetlinkSource
from tests.kernel.netlink_watching import following, needs_netlink, settled
from tests.kernel.programs import SCALE, Program, descriptors, until

pytestmark = needs_netlink

CHECKOUT = Path(__file__).parents[2]

WATCHER = """
import json, subprocess, sys, time
from exporter.model import Lost, RuntimeScale, NS
from exporter.model.dimensions import COMM
from exporter.sources.netlink.source import NetlinkSource
from exporter.kernel.procfs import Procfs
source = NetlinkSource(RuntimeScale(NS, (NS,)), Procfs())
source.start()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
source.stop()
counts = source.drain()
comms = {comm.decode(): [sum(each.exits), each.execs] for comm, each in counts.of(COMM).rows.items()}
lost = {reason: n for reason, n in counts.lost.items()}
print(json.dumps({"exits": sum(counts.total.exits), "comms": comms, "lost": lost, "forks": counts.forks,
    "threads": counts.threads, "runtime_ns": counts.total.runtime_ns, "about": source.about()}))
"""


@pytest.mark.alone
def test_overrun_is_counted_and_recovered_from(monkeypatch: pytest.MonkeyPatch, workload: Program, nothing: Program) -> None:
    """An exporter that did not get to run says what it missed, and holds nothing of it."""
    monkeypatch.setattr(netlink_sockets, "BUFFER_BYTES", 1 << 20)
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
        counts = until(source.peek, lambda counts: sum(counts.of(COMM).row(nothing.comm).exits) >= 100)
        assert counts.of(COMM).row(nothing.comm).exits == [100, 0, 0, 0]

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
    read, over = source._events.read, threading.Event()

    def read_later(sock: socket.socket) -> list[int]:
        over.wait()
        return read(sock)

    source._events.read = read_later  # type: ignore[method-assign]
    try:
        yield
    finally:
        over.set()
        source._events.read = read  # type: ignore[method-assign]


@pytest.mark.alone
def test_stop_reads_what_is_waiting(workload: Program) -> None:
    """The supervisor relies on it at a switch: what happened before the stop is counted after it."""
    with following() as source:
        workload.storm("vfork", 3_000)
        source.stop()
        assert source.drain().of(COMM).row(workload.comm).exits[0] == 3_001


def test_nothing_is_left_behind() -> None:
    """Started and stopped often, at each try to climb."""
    with following():
        pass
    before = descriptors()
    for _ in range(3):
        with following():
            pass
    assert descriptors() == before


def test_each_exit_counts_in_one_of_two(workload: Program) -> None:
    """One counts what was before a moment, the other what is from then on, though both are told of everything."""
    with following() as old, following(standby=True) as new:
        workload.storm("end", 20, 0)
        now = time.monotonic_ns()
        new.count_from(now)
        old.count_until(now)
        assert sum(new.peek().total.exits) == 0
        workload.storm("end", 20, 0)
        assert settled(new, workload, 21).of(COMM).row(workload.comm).exits[0] == 21
        old.stop()
        assert old.drain().of(COMM).row(workload.comm).exits[0] == 21


def test_a_dead_socket_is_a_failed_source() -> None:
    """The supervisor must step down, not show a standstill."""
    with following() as source:
        assert source._subscription is not None
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, source._subscription.socket.fileno())
        os.close(nothing)
        with pytest.raises(SourceFailed, match="netlink"):
            until(source.drain, lambda _: False, seconds=3)
    source.drain()


@pytest.mark.alone
def test_an_ordinary_user(nobody: int | None, compiled: Path) -> None:
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
    assert run([workload.path, "vfork", 5_000])["exits"] >= 5_001


def watched(user: int | None) -> Callable[[list[object]], dict[str, Any]]:
    """Run a command beside a source, as a user."""

    def run(command: list[object]) -> dict[str, Any]:
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
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    return run


@pytest.mark.parametrize(
    ("unshared", "reason"), [("--net", "network namespace"), ("--pid --fork --mount-proc", "pid namespace"), ("--user", "user namespace")]
)
def test_refused_in_other_namespaces(unshared: str, reason: str) -> None:
    """There the events are silently absent: the reason must be said before, and by both ways of asking."""
    code = (
        "from exporter.sources.netlink.source import *\nfrom exporter.kernel.netlink_sockets import refusal\nprint(refusal(Procfs()))\n"
        "try: NetlinkSource(RuntimeScale(1, (1,)), Procfs()).start()\nexcept ModeUnavailable as error: print(error)"
    )
    command = ["unshare", *unshared.split(), sys.executable, "-c", code]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(done.stderr)
    first, second = done.stdout.splitlines()
    assert reason in first
    assert reason in second


def test_no_acknowledgement_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events may come without one while others listen, and stop at any time."""
    monkeypatch.setattr("exporter.kernel.proc_connector.acknowledged", lambda *_: None)
    before = descriptors()
    source = NetlinkSource(SCALE, Procfs())
    with pytest.raises(ModeUnavailable, match="acknowledge"):
        source.start()
    assert descriptors() == before
