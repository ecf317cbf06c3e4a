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
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench.exporter import Running, running
from bench.workloads import built
from exporter.model.dimensions import BY_ORIGIN

_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
_BPFTRACE = """
tracepoint:sched:sched_process_fork { @s[args->child_pid] = nsecs; }
tracepoint:sched:sched_process_exit /@s[pid]/ { @h[comm] = hist(nsecs - @s[pid]); delete(@s[pid]); }
"""
_ROUNDS = 5


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


def _config(directory: Path, name: str, *, origins: bool, records: bool) -> str:
    """Write a configuration, and return the argument that selects it."""
    switched_off = dict.fromkeys((each.cap.partition(".")[2] for each in BY_ORIGIN), 0)
    path = directory / f"{name.replace(' ', '-')}.yml"
    directory.chmod(0o755)  # the exporter gives up root
    path.write_text(json.dumps(({} if origins else {"attribution": switched_off}) | ({} if records else {"records": {"capacity": 0}})))
    return f"--config.file={path}"


def main() -> None:
    """Print nanoseconds a process for both, and the ratio: the median of the rounds, with and without what can be switched off."""
    variants = {
        "all defaults": {"origins": True, "records": True},
        "without records": {"origins": True, "records": False},
        "without attribution": {"origins": False, "records": True},
        "without both": {"origins": False, "records": False},
    }
    storms = (("fork+exec", 3000, ["forkexec", 3000]), ("vfork+exit", 10000, ["vfork", 10000]))
    ratios: dict[tuple[str, str], list[float]] = {}
    detail: dict[tuple[str, str], str] = {}
    with TemporaryDirectory() as directory, statistics(), built() as workload, _bpftrace() as bpftrace:
        for _ in range(_ROUNDS):
            for name, switches in variants.items():
                with running("--mode=ebpf_core", _config(Path(directory), name, **switches)) as exporter:
                    for title, n, arguments in storms:
                        before, theirs_before = exporter_ns(exporter), _bpftrace_ns(bpftrace)
                        workload.run(*arguments, *([workload.tiny] if title == "fork+exec" else []))
                        time.sleep(1)
                        after, theirs = exporter_ns(exporter), (_bpftrace_ns(bpftrace) - theirs_before) / n
                        parts = {program: (after[program] - before.get(program, 0)) / n for program in after}
                        ratios.setdefault((name, title), []).append(sum(parts.values()) / theirs)
                        spelt = ", ".join(f"{program} {ns:.0f}" for program, ns in sorted(parts.items()) if ns >= 1)
                        detail[name, title] = f"{sum(parts.values()):.0f} ns a process, bpftrace {theirs:.0f} ({spelt})"
    for (name, title), each in ratios.items():
        print(f"{name}, {title}: {median(each):.2f} times bpftrace, {min(each):.2f} to {max(each):.2f}; last {detail[name, title]}")


if __name__ == "__main__":
    main()
