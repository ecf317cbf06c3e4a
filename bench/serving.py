"""What the serving process costs: memory, CPU, time to be ready; and scrapes, beside the client library with the same series."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from bench.exporter import FORMATS, Running, running
from bench.workloads import Workload, built

_SCRAPES, _MANY = 50, 1_000
_LIBRARY: dict[str, Callable[[CollectorRegistry], bytes]] = {"text": generate_latest, "OpenMetrics": openmetrics.generate_latest}
_MORE_NAMES = """
metrics: {max_comms: 360, per_comm_histogram: true, new_series_hold_seconds: 0}
"""
_MOST_NAMES = """
metrics: {max_comms: 1000, new_series_hold_seconds: 0}
attribution: {max_owner_comms: 1000}
"""


class _Collected(Collector):
    """What an exporter shows, for the library."""

    def __init__(self, exporter: Running) -> None:
        self._families = list(text_string_to_metric_families(exporter.get(accept=FORMATS["OpenMetrics"]).decode()))

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _cpu_ms(action: Callable[[], object], clock: Callable[[], float], times: int = _SCRAPES) -> float:
    costs = []
    for _ in range(times):
        begun = clock()
        action()
        costs.append(clock() - begun)
    return statistics.median(costs) * 1000


def _formats(exporter: Running) -> None:
    """Print the CPU time of a scrape, from the connection to the last byte. That of the library is the encoding alone."""
    series = sum(not line.startswith(b"#") for line in exporter.get().splitlines())
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(exporter))
    print(f"{series} series, CPU time of a scrape, median of {_SCRAPES}:")
    for name, accept in FORMATS.items():
        plain, small = (partial(exporter.get, accept=accept, coding=coding) for coding in ("identity", "gzip"))
        kib = f"{len(plain()) / 1024:.0f} KiB, with gzip {len(small()) / 1024:.1f} KiB"
        print(f"  {name}: {_cpu_ms(plain, exporter.cpu_seconds):.2f} ms, with gzip {_cpu_ms(small, exporter.cpu_seconds):.2f} ms; {kib}")
        if name in _LIBRARY:
            theirs = _cpu_ms(partial(_LIBRARY[name], registry), time.process_time, 20)
            print(f"    prometheus_client: {theirs:.2f} ms for the encoding alone")


def _memory(exporter: Running) -> None:
    for scrapes in (_MANY // 10, _MANY):
        for number in range(scrapes):
            exporter.get(accept=list(FORMATS.values())[number % 3], coding="gzip")
        print(f"after {scrapes} more scrapes in all formats: RSS {exporter.rss_mib():.1f} MiB")


def _large(workload: Workload, more: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(more)
        file.flush()
        Path(file.name).chmod(0o644)
        with running("--mode=ebpf_core", f"--config.file={file.name}") as exporter:
            workload.run("comms", 20_000)
            time.sleep(7)
            _formats(exporter)
            _memory(exporter)


def main() -> None:
    """Print the figures."""
    with built() as workload:
        with running("--mode=ebpf_core") as exporter:
            print(f"ready after {exporter.ready_seconds:.2f} s, RSS {exporter.rss_mib():.1f} MiB")
            exporter.get()
            begun = exporter.cpu_seconds()
            time.sleep(10)
            print(f"idle: RSS {exporter.rss_mib():.1f} MiB, CPU {exporter.cpu_seconds() - begun:.4f} s in 10 s")
            begun = exporter.cpu_seconds()
            workload.run("forkexec", 10_000, workload.tiny)
            print(f"10,000 fork+exec without scrapes: {exporter.cpu_seconds() - begun:.4f} s of CPU")
            workload.run("comms", 20_000)
            time.sleep(7)
            exporter.get()
            print(f"after a flood of 20,000 comms: RSS {exporter.rss_mib():.1f} MiB")
            _formats(exporter)
            _memory(exporter)
        _large(workload, _MORE_NAMES)
        _large(workload, _MOST_NAMES)


if __name__ == "__main__":
    main()
