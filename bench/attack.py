"""`make attack`: scrapes of the real exporter each second, first alone, then beside clients that attack it from loopback.

Fails if one scrape fails, if the p99 with the attack is more than 50 ms above the p99 without, or if memory does not return to
within 8 MiB. `python -m bench.attack CHECKOUT` attacks another revision.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.attackers import LARGEST
from bench.exporter import Running, running
from bench.workloads import built

_ALONE_SECONDS, _ATTACK_SECONDS, _SETTLE_SECONDS = 20, 40, 15
_MOST_SLOWER_MS, _MOST_MORE_MIB = 50, 8
_RECORDS = 100_000


class Scrapes(NamedTuple):
    """What a scraper saw."""

    ms: list[float]
    failures: list[str]
    most_mib: float

    def p(self, percent: int) -> float:
        """Return a percentile by nearest rank."""
        return sorted(self.ms)[math.ceil(percent / 100 * len(self.ms)) - 1]

    def line(self) -> str:
        """Return the figures for people."""
        times = f"p50 {self.p(50):.1f}, p99 {self.p(99):.1f}, max {self.p(100):.1f} ms" if self.ms else "none succeeded"
        return f"{len(self.ms) + len(self.failures)} scrapes, {len(self.failures)} failed: {times}; PSS at most {self.most_mib:.1f} MiB"


def pss_mib(pid: int) -> float:
    """Return the proportional set size of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


def scrape_each_second(exporter: Running, seconds: float) -> Scrapes:
    """Scrape on a new connection each second."""
    ms, failures, most = [], [], 0.0
    begun = time.monotonic()
    for number in range(int(seconds)):
        time.sleep(max(0.0, begun + number - time.monotonic()))
        before = time.perf_counter()
        try:
            status, _ = exporter.ask("/metrics", coding="gzip")
            if status == http.HTTPStatus.OK:
                ms.append((time.perf_counter() - before) * 1000)
            else:
                failures.append(f"status {status}")
        except (OSError, http.client.HTTPException) as error:
            failures.append(repr(error))
        most = max(most, pss_mib(exporter.pid))
    return Scrapes(ms, failures, most)


def _fill(exporter: Running) -> int:
    """Run short processes until the exporter keeps the most records that it may. Returns the size of the largest answer."""
    with built() as workload:
        workload.run("comms", 2_000)
        for _ in range(2):
            workload.run("vfork", _RECORDS // 2)
    time.sleep(3)
    return len(exporter.get(LARGEST))


def _measured(exporter: Running) -> list[str]:
    print(f"the largest API answer has {_fill(exporter) / 2**20:.1f} MiB")
    scrape_each_second(exporter, 2)
    before = pss_mib(exporter.pid)
    alone = scrape_each_second(exporter, _ALONE_SECONDS)
    print(f"alone: {alone.line()}")
    command = [sys.executable, "-m", "bench.attackers", str(exporter.port), str(_ATTACK_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attackers:
        time.sleep(1)
        attacked = scrape_each_second(exporter, _ATTACK_SECONDS - 1)
        connections, _ = attackers.communicate()
    print(f"attacked: {attacked.line()}")
    print(f"  connections of the attackers: {json.loads(connections)}")
    for failure in attacked.failures[:5]:
        print(f"  {failure}")
    time.sleep(_SETTLE_SECONDS)
    after = pss_mib(exporter.pid)
    print(f"load {os.getloadavg()[0]:.1f} after")
    print(f"PSS: {before:.1f} MiB before, {attacked.most_mib:.1f} during, {after:.1f} after")
    short = []
    if alone.failures or attacked.failures:
        short.append(f"{len(alone.failures) + len(attacked.failures)} scrapes failed")
    if alone.ms and attacked.ms and attacked.p(99) > alone.p(99) + _MOST_SLOWER_MS:
        short.append(f"p99 is more than {_MOST_SLOWER_MS} ms slower")
    if after > before + _MOST_MORE_MIB:
        short.append(f"more than {_MOST_MORE_MIB} MiB of memory did not return")
    return short


def main() -> None:
    """Attack, and print the figures. Exits with 1 if they fall short."""
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before")
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(f"records: {{capacity: {_RECORDS}}}\nmetrics: {{max_comms: 360}}\n")
        file.flush()
        Path(file.name).chmod(0o644)
        checkout = Path(sys.argv[1]) if sys.argv[1:] else None
        with running("--mode=ebpf_core", f"--config.file={file.name}", checkout=checkout) as exporter:
            short = _measured(exporter)
    if short:
        raise SystemExit(f"falls short: {'; '.join(short)}")


if __name__ == "__main__":
    main()
