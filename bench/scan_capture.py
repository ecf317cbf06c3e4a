"""What the scan modes catch, as an ordinary user: the published ratio against what is true, and what it costs.

    python -m bench.scan_capture [--window 60] [--rate 50] [--lives 1,5,20,100] [--exec] [--json FILE]

For each life, `--rate` processes a second live that long while `fast_scan` looks. Truth is the part of them that it counted, under
their own name (named) or, with --exec, under that which they had before (seen). The published ratio is what
`shortproc_detection_capture_ratio` would say of the same window, so the other clones of the machine are in it too. Afterwards, what
`scan` costs with 300 processes. Needs a C compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from exporter.kernel.procfs import Procfs
from exporter.model import NS, Lost, Outcome, RuntimeScale
from exporter.model.dimensions import COMM
from exporter.sources.scan.fast import FastScanSource
from exporter.sources.scan.slow import ScanSource

SCALE = RuntimeScale(NS, (100_000, 1_000_000, 5_000_000, 20_000_000, 100_000_000, NS))
NOBODY = 65534
SETTLE_SECONDS = 0.5


@dataclass(frozen=True)
class Result:
    """One window. Percentages are of processes (`seen`, `named`) and of clones (`published`); times in milliseconds."""

    life_ms: float
    started: int
    seen_percent: float
    named_percent: float
    published_percent: float
    difference_points: float
    others: int
    """Clones of the rest of the machine."""
    mean_runtime_ms: float | None
    vanished: int
    unseen: int
    cpu_percent: float


def fast_scan_window(lives: Path, life_ms: float, rate: int, seconds: int, *, by_exec: bool) -> Result:
    """Run one window."""
    procfs = Procfs()
    source = FastScanSource(SCALE, procfs)
    source.start()
    time.sleep(SETTLE_SECONDS)
    target = "life-exec" if by_exec else "life-fork"
    how = ["exec", str(lives.with_name(target))] if by_exec else ["rename", target]
    command = [str(lives), str(rate * seconds), str(rate), str(int(life_ms * 1000)), *how]
    kernel, clones, cpu, begun = procfs.kernel_clones() or 0, source.clones(), source.cpu_ns, time.monotonic_ns()
    started = int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout)
    cpu_percent = 100 * (source.cpu_ns - cpu) / (time.monotonic_ns() - begun)
    time.sleep(life_ms / 1000 + SETTLE_SECONDS)
    kernel = (procfs.kernel_clones() or 0) - kernel
    published = 100 * (source.clones() - clones) / max(1, kernel)
    source.stop()
    counts = source.drain()
    procfs.close()
    mine = counts.of(COMM).row(target.encode())
    named = mine.exits[Outcome.UNKNOWN.position]
    seen = named + max(0, counts.of(COMM).row(lives.name.encode()).exits[Outcome.UNKNOWN.position] - 1)  # less the one that starts them
    return Result(
        life_ms=life_ms,
        started=started,
        seen_percent=round(100 * seen / started, 2),
        named_percent=round(100 * named / started, 2),
        published_percent=round(published, 2),
        difference_points=round(published - 100 * seen / started, 2),
        others=kernel - started - 1,
        mean_runtime_ms=round(mine.runtime_ns / named / 1e6, 2) if named else None,
        vanished=counts.lost.get(Lost.VANISHED, 0),
        unseen=counts.lost.get(Lost.UNSEEN, 0),
        cpu_percent=round(cpu_percent, 2),
    )


def scan_cost(lives: Path, processes: int, seconds: int) -> dict[str, float]:
    """Measure what a scan each second costs while at least `processes` exist."""
    life_us = (seconds + 5) * 1_000_000
    more = max(0, processes - len(Procfs().pids()))
    subprocess.run([str(lives), str(more), "1000", str(life_us), "rename", "life-long"], check=True, capture_output=True, timeout=60)
    source = ScanSource(SCALE, Procfs())
    source.start()
    there, cpu, begun = len(Procfs().pids()), time.process_time_ns(), time.monotonic_ns()
    time.sleep(seconds)
    cost = 100 * (time.process_time_ns() - cpu) / (time.monotonic_ns() - begun)
    duration = source.gauges().scan_duration_seconds or 0.0
    source.stop()
    return {"processes": there, "cpu_percent": round(cost, 3), "last_pass_ms": round(duration * 1000, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window", type=int, default=60, help="seconds for each life")
    parser.add_argument("--rate", type=int, default=50, help="processes a second")
    parser.add_argument("--lives", default="1,5,20,100", help="milliseconds, comma separated")
    parser.add_argument("--exec", action="store_true", help="children execute another program, instead of renaming themselves")
    parser.add_argument("--json", type=Path, help="write the results there too")
    options = parser.parse_args()
    output = options.json.open("w") if options.json else None
    with tempfile.TemporaryDirectory() as folder:
        lives = Path(folder) / "lives"
        subprocess.run(["cc", "-O2", "-static", "-o", lives, Path(__file__).with_name("lives.c")], check=True)
        shutil.copy(lives, lives.with_name("life-exec"))
        Path(folder).chmod(0o755)
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, 0)  # the saved id is for removing the folder
        columns = list(Result.__dataclass_fields__)
        print(f"{platform.release()}, {os.cpu_count()} cores, uid {os.geteuid()}, {options.rate}/s for {options.window} s")
        print(*(f"{column:>18}" for column in columns))
        results = []
        for life in options.lives.split(","):
            results.append(fast_scan_window(lives, float(life), options.rate, options.window, by_exec=options.exec))
            print(*(f"{value!s:>18}" for value in asdict(results[-1]).values()), flush=True)
        cost = scan_cost(lives, 300, min(10, options.window))
        print(f"scan each second: {cost}")
        if os.getresuid()[2] == 0:
            os.setresuid(0, 0, 0)
    if output:
        machine = {"kernel": platform.release(), "cores": os.cpu_count(), "python": platform.python_version()}
        rows = [asdict(result) for result in results]
        run = {"machine": machine, "rate": options.rate, "window_seconds": options.window}
        json.dump(run | {"fast_scan": rows, "scan": cost}, output, indent=2)
        output.close()


if __name__ == "__main__":
    main()
