"""Every mode side by side, in one run: how soon it tells of an exit, what it costs, and how many processes of each runtime it sees.

python -m bench modes            # prints the figures
WRITE=1 python -m bench modes    # keeps them in bench/results/modes.json; `make docs` writes them into README.md and docs/modes.md
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import results
from bench.exporter import Running, running
from bench.storms import total
from bench.workloads import Workload, built
from exporter.config.options import Config
from exporter.kernel.bpf import map_memory
from exporter.kernel.procfs import Procfs
from exporter.loaders.direct import Direct
from exporter.model import Mode, ModeUnavailable
from exporter.model.dimensions import COMM
from exporter.sources.base import Source
from exporter.supervision.modes import MODES, Host, ModeSpec, loader_settings

_ROOT = Path(__file__).parents[1]
_NOBODY = 65534
_LIVES_MS = (0.5, 1, 5, 20, 100, 1000)
_FORKED_LIVES_MS = (0.5, 1, 5)
_RATE, _SECONDS = 50, 4
_PACED, _PACED_RATE = 5000, 1000
_STORM = 5000
_LOOKS = 30
_PS_RUNS = 5
_WARM_UP_SECONDS, _IDLE_SECONDS = 3, 10
_SETTLE_SECONDS = 1.5
_BUSY_PERCENT = 10
"""Of all CPUs: while other processes use more, no figures are kept."""
_WAIT_SECONDS = 5


@dataclass(slots=True)
class Measured:
    """One mode. Percentages of CPU are of one core, those of `seen` of the processes that were started."""

    mode: str
    privileged: bool
    """Whether it was started by root."""
    seen_percent: dict[str, float] = field(default_factory=dict)
    """By runtime in milliseconds, at 50 processes a second that each execute a program."""
    forked_seen_percent: dict[str, float] = field(default_factory=dict)
    """The same of processes that don't."""
    storm_seen_percent: float = 0
    storm_ratio_percent: float | None = None
    """The capture ratio that was published of the storm."""
    storm_cpu_us: float = 0
    """CPU for each process of it."""
    latency_ms: dict[str, float] = field(default_factory=dict)
    """From an exit until a look at the counts shows it, by quantile; empty where it was not measured."""
    others_cpu_percent: float = 0
    """What all processes used of all CPUs while the exporter was idle."""
    idle_cpu_percent: float = 0
    busy_cpu_percent: float = 0
    """At those 50 processes a second."""
    paced_cpu_percent: float = 0
    """At 1,000 processes a second."""
    memory_mib: float = 0
    broker_memory_mib: float | None = None
    maps_mib: float | None = None
    """Kernel memory of BPF maps."""
    ready_seconds: float = 0


@contextmanager
def _exporter(mode: Mode, uid: int | None) -> Iterator[Running]:
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as config:
        config.write("metrics: {new_series_hold_seconds: 0, max_comms: 1000}\n")
        config.flush()
        Path(config.name).chmod(0o644)
        with running(f"--mode={mode}", f"--config.file={config.name}", uid=uid) as exporter:
            yield exporter


def _exited(exporter: Running, *names: str) -> float:
    samples = exporter.samples()
    return sum(total(samples, "shortproc_comm_exits_total", comm=name) for name in names)


class _Lives:
    """Processes with a runtime that is known."""

    def __init__(self, program: Path, exporter: Running) -> None:
        self._program = program
        self._exporter = exporter

    def seen(self, life_ms: float, *, by_exec: bool) -> float:
        """Return which part of them was seen, under any name."""
        name = f"{'exec' if by_exec else 'fork'}-{life_ms:g}"
        if by_exec:
            target = self._program.with_name(name)
            target.unlink(missing_ok=True)
            target.hardlink_to(self._program)
            how = ["exec", str(target)]
        else:
            how = ["rename", name]
        names = name, self._program.name, "unknown", "other"
        before = _exited(self._exporter, *names)
        command = [str(self._program), str(_RATE * _SECONDS), str(_RATE), str(int(life_ms * 1000)), *how]
        started = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        time.sleep(life_ms / 1000 + _SETTLE_SECONDS)
        seen = _exited(self._exporter, *names) - before - 1  # less the one that starts them
        return round(min(100.0, max(0.0, 100 * seen / started)), 2)


def _storm(exporter: Running, workload: Workload, measured: Measured) -> None:
    names = workload.tiny.name, workload.storm.name, "unknown", "other"
    before, samples, cpu = _exited(exporter, *names), exporter.samples(), exporter.cpu_seconds()
    workload.run("forkexec", _STORM, workload.tiny)
    time.sleep(_SETTLE_SECONDS)
    measured.storm_cpu_us = round((exporter.cpu_seconds() - cpu) / _STORM * 1e6, 2)
    measured.storm_seen_percent = round(min(100.0, 100 * (_exited(exporter, *names) - before) / (_STORM + 1)), 2)
    after = exporter.samples()
    observed, kernel = (
        total(after, f"shortproc_{side}_clones_total") - total(samples, f"shortproc_{side}_clones_total") for side in ("observed", "kernel")
    )
    measured.storm_ratio_percent = round(100 * observed / kernel, 2) if kernel else None


def _latencies(source: Source, folder: Path, lives: Path) -> dict[str, float]:
    """Milliseconds from the moment that a parent could learn of the exit until a look shows it, of processes that live 100 ms."""
    late = []
    for number in range(_LOOKS):
        path = folder / f"late-{number}"
        path.hardlink_to(lives)
        child = os.posix_spawn(path, [str(path), "1", "1", "1000", "rename", path.name], os.environ, file_actions=_SILENT)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        exited = time.monotonic()
        os.waitpid(child, 0)
        while not sum(source.peek().of(COMM).row(path.name.encode()).exits) and time.monotonic() < exited + _WAIT_SECONDS:
            time.sleep(0.0002)
        late.append((time.monotonic() - exited) * 1000)
        source.drain()
        path.unlink()
    cuts = statistics.quantiles(late, n=100)
    return {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2)}


_SILENT = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]


def _cpu_percent(exporter: Running, cpu: float, begun: float) -> float:
    return round((exporter.cpu_seconds() - cpu) / (time.monotonic() - begun) * 100, 2)


def _cpu_ticks() -> tuple[int, int]:
    """Return the clock ticks that all CPUs were used, and those that they were not; the first line of proc_stat(5)."""
    user, nice, system, idle, iowait, *others = map(int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:9])
    return user + nice + system + sum(others), idle + iowait


def _broker_mib(exporter: Running) -> float | None:
    """Resident memory of the process that keeps the privileges, if there is one."""
    children = Path(f"/proc/{exporter.pid}/task/{exporter.pid}/children").read_text().split()
    brokers = [child for child in children if b"exporter.loaders.broker_process" in Path(f"/proc/{child}/cmdline").read_bytes()]
    pages = (int(Path(f"/proc/{broker}/statm").read_text().split()[1]) for broker in brokers)
    return next((round(n * os.sysconf("SC_PAGE_SIZE") / 2**20, 2) for n in pages), None)


def _measure(measured: Measured, workload: Workload, program: Path) -> None:
    with _exporter(Mode(measured.mode), None if measured.privileged else _NOBODY) as exporter:
        measured.ready_seconds = round(exporter.ready_seconds, 3)
        time.sleep(_WARM_UP_SECONDS)
        cpu, begun, ticks = exporter.cpu_seconds(), time.monotonic(), _cpu_ticks()
        time.sleep(_IDLE_SECONDS)
        measured.idle_cpu_percent = _cpu_percent(exporter, cpu, begun)
        used, unused = (now - before for now, before in zip(_cpu_ticks(), ticks, strict=True))
        measured.others_cpu_percent = round(100 * used / (used + unused), 1)
        if measured.others_cpu_percent > _BUSY_PERCENT and results.kept():
            raise SystemExit(f"other processes use {measured.others_cpu_percent} % of the CPUs: measure on an idle machine")
        lives = _Lives(program, exporter)
        cpu, begun = exporter.cpu_seconds(), time.monotonic()
        subprocess.run([program, str(_RATE * _SECONDS), str(_RATE), "5000", "rename", "busy"], check=True, capture_output=True)
        measured.busy_cpu_percent = _cpu_percent(exporter, cpu, begun)
        measured.seen_percent = {f"{life_ms:g}": lives.seen(life_ms, by_exec=True) for life_ms in _LIVES_MS}
        measured.forked_seen_percent = {f"{life_ms:g}": lives.seen(life_ms, by_exec=False) for life_ms in _FORKED_LIVES_MS}
        cpu, begun = exporter.cpu_seconds(), time.monotonic()
        subprocess.run([program, str(_PACED), str(_PACED_RATE), "1000", "rename", "paced"], check=True, capture_output=True)
        measured.paced_cpu_percent = _cpu_percent(exporter, cpu, begun)
        _storm(exporter, workload, measured)
        measured.memory_mib = round(exporter.rss_mib(), 2)
        measured.broker_memory_mib = _broker_mib(exporter)


def _seen_by_ps(workload: Workload) -> int:
    """How many of the storm's processes a `ps` each second lists, no exporter running."""
    storm = subprocess.Popen([workload.storm, "forkexec", str(_STORM), workload.tiny], stdout=subprocess.DEVNULL)
    seen: set[str] = set()
    while storm.poll() is None:
        time.sleep(1)
        seen |= set(
            subprocess.run(["ps", "-C", workload.tiny.name, "-o", "pid="], capture_output=True, text=True, check=False).stdout.split()
        )
    return len(seen)


def _maps_mib(host: Host, spec: ModeSpec) -> float | None:
    if not spec.loads_programs:
        return None
    handover = host.loader.load(spec.mode)
    try:
        return round(sum(map_memory(each.fd) for each in handover.maps.values()) / 2**20, 2)
    finally:
        handover.close()


def _column(host: Host, spec: ModeSpec, workload: Workload, program: Path, *, privileged: bool) -> Measured:
    measured = Measured(spec.mode, privileged)
    if privileged or not spec.loader:  # what is opened here is opened by root
        source = spec.make(host)
        source.start()
        measured.latency_ms = _latencies(source, program.parent, program)
        source.stop()
        source.drain()
        measured.maps_mib = _maps_mib(host, spec)
    _measure(measured, workload, program)
    return measured


def main() -> None:
    """Measure each mode that runs here: those with a loader as root; netlink and those without one as nobody."""
    config = Config()
    host = Host(config.runtime_scale, config.detection, Procfs(), Direct(loader_settings(config)))
    columns = []
    with built() as workload:
        program = workload.tiny.with_name("bench-lives")
        subprocess.run(["cc", "-O2", "-static", "-o", program, _ROOT / "bench" / "lives.c"], check=True)
        by_ps = max(_seen_by_ps(workload) for _ in range(_PS_RUNS))
        for spec in MODES:
            for privileged in sorted({bool(spec.loader), spec.loads_programs}, reverse=True):
                try:
                    columns.append(asdict(_column(host, spec, workload, program, privileged=privileged)))
                except ModeUnavailable as refusal:
                    print(f"{spec.mode}: {refusal}")
                    continue
                print(json.dumps(columns[-1], indent=2), flush=True)
    host.procfs.close()
    print(f"ps once a second saw at most {by_ps} of {_STORM} processes, in {_PS_RUNS} runs")
    ps = {"runs": _PS_RUNS, "seen_at_most": by_ps}
    results.write("modes", {"rate": _RATE, "paced_rate": _PACED_RATE, "storm": _STORM, "ps": ps, "modes": columns})


if __name__ == "__main__":
    main()
