"""This exporter beside what people use today to see short processes, in one run.

python -m bench compare            # prints the table
WRITE=1 python -m bench compare    # keeps it, with a plot, in bench/results; `make docs` writes it into README.md
ROUNDS=1 python -m bench compare   # fewer rounds than 7, to try it

Each round starts each tool anew, runs a storm without it and one with it, and compares that with the mean of the two storms next to it
without one. The figures are medians of the rounds. Servers are scraped each second.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from pathlib import Path
from statistics import mean, median
from typing import Any

from bench import results
from bench.costs import programs, run_ns, statistics
from bench.peers import PEERS, Peer, Session, Skipped, started
from bench.plot import bars
from bench.processes import taken
from bench.workloads import Workload, built

_ROUNDS = int(os.environ.get("ROUNDS", "7"))
_STORM = 5000
_MEASURED_STORM = 1000
"""While the kernel measures BPF programs, which costs a little itself."""
_SIGHTS = 15
_SETTLE_SECONDS = 2.5
"""Longer than the interval of atop."""
_SIGHT_SECONDS = 10.0
"""Longer than the interval at which new names get series."""
_SCRAPES = 20
_TRACING = Path("/sys/kernel/tracing")


@dataclass(slots=True)
class _Figures:
    """Of one tool, one value for each round."""

    caught: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    """CPU of the tool, for each process of the storm."""
    pss_mib: list[float] = field(default_factory=list)
    slower_percent: list[float] = field(default_factory=list)
    bpf_ns: list[float] = field(default_factory=list)
    """Of BPF programs, for each process."""
    sight_ms: list[float] = field(default_factory=list)
    """From the end of a process with a new name until an output or a scrape tells of it; empty if none does while the tool runs."""
    scrape_ms: list[float] = field(default_factory=list)
    scrape_kib: list[float] = field(default_factory=list)


def _seconds(workload: Workload) -> float:
    begun = time.monotonic()
    workload.run("forkexec", _STORM, workload.tiny)
    return time.monotonic() - begun


@contextmanager
def _scraped(session: Session) -> Iterator[None]:
    """Scrape a server each second meanwhile, and once more after."""
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(1):
            with suppress(OSError, HTTPException):
                session.scrape()

    thread = threading.Thread(target=scrape, daemon=True)
    if session.peer.serves:
        thread.start()
    yield
    time.sleep(_SETTLE_SECONDS)
    if session.peer.serves:
        over.set()
        thread.join()
        session.scrape()


def _round(peer: Peer, workload: Workload, figures: _Figures, number: int) -> float:
    """Run a tool once. Returns the seconds of the storm with it. Raises `Skipped`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        probe = _renamed(workload.tiny, folder, "peer-probe")
        before = set(programs())
        with started(peer, folder) as session:
            session.wait_until_ready(probe, lambda: bool(set(programs()) - before))
            time.sleep(1)
            if number == 0 and not peer.prints_at_end:
                figures.sight_ms += _sights(session, workload, folder)
            cpu = session.cpu_seconds()
            with _scraped(session):
                took = _seconds(workload)
            figures.cpu_us.append((session.cpu_seconds() - cpu) / _STORM * 1e6)
            figures.pss_mib.append(taken(each.pid for each in session.processes()).pss_kib / 1024)
            _measure_programs(set(programs()) - before, workload, _renamed(workload.tiny, folder, "peer-other"), figures)
            if peer.serves and number == 0:
                _measure_scrapes(session, figures)
            if reason := session.failed():
                raise Skipped(f"it ended: {reason}")
        figures.caught.append(peer.caught(session.text(), workload.tiny.name))
    return took


def _renamed(program: Path, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(program.read_bytes())
    path.chmod(0o755)
    return path


def _sights(session: Session, workload: Workload, folder: Path) -> list[float]:
    """Return the milliseconds from the end of each of some processes until its name is seen; nothing if one never is."""
    late = []
    for number in range(_SIGHTS):
        program = _renamed(workload.tiny, folder, f"peer-sight-{number}")
        subprocess.run([program], check=True)
        ended = time.monotonic()
        while not session.peer.caught(_look(session), program.name):
            if time.monotonic() > ended + _SIGHT_SECONDS:
                return []
            time.sleep(0.001)
        late.append((time.monotonic() - ended) * 1000)
    return late


def _look(session: Session) -> str:
    if session.peer.serves:
        session.scrape()
    return session.text()


def _measure_programs(numbers: set[int], workload: Workload, other: Path, figures: _Figures) -> None:
    if not numbers:
        figures.bpf_ns.append(0)
        return
    with statistics():
        before = run_ns(numbers)
        workload.run("forkexec", _MEASURED_STORM, other)
        time.sleep(0.5)
        figures.bpf_ns.append((run_ns(numbers) - before) / _MEASURED_STORM)


def _measure_scrapes(session: Session, figures: _Figures) -> None:
    for _ in range(_SCRAPES):
        begun = time.perf_counter()
        body = session.scrape()
        figures.scrape_ms.append((time.perf_counter() - begun) * 1000)
        figures.scrape_kib.append(len(body) / 1024)


@contextmanager
def _tracefs() -> Iterator[None]:
    """Mount it meanwhile: tools need it to attach to tracepoints."""
    if (_TRACING / "events").exists():
        yield
        return
    subprocess.run(["mount", "-t", "tracefs", "tracefs", _TRACING], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", _TRACING], check=True)


def _measured(workload: Workload) -> tuple[dict[str, _Figures], dict[str, str], list[float]]:
    """Return the figures of each tool, why others were skipped, and the percentages by which storms without any tool differ."""
    figures = {peer.name: _Figures() for peer in PEERS}
    skipped: dict[str, str] = {}
    noise = []
    _seconds(workload)
    for number in range(_ROUNDS):
        quiet = [_seconds(workload)]
        for peer in PEERS:
            if peer.name in skipped:
                continue
            try:
                took = _round(peer, workload, figures[peer.name], number)
            except Skipped as reason:
                skipped[peer.name] = str(reason)
                print(f"{peer.name}: skipped: {reason}", flush=True)
                continue
            quiet.append(_seconds(workload))
            figures[peer.name].slower_percent.append(100 * (took / mean(quiet[-2:]) - 1))
            noise.append(100 * (quiet[-1] / quiet[-2] - 1))
        print(f"round {number + 1} of {_ROUNDS}", flush=True)
    return {name: each for name, each in figures.items() if name not in skipped}, skipped, noise


def main() -> None:
    """Print a line for each tool."""
    with built("peer-storm", "peer-tiny") as workload, _tracefs():
        figures, skipped, noise = _measured(workload)
    rows: dict[str, dict[str, Any]] = {}
    for name, each in figures.items():
        rows[name] = {key: round(median(values), 2) if values else None for key, values in asdict(each).items()}
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in rows[name].items()))
    spread = round(median(map(abs, noise)), 2)
    print(f"storms without any tool differ by {spread} % (median)")
    results.write("compare", {"rounds": _ROUNDS, "storm": _STORM, "noise_percent": spread, "tools": rows, "skipped": skipped})
    if results.kept():
        columns = {"caught of 5,000": "caught", "storm slower by, %": "slower_percent", "CPU for each process, us": "cpu_us"}
        panels = {title: {name: row[key] for name, row in rows.items()} for title, key in columns.items()}
        (results.FOLDER / "compare.svg").write_text(bars(panels))


if __name__ == "__main__":
    main()
