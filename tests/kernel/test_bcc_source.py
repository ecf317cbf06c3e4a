"""What `ebpf_bcc` does beyond counting: processes that were there before it, switches, drains, and what it leaves behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from exporter.kernel.procfs import Procfs
from exporter.loaders import bcc
from exporter.loaders.bcc import load_bcc
from exporter.model import NS, Lost, ModeUnavailable, RuntimeScale
from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import COMM
from tests.kernel.bcc_watching import needs_bcc, watching_bcc
from tests.kernel.programs import SCALE, Program, descriptors
from tests.origins import short_children

pytestmark = needs_bcc

CHECKOUT = Path(__file__).parents[2]
TICK_NS = NS // os.sysconf("SC_CLK_TCK")


@contextmanager
def _waiting(code: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has said that it is ready, and goes on when its input ends."""
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child


@pytest.mark.parametrize("force_guard", [False, True], ids=["group_dead", "counted"])
def test_processes_from_before(force_guard: bool) -> None:
    """Who lived already ends under the right name, with its true runtime, and is the parent of its children."""
    code = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode())
print(flush=True)
sys.stdin.read()
if os.fork() == 0:
    os._exit(0)
os.wait()
os._exit(0)
"""
    name = f"before-{os.getpid()}"
    began = time.monotonic_ns()
    with _waiting(code, name) as child:
        time.sleep(0.3)
        with watching_bcc(RuntimeScale(600 * NS, SCALE.bounds_ns), force_guard=force_guard) as source:
            attached = time.monotonic_ns()
            child.communicate()
            took = time.monotonic_ns() - began
            counts, children = source.peek(), short_children(source)
    mine = counts.of(COMM).row(name.encode())
    assert mine.exits == [0, 0, 0, 2]
    assert mine.short_exits == 2
    assert children[name.encode()] == 1
    assert children[Path("/proc/self/comm").read_bytes().rstrip(b"\n")] >= 1
    assert attached - began - NS // 10 <= mine.runtime_ns <= 2 * took + TICK_NS


def test_threads_from_before() -> None:
    """Where threads are counted, those that were there are too, whatever came and went then: a wrong count, and no end is seen."""
    code = """
import ctypes, sys, threading, time
ctypes.CDLL(None).prctl(15, sys.argv[1].encode())
def churn():
    while not stop.wait(0.03):
        thread = threading.Thread(target=time.sleep, args=(0.03,))
        thread.start()
        thread.join()
stop = threading.Event()
threads = [threading.Thread(target=stop.wait) for _ in range(20)] + [threading.Thread(target=churn) for _ in range(2)]
for each in threads: each.start()
print(flush=True)
sys.stdin.read()
stop.set()
"""
    name = f"churn-{os.getpid()}"
    with ExitStack() as stack:
        children = [stack.enter_context(_waiting(code, name)) for _ in range(3)]
        log: list[str] = []
        source = stack.enter_context(watching_bcc(force_guard=True, on_log=log.append))
        assert source.peek().of(COMM).row(name.encode()).exits == [0, 0, 0, 0]
        for child in children:
            child.communicate()
        mine = source.peek().of(COMM).row(name.encode())
    if any("too quickly" in line for line in log):
        pytest.skip("this machine is too slow to see a process between two changes of its threads")
    assert mine.exits == [0, 0, 0, 3]


@pytest.mark.alone
@pytest.mark.parametrize("force_guard", [False, True], ids=["group_dead", "counted"])
def test_no_birth_stays_behind(workload: Program, force_guard: bool) -> None:
    """Births that nobody deletes would fill the map; it holds who lives, whatever ended while it was filled."""
    stop = threading.Event()
    storm = threading.Thread(target=lambda: [workload.storm("vfork", 200) for _ in iter(stop.is_set, True)])
    storm.start()
    try:
        handover = load_bcc(SCALE, lambda line: None, force_guard=force_guard)
    finally:
        stop.set()
        storm.join()
    try:
        procfs = Procfs()
        before = set(procfs.pids())
        births = {int.from_bytes(key, "little") for key in handover.maps["live_processes"].read().keys}
        after = set(procfs.pids())
        zombies = {pid for pid in before if getattr(procfs.stat(pid), "ended", True)}
        assert (before & after) - zombies - births == set()
        assert births - before - after == set()
    finally:
        handover.close()


def test_standby_counts_nothing(workload: Program) -> None:
    """Until a moment of the clock; and from another one on again."""
    with watching_bcc(standby=True) as source:
        workload.storm("end", 50, 0)
        assert source.peek().total == ProcessCounts(buckets=[0] * (len(SCALE.bounds_ns) + 1))
        assert source.clones() == 0
        source.count_from(time.monotonic_ns())
        workload.storm("end", 20, 0)
        source.count_until(time.monotonic_ns())
        workload.storm("end", 10, 0)
        counts = source.peek()
        assert counts.of(COMM).row(workload.comm).exits == [0, 0, 0, 21]
        assert counts.of(COMM).row(workload.comm).execs == 1
        assert counts.forks + counts.threads == source.clones() >= 21


def test_nothing_of_bcc_stays(workload: Program) -> None:
    """Compiler and interpreter are gone when it is ready; after it was stopped all descriptors, but not what it had counted."""
    before = descriptors()
    with watching_bcc() as source:
        assert psutil.Process().children() == []
        workload.storm("end", 20, 0)
        assert source.peek().of(COMM).row(workload.comm).exits == [0, 0, 0, 21]
        source.stop()
        workload.storm("end", 20, 0)
        assert source.drain().of(COMM).row(workload.comm).exits == [0, 0, 0, 21], "what was counted until then, and nothing after"
    assert descriptors() == before
    maps = Path("/proc/self/maps").read_text()
    assert "libbcc" not in maps
    assert "LLVM" not in maps


@pytest.mark.alone
def test_a_drain_loses_nothing(workload: Program) -> None:
    """Maps are swapped and emptied in the middle of a storm, and each end is in one drain."""
    with watching_bcc() as source:
        storm = threading.Thread(target=workload.storm, args=("vfork", 5000))
        storm.start()
        seen = []
        while storm.is_alive():
            source._swapped_ns = 0
            source.swap_maps({})
            seen.append(source.drain())
        source.stop()
        seen.append(source.drain())
    assert sum(sum(each.of(COMM).row(workload.comm).exits) for each in seen) == 5001
    assert sum(sum(each.of(COMM).row(workload.comm).lifetimes.values()) for each in seen) == 5001
    assert sum(each.lost.get(Lost.PROGRAM_MISSED, 0) for each in seen) == 0
    assert len(seen) > 5


def test_a_serving_process_stays_small(record_property: Callable[[str, object], None]) -> None:
    """Nothing that compiling takes is left: at most 35 MiB with all that serving needs."""
    code = """
import exporter.app, exporter.metrics.exposition, time
from exporter.loaders.bcc import load_bcc
from exporter.model import RuntimeScale
began = time.monotonic()
handover = load_bcc(RuntimeScale(1, (1,)), print)
ready = time.monotonic() - began
rss = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(rss, ready)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    rss_kib, ready_seconds = result.stdout.splitlines()[-1].split()
    record_property("rss_mib", int(rss_kib) / 1024)
    record_property("ready_seconds", float(ready_seconds))
    assert int(rss_kib) <= 35 * 1024


def test_tracefs_is_mounted_for_the_loader_alone() -> None:
    """Where it is not mounted the loader does so, says so, and nobody else sees it."""
    code = """
import subprocess, sys
from exporter.loaders.bcc import load_bcc
from exporter.model import RuntimeScale
load_bcc(RuntimeScale(1, (1,)), lambda line: print(line))
print(open("/proc/self/mounts").read().count("tracefs"))
"""
    script = 'umount -a -t tracefs; grep -q tracefs /proc/self/mounts && exit 77; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "-", sys.executable, "-c", code]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if result.returncode == 77:
        pytest.skip("tracefs can't be unmounted here")
    said, mounts = result.stdout.splitlines()
    assert said == "note: tracefs is not mounted: mounting it at /sys/kernel/tracing in the namespace of the loader"
    assert mounts == "0"


def test_source_that_does_not_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One sentence for a person; the compiler's messages go to the log."""
    shutil.copytree(CHECKOUT / "bpf", tmp_path, dirs_exist_ok=True)
    (tmp_path / "lifecycle.bcc.c").write_text("this is no C\n")
    monkeypatch.setattr(bcc, "PLACES", (tmp_path,))
    log: list[str] = []
    before = descriptors()
    with pytest.raises(ModeUnavailable, match=r"bcc cannot compile the programs \(.*\): --log\.level=debug shows"):
        load_bcc(SCALE, log.append)
    assert any("error:" in line for line in log)
    assert descriptors() == before


def test_the_verifier_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its log is many lines, so it goes to the debug log, and the sentence says so."""
    shutil.copytree(CHECKOUT / "bpf", tmp_path, dirs_exist_ok=True)
    source = (CHECKOUT / "bpf" / "lifecycle.bcc.c").read_text()
    (tmp_path / "lifecycle.bcc.c").write_text(source.replace("u32 number = ctx->args[0];", "u32 number = *(u32 *)ctx->args[0];"))
    monkeypatch.setattr(bcc, "PLACES", (tmp_path,))
    log: list[str] = []
    with pytest.raises(ModeUnavailable, match=r"bcc cannot load the programs"):
        load_bcc(SCALE, log.append)
    assert any("on_signal" in line for line in log)


def test_more_processes_than_births_have_room_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workload: Program) -> None:
    """They are not counted, and that is said: of those from before in the log, of new ones as lost."""
    shutil.copytree(CHECKOUT / "bpf", tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "live_processes.bcc.c").read_text()
    (tmp_path / "live_processes.bcc.c").write_text(text.replace("#define MAX_LIVE_PROCESSES 65536", "#define MAX_LIVE_PROCESSES 4"))
    monkeypatch.setattr(bcc, "PLACES", (tmp_path,))
    log: list[str] = []
    with watching_bcc(on_log=log.append) as source:
        workload.storm("end", 20, 0)
        counts = source.peek()
    assert any("do not fit into the map" in line for line in log)
    assert counts.lost[Lost.LIVE_PROCESSES_FULL] + sum(counts.of(COMM).row(workload.comm).exits) >= 21
    assert counts.lost[Lost.LIVE_PROCESSES_FULL] >= 10


def test_the_loader_hangs() -> None:
    """It is killed, and nothing of it stays."""
    before = descriptors()
    with pytest.raises(ModeUnavailable, match=r"did not answer within 0\.001 s"):
        load_bcc(SCALE, lambda line: None, timeout=0.001)
    assert psutil.Process().children() == []
    assert descriptors() == before


def test_an_interpreter_without_bcc() -> None:
    """A configured path is the only one that is tried."""
    with pytest.raises(ModeUnavailable, match=r"^/bin/false has no bcc, or is older than Python 3\.9: change "):
        load_bcc(SCALE, lambda line: None, interpreter="/bin/false")


def test_a_kernel_that_does_not_tell_whom_it_renames() -> None:
    """Who names itself is known all the same, and a thread's own name is not the process's."""
    name = f"self-{os.getpid()}"
    code = """
import ctypes, sys, threading
rename = lambda name: ctypes.CDLL(None).prctl(15, name.encode())
rename(sys.argv[1])
thread = threading.Thread(target=rename, args=("a thread's",))
thread.start()
thread.join()
"""
    with watching_bcc(use_rename_pid=False) as source:
        assert "on_own_rename" in source._kernel.programs
        for _ in range(3):
            subprocess.run([sys.executable, "-c", code, name], check=True)
        counts = source.peek()
    assert counts.of(COMM).row(name.encode()).exits == [0, 0, 0, 3]
    assert b"a thread's" not in counts.of(COMM).rows
