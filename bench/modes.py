"""Every mode side by side, in one run: how soon it tells of an end, what it costs, and how much it sees of lives of different lengths.

python -m bench modes            # prints the table
WRITE=1 python -m bench modes    # writes it into docs/modes.md as well
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.exporter import Running, running
from bench.storms import total
from bench.workloads import Workload, built
from exporter.config.options import Config
from exporter.kernel.procfs import Procfs
from exporter.loaders.direct import Direct
from exporter.model import Mode, ModeUnavailable
from exporter.sources.base import Source
from exporter.supervision.modes import SPECS, Host, loader_settings

_ROOT = Path(__file__).parents[1]
_TABLE = _ROOT / "docs" / "modes.md"
_BEGIN, _END = "<!-- measured -->", "<!-- /measured -->"
_NOBODY = 65534
_LIVES_MS = (0.5, 1, 5, 20, 100, 1000)
_RATE, _SECONDS = 50, 4
_STORM = 5000
_LOOKS = 30
_PS_RUNS = 5
_SETTLE_SECONDS = 2.0
_WAIT_SECONDS = 5


@dataclass(slots=True)
class Measured:
    """A column of the table."""

    name: str
    latency_ms: list[float] = field(default_factory=list)
    seen_percent: list[float] = field(default_factory=list)
    cpu_us_a_process: float = 0
    idle_percent: float = 0
    rss_mib: float = 0
    ready_seconds: float = 0
    storm_percent: float = 0


@contextmanager
def _exporter(mode: Mode, uid: int | None) -> Iterator[Running]:
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as config:
        config.write("metrics: {new_series_hold_seconds: 0, max_comms: 1000}\n")
        config.flush()
        Path(config.name).chmod(0o644)
        with running(f"--mode={mode}", f"--config.file={config.name}", uid=uid) as exporter:
            yield exporter


def _ended(exporter: Running, *names: str) -> float:
    samples = exporter.samples()
    return sum(total(samples, "shortproc_comm_exits_total", comm=name) for name in names)


def _completeness(exporter: Running, lives: Path, tiny: Path) -> Iterator[float]:
    for number, life_ms in enumerate(_LIVES_MS):
        target = tiny.with_name(f"life-{number}-{exporter.pid}")
        target.hardlink_to(lives)
        before = _ended(exporter, target.name, lives.name, "unknown", "other")
        command: list[str | Path] = [lives, str(_RATE * _SECONDS), str(_RATE), str(int(life_ms * 1000)), "exec", target]
        started = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        time.sleep(life_ms / 1000 + _SETTLE_SECONDS)
        seen = _ended(exporter, target.name, lives.name, "unknown", "other") - before - 1  # less the one that starts them
        yield min(100.0, max(0.0, 100 * seen / started))


def _storm(exporter: Running, workload: Workload, measured: Measured) -> None:
    names = workload.tiny.name, workload.storm.name, "unknown", "other"
    before, cpu = _ended(exporter, *names), exporter.cpu_seconds()
    workload.run("forkexec", _STORM, workload.tiny)
    time.sleep(_SETTLE_SECONDS)
    measured.cpu_us_a_process = (exporter.cpu_seconds() - cpu) / _STORM * 1e6
    measured.storm_percent = min(100.0, 100 * (_ended(exporter, *names) - before) / (_STORM + 1))


def _seen_by_ps(workload: Workload) -> int:
    """How many of that storm's processes a `ps` each second lists, no exporter running."""
    storm = subprocess.Popen([workload.storm, "forkexec", str(_STORM), workload.tiny], stdout=subprocess.DEVNULL)
    seen: set[str] = set()
    while storm.poll() is None:
        time.sleep(1)
        listing = subprocess.run(["ps", "-C", workload.tiny.name, "-o", "pid="], capture_output=True, text=True, check=False).stdout
        seen |= set(listing.split())
    return len(seen)


def _latencies(source: Source, folder: Path, lives: Path) -> Iterator[float]:
    """Milliseconds from the moment that a parent could learn of the end until a look shows it, of processes that live 100 ms."""
    for number in range(_LOOKS):
        path = folder / f"late-{number}"
        path.hardlink_to(lives)
        child = os.posix_spawn(path, [str(path), "1", "1", "1000", "rename", path.name], os.environ, file_actions=_SILENT)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        ended = time.monotonic()
        os.waitpid(child, 0)
        while not sum(source.peek().of(path.name.encode()).exits) and time.monotonic() < ended + _WAIT_SECONDS:
            time.sleep(0.0002)
        yield (time.monotonic() - ended) * 1000
        source.drain()
        path.unlink()


_SILENT = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]


def _measure(mode: Mode, uid: int | None, workload: Workload, lives: Path) -> Measured:
    measured = Measured(f"`{mode}`" + (", not root" if uid is not None and mode is Mode.NETLINK else ""))
    with _exporter(mode, uid) as exporter:
        measured.ready_seconds = exporter.ready_seconds
        cpu = exporter.cpu_seconds()
        time.sleep(4)
        measured.idle_percent = (exporter.cpu_seconds() - cpu) / 4 * 100
        measured.seen_percent = list(_completeness(exporter, lives, workload.tiny))
        _storm(exporter, workload, measured)
        measured.rss_mib = exporter.rss_mib()
    return measured


def _table(columns: list[Measured]) -> str:
    def row(title: str, cells: list[str]) -> str:
        return f"| {title} | {' | '.join(cells)} |"

    lines = [row("", [each.name for each in columns]), "|---" * (len(columns) + 1) + "|"]
    for number, life in enumerate(_LIVES_MS):
        lines.append(row(f"seen, runtime {life:g} ms, {_RATE} per second", [f"{each.seen_percent[number]:.1f} %" for each in columns]))
    lines.append(row(f"seen, {_STORM:,} fork+exec at full speed", [f"{each.storm_percent:.1f} %" for each in columns]))
    for title, quantile in (("p50", 49), ("p99", 98)):
        cells = [f"{statistics.quantiles(each.latency_ms, n=100)[quantile]:.1f} ms" if each.latency_ms else "" for each in columns]
        lines.append(row(f"time from exit to count, {title}", cells))
    lines.append(row("CPU of the exporter, idle", [f"{each.idle_percent:.2f} %" for each in columns]))
    lines.append(row("CPU of the exporter per process at full speed", [f"{each.cpu_us_a_process:.1f} us" for each in columns]))
    lines.append(row("resident memory after that", [f"{each.rss_mib:.1f} MiB" for each in columns]))
    lines.append(row("time until ready", [f"{each.ready_seconds:.2f} s" for each in columns]))
    return "\n".join(lines)


def main() -> None:
    """Measure each mode that runs here: eBPF and netlink as root, netlink and the scans as nobody."""
    procfs = Procfs()
    columns = []
    with built() as workload:
        lives = workload.tiny.with_name("bench-lives")
        subprocess.run(["cc", "-O2", "-static", "-o", lives, _ROOT / "bench" / "lives.c"], check=True)
        host = Host(Config(), procfs, Direct(loader_settings(Config())))
        by_ps = max(_seen_by_ps(workload) for _ in range(_PS_RUNS))
        root = (Mode.EBPF_CORE, Mode.EBPF_BCC, Mode.NETLINK)
        for mode, uid in [*((mode, None) for mode in root), *((mode, _NOBODY) for mode in Mode if mode not in root[:2])]:
            source = SPECS[mode].make(host)
            try:
                source.start()
            except ModeUnavailable as refusal:
                print(f"{mode}: {refusal}")
                continue
            latencies = list(_latencies(source, workload.tiny.parent, lives))
            source.stop()
            source.drain()
            measured = _measure(mode, uid, workload, lives)
            if uid is None or mode is not Mode.NETLINK:  # its sockets were opened by root here
                measured.latency_ms = latencies
            columns.append(measured)
            print(f"{measured.name}: measured", flush=True)
    procfs.close()
    table = f"{_table(columns)}\n\n`ps` once a second saw at most {by_ps} of those {_STORM:,} processes, in {_PS_RUNS} runs."
    print(table)
    if os.environ.get("WRITE"):
        text = _TABLE.read_text()
        head, tail = text[: text.index(_BEGIN)], text[text.index(_END) :]
        machine = f"Linux {platform.release()}, {os.cpu_count()} CPUs, one run of `python -m bench modes`."
        _TABLE.write_text(f"{head}{_BEGIN}\n{table}\n\n{machine}\n{tail}")


if __name__ == "__main__":
    main()
