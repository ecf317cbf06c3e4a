"""Events, end to end, by the real exporter: from 1,000 execs a second in the kernel to a handler, and what that costs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import results
from bench.exporter import Running, running
from bench.storms import total
from bench.workloads import built

_ROOT = Path(__file__).parents[1]
_N, _RATE = 20_000, 1000
_NAME = "bench-lives"
_HANDLER = '''
import json, time
from exporter.handlers import Handler

class Late(Handler):
    """Notes how long each event was on its way."""

    def __init__(self, path):
        self.path, self.late_ns = path, []

    def handle_events(self, batch):
        now = time.time_ns()
        self.late_ns += (now - event.at_ns for event in batch)

    def close(self):
        with open(self.path, "w") as file:
            json.dump(self.late_ns, file)
'''
_NOBODY = 65534
_CASES: dict[str, dict[str, Any] | None] = {
    "no handler": None,
    "exec, filtered by comm": {"events": ["exec"], "filter": {"comm": [_NAME]}},
    "exec": {"events": ["exec"]},
    "fork, exec, exit, signal": {"events": ["fork", "exec", "exit", "signal"]},
    "exec of another name": {"events": ["exec"], "filter": {"comm": ["no-such-name"]}},
}


def main() -> None:
    """Print the figures; with WRITE=1, `make docs` writes them into docs/handlers.md."""
    measured = {}
    with built() as workload, tempfile.TemporaryDirectory(dir="/run") as name:
        folder = Path(name)
        folder.chmod(0o755)
        lives = workload.tiny.with_name(_NAME)
        subprocess.run(["cc", "-O2", "-static", "-o", lives, _ROOT / "bench" / "lives.c"], check=True)
        (folder / "late.py").write_text(_HANDLER)
        (folder / "out").mkdir()
        os.chown(folder / "out", _NOBODY, _NOBODY)
        output = folder / "out" / "late.json"
        for title, case in _CASES.items():
            handler = {"name": "late:Late", "path": [name], "options": {"path": str(output)}, "records": False}
            handlers = [] if case is None else [handler | case]
            (config := folder / "exporter.yml").write_text(json.dumps({"records": {"capacity": 0}, "handlers": handlers}))
            with running("--mode=ebpf_core", f"--config.file={config}") as exporter:
                time.sleep(2)
                measured[title] = _paced(exporter, lives, title)
            late = sorted(json.loads(output.read_text())) if handlers else []
            if len(late) > 1:
                cuts = [each / 1e6 for each in statistics.quantiles(late, n=100)]
                print(f"  event to handler, {len(late)} events: p50 {cuts[49]:.3f} ms, p99 {cuts[98]:.3f} ms")
    idle = measured["no handler"]["percent"]
    exec_ = measured["exec"]
    results.write("events", {"rate": _RATE, "execs": _N, **exec_, "more_percent": round(exec_["percent"] - idle, 1)})


def _paced(exporter: Running, lives: Path, title: str) -> dict[str, float]:
    before, cpu, begun = exporter.samples(), exporter.cpu_seconds(), time.monotonic()
    subprocess.run([lives, str(_N), str(_RATE), "1000", "exec", lives], check=True, capture_output=True)
    time.sleep(0.5)
    percent = 100 * (exporter.cpu_seconds() - cpu) / (time.monotonic() - begun)
    time.sleep(1)
    after = exporter.samples()

    def grown(name: str) -> float:
        return total(after, name) - total(before, name)

    came, dropped, handled = map(grown, ("shortproc_events_total", "shortproc_events_dropped_total", "shortproc_handler_events_total"))
    print(f"{title}: {_N} execs, {_RATE} a second: {percent:.1f} % of a core (serving process)")
    print(f"  execs counted {grown('shortproc_execs_total'):.0f}, events {came:.0f}, handled {handled:.0f}, dropped {dropped:.0f}")
    return {"percent": round(percent, 1), "events": round(came), "handled": round(handled), "dropped": round(dropped)}


if __name__ == "__main__":
    main()
