"""`make test-kernels`: boot each kernel, and one of them under odd conditions, and tell what was exact. WRITE=1 keeps the result.

`python -m tests.vm.matrix [--jobs N] [--short] [NAME...]`. `make docs` makes docs/kernels.md from the kept result. A kernel that can't be
had, or that QEMU for its architecture is missing for, is skipped by name.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import results
from tests.vm.report import RESULT

RUN = Path(__file__).with_name("run")
NAME = "kernels"
"""Of the kept result."""
_CANNOT_BE_HAD = 3
_EACH = ("modes", "storms", "failures", "records and owners", "ebpf_bcc, ring buffer", "serving")
"""Of each kernel. Those that need the guard count with it anyway, and perf buffers are for kernels before 5.8."""
_HEADERS = "ebpf_bcc, headers"
"""Compiling them takes two minutes there, so only some kernels have it."""
_EMULATED_ARM64 = ("modes", "storms", "records and owners")
"""Emulation of another architecture is slower still."""
_PATIENT = {"VM_SECONDS": "1800"}


@dataclass(frozen=True, slots=True)
class Guest:
    """One boot of one kernel."""

    name: str
    kernel: str
    checks: Sequence[str] = _EACH
    """Sections of tests.vm.checks."""
    conditions: Sequence[str] = ()
    """Those of tests.vm.conditions, instead of checks."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The environment of tests/vm/run."""


GUESTS = (
    Guest("Linux 5.10", "5.10", checks=(*_EACH, _HEADERS, "ebpf_bcc, perf buffers")),
    *(Guest(f"Linux {kernel}", kernel, checks=(*_EACH, _HEADERS)) for kernel in ("6.1", "6.12")),
    *(Guest(f"Linux {kernel}", kernel) for kernel in ("6.18", "7", "6.12-rt", "7-rt")),
    Guest("Linux 6.12-arm64", "6.12-arm64", checks=(*_EMULATED_ARM64, "failures", "package"), settings=_PATIENT),
    Guest("Linux 6.1-arm64", "6.1-arm64", checks=_EMULATED_ARM64, settings=_PATIENT),
    Guest(
        "settings",
        "6.12",
        conditions=("cgroup v1 only", "CPU offline and online", "bpf_jit_enable=0", "pid_max 301", "pid_max 4194304", "hidepid=2"),
    ),
    Guest("memory", "6.12", conditions=("OOM kill", "70,000 living processes"), settings={"VM_MEMORY": "4096"}),
    Guest("1 CPU", "6.12", conditions=("usual",), settings={"VM_CPUS": "1"}),
    Guest("8 CPUs", "6.12", conditions=("usual",), settings={"VM_CPUS": "8"}),
    Guest("lockdown=confidentiality", "6.12", checks=("modes",), settings={"VM_APPEND": "lockdown=confidentiality"}),
)
_SHORT = ("Linux 5.10", "Linux 7")
"""The oldest kernel's verifier is the strictest, and the newest one skips programs."""
_SHORT_CHECKS = ("storms", "records and owners")
_SHORT_SETTINGS = {"VM_SECONDS": "300"}


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a guest: `result` is a `tests.vm.report.Report`, and empty if there is none."""

    name: str
    kernel: str
    seconds: float
    skipped: str
    result: dict[str, Any]

    @property
    def failures(self) -> list[str]:
        """What failed, a line each."""
        if self.skipped:
            return []
        if not self.result:
            return ["no result"]
        return [f"{section}: {line}" for section, found in self.result["sections"].items() for line in found["failed"]]


def run(guest: Guest) -> Found:
    """Boot it. Prints a line when it has ended, and all of its output if something failed."""
    module = ["tests.vm.conditions", *guest.conditions] if guest.conditions else ["tests.vm.checks", *guest.checks]
    python = "/usr/bin/python3" if guest.kernel.endswith("-arm64") else ".venv/bin/python"
    begun = time.monotonic()
    done = subprocess.run(
        [RUN, guest.kernel, python, "-m", *module], env=os.environ | guest.settings, capture_output=True, text=True, check=False
    )
    seconds = round(time.monotonic() - begun)
    skipped = done.stderr.strip().splitlines()[-1] if done.returncode == _CANNOT_BE_HAD else ""
    line = next((each for each in done.stdout.splitlines() if each.startswith(RESULT)), None)
    found = Found(guest.name, guest.kernel, seconds, skipped, json.loads(line.removeprefix(RESULT)) if line else {})
    print(f"{guest.name:<26} {seconds:>5} s  {skipped or f'{len(found.failures)} failed'}", flush=True)
    if found.failures:
        print(done.stdout, done.stderr, *found.failures, sep="\n", flush=True)
    return found


def keep(found: Sequence[Found]) -> None:
    """Keep these results, and those of guests that did not run this time."""
    try:
        kept = {each["name"]: each for each in results.read(NAME)["guests"]}
    except FileNotFoundError:
        kept = {}
    kept |= {each.name: asdict(each) for each in found}
    results.write(NAME, {"guests": [kept[guest.name] for guest in GUESTS if guest.name in kept]})


def main() -> int:
    """Run all, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.matrix")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="guests at a time; each takes one CPU (default: all CPUs)")
    parser.add_argument("--short", action="store_true", help=f"only {' and '.join(_SHORT)}, and only {' and '.join(_SHORT_CHECKS)}")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(guest.name for guest in GUESTS))
    wanted = parser.parse_args()
    if unknown := set(wanted.names) - {guest.name for guest in GUESTS}:
        parser.error(f"no such guest: {', '.join(unknown)}")
    guests = [guest for guest in GUESTS if not wanted.names or guest.name in wanted.names]
    if wanted.short:
        guests = [Guest(each.name, each.kernel, _SHORT_CHECKS, settings=_SHORT_SETTINGS) for each in GUESTS if each.name in _SHORT]
    begun = time.monotonic()
    with ThreadPoolExecutor(wanted.jobs) as pool:
        found = list(pool.map(run, guests))
    seconds = round(time.monotonic() - begun)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{'together':<26} {seconds:>5} s, {used.ru_utime + used.ru_stime:.0f} s of CPU")
    if results.kept() and not wanted.short:
        keep(found)
    return int(any(each.failures for each in found))


if __name__ == "__main__":
    sys.exit(main())
