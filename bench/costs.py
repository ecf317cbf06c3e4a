"""What all BPF programs together cost for a process, beside bpftrace's histogram of lifetimes, in one run.

The kernel measures both (`kernel.bpf_stats_enabled`), while the same processes start and end under both. What bpftrace counts is less: no
threads, no outcome, no CPU, no names of parents, and a process that was there before is missed.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.exporter import Running, running
from bench.workloads import built

_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
_BPFTRACE = """
tracepoint:sched:sched_process_fork { @s[args->child_pid] = nsecs; }
tracepoint:sched:sched_process_exit /@s[pid]/ { @h[comm] = hist(nsecs - @s[pid]); delete(@s[pid]); }
"""
_ROUNDS = 3


@contextmanager
def statistics() -> Iterator[None]:
    """Have the kernel measure its programs."""
    before = _STATS.read_text()
    _STATS.write_text("1")
    try:
        yield
    finally:
        _STATS.write_text(before)


@contextmanager
def _bpftrace() -> Iterator[set[int]]:
    """Run it, and give the numbers of its programs."""
    others = set(_programs())
    child = subprocess.Popen(["bpftrace", "-e", _BPFTRACE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            time.sleep(0.2)
            mine = {number for number, program in _programs().items() if program.get("name", "").startswith("sched_process_")} - others
            if len(mine) == 2:
                break
        else:
            raise SystemExit("bpftrace does not attach here (it needs tracefs)")
        time.sleep(1)
        yield mine
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(30)


def _programs() -> dict[int, dict[str, Any]]:
    listing = subprocess.run(["bpftool", "--json", "prog", "show"], check=True, capture_output=True, text=True).stdout
    return {each["id"]: each for each in json.loads(listing)}


def _bpftrace_ns(numbers: set[int]) -> int:
    """Nanoseconds that these programs took so far."""
    return sum(each.get("run_time_ns", 0) for number, each in _programs().items() if number in numbers)


def exporter_ns(exporter: Running) -> dict[str, float]:
    """Nanoseconds that each of the exporter's programs took so far, as it says itself."""
    samples = exporter.samples().items()
    return {dict(labels)["program"]: value * 1e9 for (name, labels), value in samples if name == "shortproc_bpf_program_run_seconds_total"}


def main() -> None:
    """Print nanoseconds a process for both, and the ratio."""
    with statistics(), built() as workload, running("--mode=ebpf_core") as exporter, _bpftrace() as bpftrace:
        for title, n, arguments in (("fork+exec", 5000, ["forkexec", 5000, workload.tiny]), ("vfork+exit", 20000, ["vfork", 20000])):
            for number in range(_ROUNDS):
                before, theirs_before = exporter_ns(exporter), _bpftrace_ns(bpftrace)
                workload.run(*arguments)
                time.sleep(1)
                after, theirs = exporter_ns(exporter), (_bpftrace_ns(bpftrace) - theirs_before) / n
                parts = {program: (after[program] - before.get(program, 0)) / n for program in after}
                ours = sum(parts.values())
                detail = ", ".join(f"{program} {ns:.0f}" for program, ns in sorted(parts.items()))
                print(f"{title}, round {number + 1}: {ours:.0f} ns a process, bpftrace {theirs:.0f}: {ours / theirs:.2f} times ({detail})")


if __name__ == "__main__":
    main()
