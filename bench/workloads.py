"""Compiles the storms (tests/kernel/workloads/workload.c) under names of their own, so that their counts can be told from the host's."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).parents[1] / "tests" / "kernel" / "workloads" / "workload.c"


@dataclass(frozen=True, slots=True)
class Spent:
    """Nanoseconds of CPU, as getrusage(2) tells them."""

    children_ns: int
    own_ns: int


@dataclass(frozen=True, slots=True)
class Workload:
    """The storm's program, and a tiny one for it to exec."""

    storm: Path
    tiny: Path

    def run_storm(self, command: str, processes: int) -> Spent:
        """Run a storm of so many processes; if they call exec, of the tiny program."""
        return self.run(command, processes, *([self.tiny] if command == "forkexec" else []))

    def run(self, *arguments: object) -> Spent:
        """Run it to its end."""
        command = [str(self.storm), *map(str, arguments)]
        words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return Spent(int(words[1]), int(words[3]))


@contextmanager
def built(storm: str = "bench-storm", tiny: str = "bench-tiny") -> Iterator[Workload]:
    """Compile into a folder that is removed after."""
    with tempfile.TemporaryDirectory(prefix="shortproc-bench-") as folder:
        workload = Workload(Path(folder, storm), Path(folder, tiny))
        subprocess.run(["cc", "-O2", "-pthread", "-o", workload.storm, _SOURCE], check=True)
        subprocess.run(["cc", "-O2", "-static", "-x", "c", "-o", workload.tiny, "-"], check=True, input=b"int main(void) { return 0; }")
        Path(folder).chmod(0o755)
        yield workload
