"""Inside another kernel: what the commands say, and for whom processes ran."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from exporter.kernel.cgroups import hierarchy
from exporter.model.lifetimes import FINE
from exporter.records.record import Record
from tests.kernel import programs
from tests.kernel.programs import Program, until, watching
from tests.origins import origins_of
from tests.vm.report import Report

CHECKOUT = Path(__file__).parents[2]
NAME = "shortproc-exporter"
_BEST = 'shortproc_detection_mode{mode="ebpf_core"} 1.0'
NOTHING, WORKLOAD = (Path(os.environ.get("WORKLOADS", ""), name) for name in ("nothing", "workload"))
"""Compiled by tests/vm/run, outside, where that is quick."""
CGROUP2 = Path("/sys/fs/cgroup")
SLOW = replace(programs.SLOW, lifetimes=FINE)
"""Every process counts as short, however slow the machine. Verifiers see the longer rows here, and the others where it is served."""
WAIT_SECONDS = 400
_PROCESSES = 50


def modes(report: Report) -> None:
    """Note what `doctor` says of each mode: nothing if it runs, else the reason."""
    command = [sys.executable, "-m", "exporter", "doctor"]
    said = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False).stdout
    for line in said.splitlines():
        mode, _, rest = line.partition(" ")
        verdict, _, reason = rest.strip().partition(" ")
        if verdict in ("usable", "no"):
            report.fact(mode, "" if verdict == "usable" else reason.strip())
    report.fact("selected", said.rpartition("selects: ")[2].strip())


def records_and_owners(report: Report, nothing: Path, folder: Path) -> None:
    """Processes of three cgroups: each has its record with all that is known, and each cgroup its count."""
    if not hierarchy().root:
        subprocess.run(["mount", "-t", "cgroup2", "none", str(CGROUP2)], check=True)
    root = Path(hierarchy().root)
    got: list[Record] = []
    with watching(SLOW) as source:
        source.publish(got.extend, live=True)
        program = Program.copied(nothing, folder)
        for number in range(3):
            cgroup = root / f"shortproc-vm-{number}"
            cgroup.mkdir(exist_ok=True)
            for _ in range(_PROCESSES):
                _run_inside(cgroup, program)

        def mine() -> list[Record]:
            return [each for each in got if each.comm == program.comm]

        records = until(mine, lambda found: len(found) >= 3 * _PROCESSES, 20)
        counted = Counter[bytes]()
        for origin, row in origins_of(source).rows.items():
            if origin.comm == program.comm:
                counted[origin.cgroup] += row.short_exits
        report.check("records dropped", source.peek().records_dropped, 0)
    wanted = {f"/shortproc-vm-{number}".encode(): _PROCESSES for number in range(3)}
    report.check("records by cgroup", dict(Counter(each.cgroup for each in records)), wanted)
    report.check("processes by cgroup", dict(counted), wanted)
    report.check("executables", {each.exe for each in records}, {os.fsencode(program.path)})
    report.check("parents", {each.ppid for each in records}, {os.getpid()})
    # a record waits 250 ms for it, which is not always enough on an emulated machine
    report.fact(f"records with CPU, of {len(records)}", sum(each.cpu_ns is not None for each in records))


def _run_inside(cgroup: Path, program: Program) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            (cgroup / "cgroup.procs").write_text("0")
            os.execv(program.path, [str(program.path)])
        finally:
            os._exit(1)
    os.waitpid(pid, 0)


def package(report: Report) -> None:
    """The Debian package is installed, with all that it depends on, and works. Guests with a tree of their own get one for it."""
    deb = next(NOTHING.parent.glob("*.deb"), None)
    if deb is None:
        raise FileNotFoundError("no package was built for this guest")
    done = subprocess.run(["dpkg", "--install", str(deb)], capture_output=True, text=True, check=False)
    report.check("exit status of dpkg", (done.returncode, done.stderr.strip() if done.returncode else ""), (0, ""))
    state = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Status}, ${Architecture}", NAME], capture_output=True, text=True, check=True
    ).stdout
    mine = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    report.check("state", state, f"install ok installed, {mine}")
    # emulated, loading may take longer than the exporter waits, so any mode will do: other sections check the programs
    serving(report, [f"/usr/bin/{NAME}"], "shortproc_detection_mode{")


def serving(report: Report, command: Sequence[str] = (sys.executable, "-m", "exporter"), works: str = _BEST) -> None:
    """The whole program, and one scrape of it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with subprocess.Popen([*command, f"--web.listen-address={address}"], cwd=CHECKOUT) as child:
        try:
            text = until(lambda: _scrape(address), lambda text: works in text, WAIT_SECONDS)
            text = until(lambda: _scrape(address), lambda text: "capture_ratio 1.0" in text, 10)
        finally:
            child.terminate()
            status = child.wait(WAIT_SECONDS)
    for line in text.splitlines():
        if line.startswith(("shortproc_detection_capture_ratio", "shortproc_detection_lost_total")) and not line.endswith(" 0.0"):
            report.fact(*line.rsplit(" ", 1))
    report.check("mode, samples, exit status", [works in text, text.count("\n") > 100, status], [True, True, 0])


def _scrape(address: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=WAIT_SECONDS) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""
