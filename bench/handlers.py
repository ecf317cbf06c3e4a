"""The handlers' child: how fast records go through it into both sinks, what that costs, and how soon a record is in a handler.

Records are made up, so that nothing but this part is measured; the way from the kernel to here is measured with the source.
"""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exporter.config.options import Config, HandlerConfig, JsonlOptions, Sinks, SqliteOptions
from exporter.handlers import plan
from exporter.handlers.parent import Handlers
from exporter.model import Mode, Outcome
from exporter.records.record import Record

_RECORDS = 100_000
_BATCH = 500
_SECONDS = 10
_TICKS = os.sysconf("SC_CLK_TCK")
_LATENCIES = """
import time
from exporter.handlers import Handler

class LatencyHandler(Handler):
    def __init__(self, path):
        self.file = open(path, "w")

    def handle(self, batch):
        now = time.time_ns()
        self.file.writelines(f"{now - record.ended_ns}\\n" for record in batch)

    def close(self):
        self.file.close()
"""


def made_up(number: int) -> Record:
    """Return a record, as an eBPF mode would send it."""
    comm = b"cc%d" % (number % 50)
    return Record(
        time.time_ns(),
        1_234_567,
        number % 4_000_000,
        1,
        1000,
        comm,
        b"make",
        b"/usr/bin/" + comm,
        Outcome.OK,
        0,
        1_000_000,
        b"/system.slice/build.service",
        Mode.EBPF_CORE,
        b"runner",
        "build",
        "service",
        "build.service",
    )


@dataclass
class _Child:
    pid: int

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def peak_mib(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


@contextmanager
def folder() -> Iterator[Path]:
    """A directory for sinks."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        if os.geteuid() == 0:
            os.chown(name, plan.NOBODY, plan.NOBODY)
        yield Path(name)


def started(config: Config) -> tuple[Handlers, _Child]:
    """Start a child, and wait until it runs."""
    wanted = plan.make(config.handlers, config.sinks)
    assert wanted is not None
    handlers = Handlers(wanted)
    handlers.start()
    while not handlers.status().running:
        time.sleep(0.01)
    time.sleep(1)
    child = handlers._child  # noqa: SLF001
    assert child is not None
    return handlers, _Child(child.pid)


def share_of(handlers: Handlers) -> str:
    """Say what became of the records."""
    each = (f"{each.handler} {each.handled}, lost {each.lost}" for each in handlers.status().handlers)
    return f"{'; '.join(each)}; dropped {sum(handlers.dropped().values())}"


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _throughput(sinks: str, per_second: int | None) -> None:
    with folder() as place:
        jsonl = JsonlOptions(path=str(place / "records.jsonl")) if "jsonl" in sinks else JsonlOptions()
        sqlite = SqliteOptions(path=str(place / "records.db")) if "sqlite" in sinks else SqliteOptions()
        handlers, child = started(Config(sinks=Sinks(jsonl, sqlite)))
        records = [made_up(number) for number in range(_RECORDS)]
        began, cpu, child_cpu = time.monotonic(), _cpu(), child.cpu_seconds()
        for at in range(0, _RECORDS, _BATCH):
            handlers.offer(records[at : at + _BATCH])
            if per_second is not None:
                time.sleep(max(0.0, began + (at + _BATCH) / per_second - time.monotonic()))
            while sum(len(each.data) for each in handlers._feed._queue) > 4 << 20:  # noqa: SLF001 - as fast as it takes them
                time.sleep(0.001)
        ours = _cpu() - cpu
        while any(each.handled < _RECORDS // 2 for each in handlers.status().handlers):
            time.sleep(0.01)
        theirs, peak = child.cpu_seconds() - child_cpu, child.peak_mib()
        share = min(each.handled for each in handlers.status().handlers)
        handlers.close()
        took = time.monotonic() - began
        status = handlers.status()
        kept = ", ".join(f"{each.handler} {each.handled}" for each in status.handlers)
        pace = "as fast as it goes" if per_second is None else f"{per_second}/s"
        print(
            f"{sinks}, {pace}: {_RECORDS / took:,.0f} records/s to the end of closing ({kept} of {_RECORDS}; "
            f"dropped {sum(handlers.dropped().values())}), exporter {ours / _RECORDS * 1e6:.1f} us/record, "
            f"child {theirs / max(share, 1) * 1e6:.1f} us/record, child's peak RSS {peak:.0f} MiB"
        )


def _latency(per_second: int, sinks: bool) -> None:
    with folder() as place, tempfile.TemporaryDirectory(dir="/var/tmp") as code:
        Path(code).chmod(0o755)
        Path(code, "latencies.py").write_text(_LATENCIES)
        handler = HandlerConfig("latencies:LatencyHandler", (code,), options={"path": str(place / "latencies")})
        jsonl, sqlite = JsonlOptions(path=str(place / "records.jsonl")), SqliteOptions(path=str(place / "records.db"))
        handlers, child = started(Config(handlers=(handler,), sinks=Sinks(jsonl, sqlite) if sinks else Sinks()))
        began, cpu, child_cpu = time.monotonic(), _cpu(), child.cpu_seconds()
        for number in range(per_second * _SECONDS):
            time.sleep(max(0.0, began + number / per_second - time.monotonic()))
            handlers.offer([made_up(number)])
        ours, theirs, n = _cpu() - cpu, child.cpu_seconds() - child_cpu, per_second * _SECONDS
        handlers.close()
        waits = [int(line) / 1e6 for line in (place / "latencies").read_text().splitlines()]
        cuts = statistics.quantiles(waits, n=1000)
        print(
            f"latency at {per_second}/s, {'with both sinks' if sinks else 'one handler alone'}: p50 {cuts[499]:.3f} ms, "
            f"p99 {cuts[989]:.3f} ms, p99.9 {cuts[998]:.3f} ms, most {max(waits):.1f} ms ({len(waits)} of {n}); "
            f"exporter {ours / n * 1e6:.0f} us/record, child {theirs / n * 1e6:.0f} us/record"
        )


def main() -> None:
    """Print everything."""
    for sinks in ("jsonl", "sqlite", "jsonl+sqlite"):
        _throughput(sinks, None)
    _throughput("jsonl+sqlite", 20_000)
    _latency(1000, sinks=False)
    _latency(1000, sinks=True)


if __name__ == "__main__":
    main()
