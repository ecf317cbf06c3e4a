"""Storms whose truth is known, against the real exporter while it is scraped every 100 ms: what was counted, of what there was."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from bench.exporter import Running, Samples, running
from bench.workloads import Workload, built

_COUNTER_ENDINGS = ("_total", "_count", "_sum", "_bucket")
_SETTLE_SECONDS = 8


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum over all series of `name` that have these labels."""
    wanted = labels.items()
    return sum(value for (family, pairs), value in samples.items() if family == name and wanted <= dict(pairs).items())


class Scraper(threading.Thread):
    """Scrapes every 100 ms, or as often as is asked, and notes every counter that fell, and when a scrape failed."""

    def __init__(self, exporter: Running, seconds: float = 0.1) -> None:
        super().__init__(daemon=True)
        self._exporter = exporter
        self._seconds = seconds
        self._over = threading.Event()
        self.scrapes = 0
        self.fell: list[str] = []
        self.failed: list[float] = []
        """Moments, of the monotonic clock."""

    def run(self) -> None:
        """Until it is stopped."""
        before: Samples = {}
        while not self._over.wait(self._seconds):
            self.scrapes += 1
            try:
                now = self._exporter.samples()
            except (OSError, HTTPException, ValueError):
                self.failed.append(time.monotonic())
                continue
            for key, value in now.items():
                if key[0].startswith("shortproc_") and key[0].endswith(_COUNTER_ENDINGS) and value < before.get(key, value):
                    self.fell.append(f"{key} {before[key]} -> {value}")
            before = now

    def stop(self) -> None:
        """And wait for the last scrape."""
        self._over.set()
        self.join()


@contextmanager
def without_hold(max_comms: int) -> Iterator[Running]:
    """An exporter that shows a new comm at once, so that a storm need not wait for its series."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as config:
        config.write(f"metrics: {{new_series_hold_seconds: 0, max_comms: {max_comms}}}\n")
        config.flush()
        with running("--mode=ebpf_core", f"--config.file={config.name}") as exporter:
            yield exporter


def _storm(exporter: Running, workload: Workload, title: str, arguments: list[object], expected: dict[str, float]) -> None:
    before = exporter.samples()
    scraper = Scraper(exporter)
    scraper.start()
    begun = time.monotonic()
    spent = workload.run(*arguments)
    took = time.monotonic() - begun
    time.sleep(_SETTLE_SECONDS)
    scraper.stop()
    after = exporter.samples()

    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    comm = arguments[-1].name if arguments[0] in ("forkexec", "chain") else workload.storm.name  # type: ignore[attr-defined]
    seen = {outcome: grown("shortproc_comm_exits_total", comm=comm, outcome=outcome) for outcome in ("ok", "error", "signal")}
    if comm == workload.storm.name:  # the storm's own process
        seen["ok"] -= 1
    exact = all(seen[outcome] == expected.get(outcome, 0) for outcome in seen)
    cpu = grown("shortproc_comm_cpu_seconds_total", comm=comm)
    uncharged = grown("shortproc_detection_lost_total", reason="cpu_never_came")
    clones = grown("shortproc_kernel_clones_total"), grown("shortproc_observed_clones_total")
    ratio = total(after, "shortproc_detection_capture_ratio")
    print(f"{title} ({took:.1f} s, {scraper.scrapes} scrapes)")
    print(f"  ended {seen}: {'exact' if exact else f'WRONG, expected {expected}'}; counters that fell: {scraper.fell or 'none'}")
    if scraper.failed:
        print(f"  {len(scraper.failed)} scrapes FAILED")
    # under the storm's own name its own process is counted too
    truth = (spent.children_ns + (spent.own_ns if comm == workload.storm.name else 0)) / 1e9
    print(f"  CPU {cpu:.4f} s, getrusage {truth:.4f} s ({cpu / truth - 1:+.2%}); never charged: {uncharged:.0f}")
    print(f"  clones: kernel {clones[0]:.0f}, seen {clones[1]:.0f}; capture ratio {ratio:.6f}")


def _flood(exporter: Running, workload: Workload, n: int) -> None:
    before, memory = exporter.samples(), exporter.rss_mib()
    workload.run("comms", n)
    for _ in range(_SETTLE_SECONDS * 4):  # a newcomer that came just now is held back until the next drain
        time.sleep(0.5)
        after = exporter.samples()
        by_comm, whole = total(after, "shortproc_comm_exits_total"), total(after, "shortproc_ended_processes_total")
        if by_comm == whole:
            break
    ended = whole - total(before, "shortproc_ended_processes_total")
    tracked = total(after, "shortproc_tracked_comms")
    print(f"flood of {n} different comms")
    print(f"  ended {ended:.0f}; since the start, by comm and other {by_comm:.0f}, whole family {whole:.0f}; tracked comms {tracked:.0f}")
    print(f"  series {len(after)}; RSS {memory:.1f} MiB before, {exporter.rss_mib():.1f} MiB after")


def main() -> None:
    """Every storm of the table, one after the other."""
    with built() as workload, without_hold(max_comms=1000) as exporter:
        tiny = workload.tiny
        _storm(exporter, workload, "10,000 fork+exec", ["forkexec", 10_000, tiny], {"ok": 10_000})
        _storm(exporter, workload, "50,000 vfork+exit", ["vfork", 50_000], {"ok": 50_000})
        _storm(exporter, workload, "1,000 children, 8 threads each leave together", ["together", 1000, 8], {"ok": 1000})
        _storm(exporter, workload, "1,000 children, 8 threads each leave one by one", ["scatter", 1000, 8], {"ok": 1000})
        _storm(exporter, workload, "200 children, leader leaves with 0 first, last thread with 5", ["leader", 200, 5, 5], {"error": 200})
        _storm(exporter, workload, "40 children burn 5 ms", ["burn", 40, 5, 1], {"ok": 40})
        _storm(exporter, workload, "300 children burn 2 ms in each of 8 threads", ["burn", 300, 2, 8], {"ok": 300})
        _storm(exporter, workload, "100 children exit with 3", ["end", 100, 3], {"error": 100})
        _storm(exporter, workload, "100 children end by SIGSEGV", ["kill", 100, 11], {"signal": 100})
        _storm(exporter, workload, "100 children end by SIGKILL", ["kill", 100, 9], {"signal": 100})
        _storm(exporter, workload, "100 chains of three execs", ["chain", 100, tiny], {"ok": 100})
        _storm(exporter, workload, "500 children with an io_uring worker", ["uring", 500], {"ok": 500})
    with built() as workload, without_hold(max_comms=60) as exporter:
        _flood(exporter, workload, 20_000)


if __name__ == "__main__":
    main()
