"""What the serving process costs: memory, CPU, time to be ready, and a scrape beside bare prometheus_client with as many series."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, generate_latest

from bench.exporter import running
from bench.workloads import built

_SCRAPES = 50
_OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4"


def _median_ms(action: Callable[[], object]) -> float:
    times = []
    for _ in range(_SCRAPES):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


def _bare(series: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    counter = Counter("bare", "As many series.", ("comm", "outcome"), registry=registry)
    for number in range(series):
        counter.labels(f"comm{number}", "ok").inc(number)
    return registry


def main() -> None:
    """Print the figures."""
    with built() as workload, running("--mode=ebpf_core") as exporter:
        print(f"ready after {exporter.ready_seconds:.2f} s, RSS {exporter.rss_mib():.1f} MiB")
        exporter.get()
        begun = exporter.cpu_seconds()
        time.sleep(10)
        print(f"idle: RSS {exporter.rss_mib():.1f} MiB, CPU {exporter.cpu_seconds() - begun:.4f} s in 10 s")
        begun = exporter.cpu_seconds()
        workload.run("forkexec", 10_000, workload.tiny)
        print(f"10,000 fork+exec without scrapes: {exporter.cpu_seconds() - begun:.4f} s of CPU")
        for title, accept in (("text", ""), ("OpenMetrics", _OPENMETRICS)):
            series = sum(not line.startswith(b"#") for line in exporter.get(accept=accept).splitlines())
            ours = _median_ms(partial(exporter.get, accept=accept))
            bare = _median_ms(partial(generate_latest, _bare(series)))
            print(f"scrape as {title}, median of {_SCRAPES}: {ours:.1f} ms with {series} series")
            print(f"  bare prometheus_client with as many, as text and without HTTP: {bare:.1f} ms")
        workload.run("comms", 20_000)
        time.sleep(7)
        exporter.get()
        print(f"after a flood of 20,000 comms: RSS {exporter.rss_mib():.1f} MiB")


if __name__ == "__main__":
    main()
