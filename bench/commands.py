"""What the commands `snoop` and `top` cost while short processes come.

python -m bench commands                     # with WRITE=1, `make docs` writes the figures into docs/snoop.md and docs/top.md
AGAINST=REVISION python -m bench commands    # the commands of another revision too, in turn

`snoop` prints a storm into a file. `top` runs on a terminal of 80x24, at an even pace. Its main thread takes records and draws; other
threads read records and count, as for every command.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

from bench import results
from bench.exporter import cpu_seconds, running
from bench.revisions import ROOT, checked_out
from bench.workloads import Workload, built
from tests.terminal import Terminal

_ROUNDS = int(os.environ.get("ROUNDS", "7"))
_STORM = 3000
_PACED, _RATE, _LIFE_US = 10_000, 2000, 300
_START_SECONDS, _SETTLE_SECONDS = 1.5, 0.6
_STILL_SECONDS = 5.0
"""Within the window of 10 s that `top` shows."""
_COLUMNS, _LINES = 80, 24

Figures = dict[str, float]


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "exporter", *words]


def _storm(workload: Workload) -> float:
    """Return the seconds of a storm."""
    began = time.monotonic()
    workload.run("forkexec", _STORM, workload.tiny)
    return time.monotonic() - began


def _snoop(workload: Workload, checkout: Path) -> Figures:
    """Return microseconds of CPU for each process of a storm, seconds of the storm, and the lines that tell of it."""
    command, variables = _command("snoop", "--mode=ebpf_core"), os.environ | {"PYTHONPATH": str(checkout)}
    with tempfile.TemporaryFile() as file:
        with subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, cwd=checkout, env=variables) as child:
            assert child.stderr is not None
            child.stderr.readline()  # it observes now
            time.sleep(_START_SECONDS)
            cpu = cpu_seconds(child.pid)
            took = _storm(workload)
            time.sleep(_SETTLE_SECONDS)
            cpu = cpu_seconds(child.pid) - cpu
            child.send_signal(signal.SIGTERM)
        file.seek(0)
        caught = sum(line.split()[3:4] == [workload.tiny.name.encode()] for line in file)
    return {"cpu_us": cpu / _STORM * 1e6, "seconds": took, "caught": caught}


def _main_thread_seconds(pid: int) -> float:
    """Return the CPU time of the main thread: the first number of schedstat (Documentation/scheduler/sched-stats.rst)."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def _top(lives: Path, checkout: Path, url: str | None = None) -> Figures:
    """Return per cent of a core while processes come at an even pace: of `top`, of its main thread, and of drawing alone."""
    words = ("top", "--mode=ebpf_core") if url is None else ("top", f"--url={url}")
    with Terminal(_command(*words), _COLUMNS, _LINES, PYTHONPATH=str(checkout)) as terminal:
        terminal.wait_for(lambda lines: "SHORT/s" in "".join(lines))
        terminal.after(_START_SECONDS)
        pid = terminal.child.pid
        all_, main, began = cpu_seconds(pid), _main_thread_seconds(pid), time.monotonic()
        with subprocess.Popen([lives, str(_PACED), str(_RATE), str(_LIFE_US), "exec", lives], stdout=subprocess.DEVNULL) as pace:
            while pace.poll() is None:
                terminal.after(0.2)
        took = time.monotonic() - began
        all_, main = cpu_seconds(pid) - all_, _main_thread_seconds(pid) - main
        still = _main_thread_seconds(pid)
        terminal.after(_STILL_SECONDS)
        still = _main_thread_seconds(pid) - still
        terminal.ended(signal.SIGTERM)
    return {
        "rate": _PACED / took,
        "percent": 100 * all_ / took,
        "main_percent": 100 * main / took,
        "draw_percent": 100 * still / _STILL_SECONDS,
    }


def _top_of_another(lives: Path, checkout: Path) -> Figures:
    with running("--mode=ebpf_core", checkout=checkout) as exporter:
        return _top(lives, checkout, f"http://127.0.0.1:{exporter.port}")


def _slower(storms: list[Figures], quiet: list[float]) -> float:
    """Return by how many per cent storms are slower than the means of the storms before and after them."""
    return median(100 * (each["seconds"] / mean(quiet[at : at + 2]) - 1) for at, each in enumerate(storms))


def _medians(rounds: list[Figures]) -> Figures:
    return {key: round(median(each[key] for each in rounds), 1) for key in rounds[0]}


def _measured(checkouts: dict[str, Path], workload: Workload, lives: Path) -> dict[str, dict[str, Any]]:
    """Return the medians of all rounds, by command and checkout."""
    commands: dict[str, Callable[[Path], Figures]] = {
        "snoop": partial(_snoop, workload),
        "top": partial(_top, lives),
        "top_url": partial(_top_of_another, lives),
    }
    found: dict[str, dict[str, Any]] = {}
    for command, measure in commands.items():
        rounds: dict[str, list[Figures]] = {name: [] for name in checkouts}
        quiet: dict[str, list[float]] = {name: [_storm(workload)] for name in checkouts}
        for number in range(_ROUNDS):
            for name in list(checkouts)[:: 1 if number % 2 else -1]:
                rounds[name].append(measure(checkouts[name]))
                if command == "snoop":
                    quiet[name].append(_storm(workload))
        for name, each in rounds.items():
            figures = _medians(each) | ({"slower_percent": round(_slower(each, quiet[name]), 1)} if command == "snoop" else {})
            found.setdefault(name, {})[command] = figures
            print(f"{command}, {name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
    return found


@contextmanager
def _checkouts() -> Iterator[dict[str, Path]]:
    """Yield this checkout, and that of another revision if one is asked for."""
    revision = os.environ.get("AGAINST")
    with contextlib.ExitStack() as stack:
        yield {"this one": ROOT} | ({revision: stack.enter_context(checked_out(revision))} if revision else {})


def main() -> None:
    """Print the medians."""
    with built() as workload, _checkouts() as checkouts:
        lives = workload.tiny.with_name("bench-lives")
        subprocess.run(["cc", "-O2", "-static", "-o", lives, ROOT / "bench" / "lives.c"], check=True)
        found = _measured(checkouts, workload, lives)
    results.write("commands", {"rounds": _ROUNDS, "storm": _STORM, "paced": _RATE, **found["this one"]})


if __name__ == "__main__":
    main()
