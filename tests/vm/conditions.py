"""Inside a guest, under odd conditions: does each exit still count once?

`python -m tests.vm.conditions NAME...`. The guest is thrown away, so what cannot be undone is left as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from exporter.kernel.cgroups import hierarchy
from exporter.sources.ebpf import source as ebpf
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel import failing
from tests.kernel.programs import Program, watching
from tests.vm import whole
from tests.vm.checks import Whole, report
from tests.vm.whole import SLOW

_SYSCTL = Path("/proc/sys")
_CPU = Path("/sys/devices/system/cpu/cpu1/online")
_PROCESSES = 70_000


class Storms:
    """Storms while the programs count."""

    def __init__(self, source: EbpfSource, folder: Path) -> None:
        self.source = source
        self._sums = Whole(source)
        self._folder = folder

    def copied(self) -> Program:
        """Return the workload under a name of its own."""
        return Program.copied(whole.WORKLOAD, self._folder)

    def run(self, *words: object, exits: list[int]) -> None:
        """Run one storm, and check its exits."""
        one = self.copied()
        one.run(*words)
        self.check(" ".join(map(str, words)), one, exits)

    def check(self, what: str, program: Program, exits: list[int]) -> None:
        """Check the exits of all processes of that name so far."""
        self._sums.take()
        report.check(what, self._sums.of(program.comm).exits, exits)

    def plain(self, n: int) -> None:
        """Plain exits, threads that exit together, and kills."""
        self.run("vfork", n, exits=[n + 1, 0, 0, 0])
        self.run("scatter", n, 8, exits=[n + 1, 0, 0, 0])
        self.run("kill", 20, 9, exits=[1, 0, 20, 0])


def usual(storms: Storms) -> None:
    """Nothing but the storms."""
    report.fact("CPUs", os.cpu_count())
    storms.plain(200)


def cpus_go_and_come(storms: Storms) -> None:
    """A CPU is taken offline and online all the time."""
    done, flips = threading.Event(), 0

    def flip() -> None:
        nonlocal flips
        while not done.wait(0.2):
            _CPU.write_text(str(flips % 2))
            flips += 1
        _CPU.write_text("1")

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        for _ in range(3):
            storms.plain(200)
    finally:
        done.set()
        thread.join()
    report.fact("times that a CPU went or came", flips)


def living_processes(storms: Storms) -> None:
    """Many sleep meanwhile, and are killed at once in the end."""
    (_SYSCTL / "kernel/pid_max").write_text("4194304")
    (_SYSCTL / "kernel/threads-max").write_text("200000")
    sleepers = storms.copied()
    with subprocess.Popen([sleepers.path, "sleepers", str(_PROCESSES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        living = int(child.stdout.readline())
        report.check("living processes", living, _PROCESSES)
        storms.plain(200)
    storms.check("all killed at once", sleepers, [1, 0, living, 0])


def oom_kills(storms: Storms) -> None:
    """Each victim is a process killed for memory."""
    killed = failing.oom_kills(5)
    counts = storms.source.peek().failures
    report.check("OOM kills", {each: n for each, n in counts.items() if n}, dict(killed))


def small_pids(storms: Storms) -> None:
    """Below 300 no PID is given out again, so at most one is left: all of these have the same."""
    program = storms.copied()
    for _ in range(500):
        program.storm("vfork", 0)
    storms.check("one at a time", program, [500, 0, 0, 0])


def hidden_processes(storms: Storms) -> None:
    """The exporter is root here, so /proc hides nothing from it."""
    storms.plain(50)
    whole.serving(report)


def v1_only(storms: Storms) -> None:
    """Cgroups are those of the controller `pids`."""
    report.check("whether cgroups are those of v1", hierarchy().is_pids, True)
    storms.plain(50)


@contextmanager
def _set(path: str, value: str) -> Iterator[None]:
    """Set a kernel parameter for a while."""
    file = _SYSCTL / path
    before = file.read_text()
    file.write_text(value)
    try:
        if (now := file.read_text().strip()) != value:
            raise failing.Unavailable(f"this kernel keeps it at {now}")
        yield
    finally:
        file.write_text(before)


@contextmanager
def _mounted(*command: str) -> Iterator[None]:
    subprocess.run(["mount", *command], check=True)
    yield


@contextmanager
def _cgroup_v1() -> Iterator[None]:
    """Mount the hierarchy of one controller of v1, and no other."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(whole.CGROUP2)], check=True)
    (whole.CGROUP2 / "pids").mkdir()
    subprocess.run(["mount", "-t", "cgroup", "-o", "pids", "none", str(whole.CGROUP2 / "pids")], check=True)
    yield
    subprocess.run(["umount", str(whole.CGROUP2 / "pids"), str(whole.CGROUP2)], check=True)


_Setting = Callable[[], AbstractContextManager[None]]
CONDITIONS: dict[str, tuple[Callable[[Storms], None], _Setting]] = {
    "usual": (usual, nullcontext),
    "cgroup v1 only": (v1_only, _cgroup_v1),
    "CPU offline and online": (cpus_go_and_come, nullcontext),
    "bpf_jit_enable=0": (usual, partial(_set, "net/core/bpf_jit_enable", "0")),
    "pid_max 301": (small_pids, partial(_set, "kernel/pid_max", "301")),
    "pid_max 4194304": (usual, partial(_set, "kernel/pid_max", "4194304")),
    "hidepid=2": (hidden_processes, partial(_mounted, "-o", "remount,hidepid=2", "/proc")),
    "OOM kill": (oom_kills, nullcontext),
    "70,000 living processes": (living_processes, nullcontext),
}
"""What is checked in each, and what is set before the programs are loaded."""


def main() -> int:
    ebpf._DRAIN_EVERY_NS = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for condition in sys.argv[1:]:
            check, setting = CONDITIONS[condition]
            with report.section(condition), setting(), watching(SLOW) as source:
                check(Storms(source, folder))
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
