"""What all BPF programs together cost for a process, beside bpftrace's histogram of lifetimes, in one run.

WRITE=1 python -m bench costs    # keeps the result in bench/results

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
from typing import Any, NamedTuple

from bench import results
from bench.exporter import Running, running
from bench.workloads import Workload, built
from exporter.model.dimensions import BY_ORIGIN

_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
LIFETIMES = """
tracepoint:sched:sched_process_fork { @s[args->child_pid] = nsecs; }
tracepoint:sched:sched_process_exit /@s[pid]/ { @h[comm] = hist(nsecs - @s[pid]); delete(@s[pid]); }
"""
"""The histogram of lifetimes by name, as a program of bpftrace."""
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
    others = set(programs())
    child = subprocess.Popen(["bpftrace", "-e", LIFETIMES], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            time.sleep(0.2)
            mine = {number for number, program in programs().items() if program.get("name", "").startswith("sched_process_")} - others
            if len(mine) == 2:
                break
        else:
            raise SystemExit("bpftrace does not attach here (it needs tracefs)")
        time.sleep(1)
        yield mine
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(30)


def programs() -> dict[int, dict[str, Any]]:
    """Return what bpftool tells of each loaded program, by its number."""
    listing = subprocess.run(["bpftool", "--json", "prog", "show"], check=True, capture_output=True, text=True).stdout
    return {each["id"]: each for each in json.loads(listing)}


def run_ns(numbers: set[int]) -> int:
    """Nanoseconds that these programs took so far."""
    return sum(each.get("run_time_ns", 0) for number, each in programs().items() if number in numbers)


def exporter_ns(exporter: Running) -> dict[str, float]:
    """Nanoseconds that each of the exporter's programs took so far, as it says itself."""
    samples = exporter.samples().items()
    return {dict(labels)["program"]: value * 1e9 for (name, labels), value in samples if name == "shortproc_bpf_program_run_seconds_total"}


def storm_ns(exporter: Running, workload: Workload, command: str, processes: int) -> dict[str, float]:
    """Run a storm; the nanoseconds that each of the exporter's programs took for one process."""
    before = exporter_ns(exporter)
    workload.run_storm(command, processes)
    time.sleep(1)
    return {program: (ns - before.get(program, 0)) / processes for program, ns in exporter_ns(exporter).items()}


def _config(directory: Path, name: str, *, origins: bool = True, records: bool = True, arguments: str = "off") -> str:
    """Write a configuration, and return the argument that selects it."""
    switched_off = dict.fromkeys((each.cap.partition(".")[2] for each in BY_ORIGIN), 0)
    path = directory / f"{name.replace(' ', '-')}.yml"
    directory.chmod(0o755)  # the exporter gives up root
    of_records = {"arguments": arguments} | ({} if records else {"capacity": 0})
    path.write_text(json.dumps(({} if origins else {"attribution": switched_off}) | {"records": of_records}))
    return f"--config.file={path}"


DEFAULTS = "all defaults"
_VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULTS: {},
    "without records": {"records": False},
    "without attribution": {"origins": False},
    "without both": {"origins": False, "records": False},
    "with names of arguments": {"arguments": "names"},
    "with full arguments": {"arguments": "full"},
}
_STORMS = {"fork+exec": ("forkexec", 3000), "vfork+exit": ("vfork", 10_000)}


class _Cost(NamedTuple):
    """Of one process in a storm."""

    parts: dict[str, float]
    """Nanoseconds, by program."""
    bpftrace_ns: float
    exporter_ns: float
    """CPU of the exporter itself."""

    @property
    def kernel_ns(self) -> float:
        return sum(self.parts.values())


def _measured(exporter: Running, bpftrace: set[int], workload: Workload, title: str) -> _Cost:
    command, n = _STORMS[title]
    theirs, cpu = run_ns(bpftrace), exporter.cpu_seconds()
    parts = storm_ns(exporter, workload, command, n)
    return _Cost(parts, (run_ns(bpftrace) - theirs) / n, (exporter.cpu_seconds() - cpu) * 1e9 / n)


def main() -> None:
    """Print nanoseconds a process for both, and the ratio: the median of the rounds, with and without what can be switched off."""
    found: dict[tuple[str, str], list[_Cost]] = {(name, title): [] for name in _VARIANTS for title in _STORMS}
    with TemporaryDirectory() as directory, statistics(), built() as workload, _bpftrace() as bpftrace:
        for number in range(_ROUNDS):
            for name in list(_VARIANTS)[:: 1 if number % 2 else -1]:
                with running("--mode=ebpf_core", _config(Path(directory), name, **_VARIANTS[name])) as exporter:
                    for title in _STORMS:
                        found[name, title].append(_measured(exporter, bpftrace, workload, title))
    kept: dict[str, dict[str, dict[str, float]]] = {}
    for (name, title), costs in found.items():
        ratios = [each.kernel_ns / each.bpftrace_ns for each in costs]
        least = min(each.kernel_ns for each in costs)  # what else runs on the machine only adds to it
        kept.setdefault(name, {})[title] = {
            "kernel_ns": round(least),
            "percent": round(100 * (least / min(each.kernel_ns for each in found[DEFAULTS, title]) - 1)),
            "exporter_us": round(min(each.exporter_ns for each in costs) / 1000, 1),
        }
        last = costs[-1]
        spelt = ", ".join(f"{program} {ns:.0f}" for program, ns in sorted(last.parts.items()) if ns >= 1)
        print(f"{name}, {title}: {median(ratios):.2f} times bpftrace, {min(ratios):.2f} to {max(ratios):.2f}")
        kernel_ns, percent, exporter_us = kept[name][title].values()
        print(f"  at least {kernel_ns} ns a process ({percent:+} % against {DEFAULTS}), and {exporter_us} us of the exporter")
        print(f"  last {last.kernel_ns:.0f} ns a process, bpftrace {last.bpftrace_ns:.0f} ({spelt})")
    results.write("costs", {"rounds": _ROUNDS, "variants": kept})


if __name__ == "__main__":
    main()
