"""The scan modes on the real `/proc`, with children of our own; run as root or not, on a machine where other work goes on."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.kernel.procfs import Procfs
from exporter.model import NS, Lost, Outcome, RuntimeScale
from exporter.model.counts import Counts
from exporter.model.dimensions import COMM
from exporter.sources.base import Source
from exporter.sources.scan.fast import FastScanSource
from exporter.sources.scan.slow import ScanSource
from tests.system_calls import EXIT

SCALE = RuntimeScale(NS, (NS // 1000, NS // 100, NS // 10, NS))
PR_SET_NAME = 15
WAIT_SECONDS = 10

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs procfs at /proc")


@pytest.fixture
def procfs() -> Iterator[Procfs]:
    procfs = Procfs()
    yield procfs
    procfs.close()


@pytest.fixture
def fast(procfs: Procfs) -> Iterator[FastScanSource]:
    source = FastScanSource(SCALE, procfs)
    source.start()
    yield source
    source.stop()


def child(comm: bytes, seconds: float) -> int:
    """Fork a child that renames itself, lives that long and exits."""
    libc = ctypes.CDLL(None)
    pid = os.fork()
    if pid == 0:
        libc.prctl(PR_SET_NAME, comm, 0, 0, 0)
        time.sleep(seconds)
        os._exit(0)
    return pid


def until(source: Source, holds: Callable[[Counts], bool]) -> Counts:
    """Wait for the counts to be so."""
    end = time.monotonic() + WAIT_SECONDS
    while not holds(counts := source.peek()) and time.monotonic() < end:
        time.sleep(0.01)
    assert holds(counts), counts
    return counts


def exits(counts: Counts, comm: bytes) -> int:
    """How many of `comm` ended."""
    return counts.of(COMM).row(comm).exits[Outcome.UNKNOWN.position]


def test_fast_scan_names_and_times_short_lives(fast: FastScanSource) -> None:
    """The whole point: lives far under a second, by name, without privilege."""
    for _ in range(20):
        os.waitpid(child(b"t-fast-short", 0.05), 0)
    counts = until(fast, lambda counts: exits(counts, b"t-fast-short") >= 15)
    mine = counts.of(COMM).row(b"t-fast-short")
    assert mine.exits[Outcome.UNKNOWN.position] <= 20
    assert 0.02 < mine.runtime_ns / NS / mine.exits[Outcome.UNKNOWN.position] < 0.2
    assert fast.clones() >= 15


def test_fast_scan_sees_threads_once(fast: FastScanSource, procfs: Procfs) -> None:
    """Seen threads are clones; nothing may be seen more often than the kernel made it."""
    before = procfs.kernel_clones() or 0
    seen = fast.clones()
    leave = threading.Event()
    threads = [threading.Thread(target=leave.wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    counts = until(fast, lambda counts: counts.threads >= 15)
    leave.set()
    for thread in threads:
        thread.join()
    time.sleep(0.3)
    assert counts.threads >= 15
    assert fast.clones() - seen <= (procfs.kernel_clones() or 0) - before + 2


def test_fast_scan_a_zombie_ends_once(fast: FastScanSource) -> None:
    """Not reaping does not delay the end, and reaping does not repeat it."""
    pid = child(b"t-zombie", 0.03)
    until(fast, lambda counts: exits(counts, b"t-zombie") == 1)
    time.sleep(0.3)
    os.waitpid(pid, 0)
    time.sleep(0.3)
    assert exits(fast.drain(), b"t-zombie") == 1


def test_fast_scan_leader_leaves_first(fast: FastScanSource) -> None:
    """A process lives until its last thread has left."""
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_NAME, b"t-leader-left", 0, 0, 0)
        threading.Thread(target=time.sleep, args=(0.6,)).start()
        libc.syscall(EXIT, 0)  # this thread only
    until(fast, lambda counts: exits(counts, b"t-leader-left") == 1)
    assert time.monotonic() - begun > 0.4
    os.waitpid(pid, 0)


def test_proc_inotify_is_tried(fast: FastScanSource) -> None:
    """It was asked for; no kernel is known where it reports anything, and this says so of the running one."""
    if fast.proc_inotify_fires is None:
        pytest.skip("no inotify instance to be had")
    assert fast.proc_inotify_fires is False


def test_fast_scan_ends_without_pidfd(monkeypatch: pytest.MonkeyPatch, procfs: Procfs) -> None:
    """Before Linux 5.3 the listing and the young one's looks tell the end."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    source = FastScanSource(SCALE, procfs)
    source.start()
    try:
        for _ in range(5):
            os.waitpid(child(b"t-no-pidfd", 0.1), 0)
        until(source, lambda counts: exits(counts, b"t-no-pidfd") >= 4)
    finally:
        source.stop()


def test_scan_sees_what_lives_long_enough(procfs: Procfs) -> None:
    """With a look each 100 ms, half a second can't be missed."""
    pytest.importorskip("psutil")
    source = ScanSource(SCALE, procfs, NS // 10)
    source.start()
    try:
        os.waitpid(child(b"t-scan", 0.5), 0)
        mine = until(source, lambda counts: exits(counts, b"t-scan") == 1).of(COMM).row(b"t-scan")
        assert mine.short_exits == 1
        assert 0.3 < mine.runtime_ns / NS < 0.9
    finally:
        source.stop()


def test_scan_says_what_it_missed(procfs: Procfs) -> None:
    """Lives between two looks are missed, and the kernel's own count shows how many."""
    pytest.importorskip("psutil")
    if not procfs.in_initial_pid_namespace():
        pytest.skip("in a pid namespace the kernel's count is not of the processes seen")
    source = ScanSource(SCALE, procfs, NS // 2)
    source.start()
    try:
        time.sleep(0.1)
        for _ in range(200):
            os.waitpid(child(b"t-missed", 0), 0)
        until(source, lambda counts: sum(counts.lost.get(each, 0) for each in (Lost.UNSEEN, Lost.VANISHED)) + counts.forks >= 200)
    finally:
        source.stop()
