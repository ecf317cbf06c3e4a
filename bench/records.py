"""Records of single short processes, end to end, by the real exporter: from the exit in the kernel to a handler, and through a storm."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench.exporter import Running, running
from bench.storms import total
from bench.workloads import built

_ROOT = Path(__file__).parents[1]
_HANDLER = '''
import json, time
from exporter.handlers import Handler

class Late(Handler):
    """Notes how long each record was on its way."""

    def __init__(self, path):
        self.path, self.late_ns = path, []

    def handle(self, batch):
        now = time.time_ns()
        self.late_ns += (now - record.ended_ns for record in batch)

    def tick(self):
        with open(self.path, "w") as file:
            json.dump(self.late_ns, file)
'''
_NOBODY = 65534
_STORMS = 3


def main() -> None:
    """Print the figures."""
    with built() as workload, tempfile.TemporaryDirectory(dir="/run") as name:
        folder = Path(name)
        folder.chmod(0o755)
        lives = workload.tiny.with_name("bench-lives")
        subprocess.run(["cc", "-O2", "-static", "-o", lives, _ROOT / "bench" / "lives.c"], check=True)
        (folder / "late.py").write_text(_HANDLER)
        (folder / "out").mkdir()
        os.chown(folder / "out", _NOBODY, _NOBODY)
        output = folder / "out" / "late.json"
        for title, records, handlers in (
            ("without records", 0, []),
            ("with records", 1000, []),
            ("with a handler", 1000, [{"name": "late:Late", "path": [name], "options": {"path": str(output)}}]),
        ):
            config = folder / "exporter.yml"
            config.write_text(json.dumps({"records": {"capacity": records}, "handlers": handlers}))
            with running("--mode=ebpf_core", f"--config.file={config}") as exporter:
                time.sleep(1)
                _paced(exporter, lives, title)
                if handlers:
                    time.sleep(2)
                    late = sorted(json.loads(output.read_text()))
                    cuts = [each / 1e6 for each in statistics.quantiles(late, n=1000)]
                    p50, p99, most = cuts[499], cuts[989], cuts[998]
                    print(f"  exit to handler, {len(late)} records: p50 {p50:.3f} ms, p99 {p99:.3f}, p99.9 {most:.3f}")
                _storm(exporter, str(workload.storm))


def _paced(exporter: Running, lives: Path, title: str) -> None:
    cpu = exporter.cpu_seconds()
    subprocess.run([lives, "10000", "1000", "1000", "rename", "bench-paced"], check=True, capture_output=True)
    cpu = exporter.cpu_seconds() - cpu
    print(f"{title}: 10,000 processes, 1,000 a second: {cpu * 10:.1f} % of a core, RSS {exporter.rss_mib():.1f} MiB")


def _storm(exporter: Running, storm: str) -> None:
    time.sleep(1)
    before, cpu, begun = exporter.samples(), exporter.cpu_seconds(), time.monotonic()
    for _ in range(_STORMS):
        subprocess.run([storm, "vfork", "100000"], check=True, capture_output=True)
    took = time.monotonic() - begun
    time.sleep(3)
    after, cpu = exporter.samples(), exporter.cpu_seconds() - cpu

    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    came = grown("shortproc_detection_latency_seconds_count")
    dropped, short = grown("shortproc_records_dropped_total", consumer="reader"), grown("shortproc_ended_short_processes_total")
    rate = 100_000 * _STORMS / took
    print(f"  {_STORMS} x 100,000 vfork+exit, {rate:,.0f} a second: {cpu / took:.0%} of a core, RSS {exporter.rss_mib():.1f} MiB")
    print(f"    short ends {short:.0f}, records {came:.0f} + dropped {dropped:.0f}")


if __name__ == "__main__":
    main()
