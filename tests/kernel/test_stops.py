"""Processes of the exporter that are stopped for a while (SIGSTOP, `docker pause`, a debugger), or whose parent ignores signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil
import pytest

from bench.exporter import free_port
from exporter.model import Lost, Mode
from tests.folders import public
from tests.kernel.bcc_watching import needs_bcc
from tests.kernel.netlink_watching import needs_netlink
from tests.kernel.programs import Program, until
from tests.kernel.test_app import CHECKOUT, Running, Samples, _mode, command, running
from tests.kernel.test_kills import children, gone

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only as root it has a broker"),
    pytest.mark.usefixtures("requires_bpf"),
    pytest.mark.commands,
]

STOP_SECONDS = 2.2
"""Longer than any time that the exporter waits for by itself."""
END_SECONDS = 20
EXACT = (Mode.EBPF_CORE, Mode.EBPF_BCC, Mode.NETLINK)
ENDS = 300
MOST_OPTIONS = "metrics: {new_series_hold_seconds: 0, max_comms: 1000}\n"


@pytest.fixture
def sinks() -> Iterator[Path]:
    """A directory that belongs to an ordinary user."""
    with tempfile.TemporaryDirectory(prefix="shortproc-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        os.chown(name, 54321, 54321)
        yield Path(name)


def stopped(processes: list[psutil.Process], workload: Program) -> None:
    """Let a storm pass while they stand still."""
    for each in processes:
        each.suspend()
    started = time.monotonic()
    workload.storm("end", ENDS, 0)
    time.sleep(max(0, started + STOP_SECONDS - time.monotonic()))
    for each in processes:
        each.resume()


def ends_of(samples: Samples, program: Program) -> float:
    comm = ("comm", program.comm.decode())
    return sum(value for (name, labels), value in samples.items() if name == "shortproc_comm_exits_total" and comm in labels)


def losses(samples: Samples) -> dict[str, float]:
    """Of processes; others that use the slot of a path cost a path only."""
    lost, only_paths = "shortproc_detection_lost_total", Lost.EXES_FULL
    found = {dict(labels)["reason"]: value for (name, labels), value in samples.items() if name == lost and value}
    return {reason: value for reason, value in found.items() if reason != only_paths}


def terminated(exporter: Running, standing: psutil.Process | None = None) -> str:
    """Told to stop, it ends with success and without a traceback, and so does its broker once that goes on; what they logged."""
    exporter.child.terminate()
    try:
        status = exporter.child.wait(END_SECONDS)
    finally:
        if standing is not None:
            standing.resume()
    _, said = exporter.child.communicate(timeout=END_SECONDS)  # to the end of whoever writes there
    assert status == 0, said
    assert "Traceback" not in said
    return said


@needs_bcc
@needs_netlink
def test_each_process_may_be_stopped_for_a_while(workload: Program, sinks: Path, tmp_path: Path) -> None:
    """In every mode it goes on: the exact ones count and record what happened meanwhile, and all end well when they are told."""
    public(tmp_path)
    with ExitStack() as stack:
        exporters: dict[Mode, Running] = {}
        for mode in Mode:
            config = tmp_path / f"{mode}.yml"
            config.write_text(f"{MOST_OPTIONS}sinks: {{jsonl: {{path: {sinks}/{mode}.jsonl}}}}\n")
            exporters[mode] = stack.enter_context(running(f"--mode={mode}", "--config.file", str(config)))
        families = [until(partial(children, each), lambda found: len(found) == 2) for each in exporters.values()]
        servers = [psutil.Process(each.child.pid) for each in exporters.values()]
        brokers, handlers = ([family[name] for family in families] for name in ("broker", "handlers"))
        phases = servers, brokers, handlers, [*servers, *brokers, *handlers]
        for phase in phases:
            stopped(phase, workload)
        expected = len(phases) * (ENDS + 1)
        assert {mode: _mode(each.samples()) for mode, each in exporters.items()} == {mode: mode for mode in Mode}
        for mode in EXACT:
            samples = until(exporters[mode].samples, lambda samples: ends_of(samples, workload) >= expected)
            assert (mode, ends_of(samples, workload), losses(samples)) == (mode, expected, {})
        for mode, exporter in exporters.items():
            terminated(exporter)
            if mode in EXACT:
                assert (mode, (sinks / f"{mode}.jsonl").read_text().count(f'"comm":"{workload.comm.decode()}"')) == (mode, expected)


@pytest.mark.parametrize("mode", [Mode.EBPF_CORE, pytest.param(Mode.NETLINK, marks=needs_netlink)])
def test_told_to_stop_while_its_broker_stands_still(mode: Mode) -> None:
    """The broker can't be killed by a process without privileges; it ends by itself when it goes on."""
    with running(f"--mode={mode}", "--config.file", os.devnull) as exporter:
        broker = children(exporter)["broker"]
        broker.suspend()
        assert "broker has not exited yet" in terminated(exporter, standing=broker)
        assert until(lambda: gone(broker), bool)


def test_told_to_stop_while_it_waits_for_its_broker(tmp_path: Path) -> None:
    """A load may take a minute, and a broker that stands still never answers."""
    public(tmp_path)
    config = tmp_path / "exporter.yml"
    config.write_text("detection: {mode: scan}\n")
    with running("--config.file", str(config)) as exporter:
        broker = children(exporter)["broker"]
        broker.suspend()
        config.write_text("detection: {mode: ebpf_core}\n")
        exporter.child.send_signal(signal.SIGHUP)
        time.sleep(1)  # the request is under way
        assert "did not answer before this process was told to stop" in terminated(exporter, standing=broker)


HANDLER = """
import os, time
from exporter.handlers import Handler

class Waits(Handler):
    def handle(self, batch):
        open({entered!r}, "w").close()
        while not os.path.exists({go!r}):
            time.sleep(0.01)
"""


def test_a_stop_is_not_taken_for_a_handler_that_hangs(workload: Program, sinks: Path, tmp_path: Path) -> None:
    """All processes of a frozen cgroup stand still: a handler that was at work when they did has not used that time."""
    public(tmp_path)
    entered, go, config = sinks / "entered", sinks / "go", tmp_path / "exporter.yml"
    (tmp_path / "frozen.py").write_text(HANDLER.format(entered=str(entered), go=str(go)))
    config.write_text(
        f"handlers: [{{name: frozen:Waits, path: [{tmp_path}], timeout_seconds: 4}}]\nsinks: {{jsonl: {{path: {sinks}/r.jsonl}}}}\n"
    )
    with running("--config.file", str(config)) as exporter:
        workload.storm("end", 1, 0)
        assert until(entered.exists, bool, END_SECONDS)
        child = children(exporter)["handlers"]
        server = psutil.Process(exporter.child.pid)
        time.sleep(1.2)  # it has seen that, too
        for each in (server, child):
            each.suspend()
        time.sleep(4.2)
        server.resume()
        time.sleep(0.3)  # it looks first
        go.touch()
        child.resume()
        restarts = "shortproc_handler_restarts_total", frozenset[tuple[str, str]]()
        assert until((sinks / "r.jsonl").exists, bool)
        assert exporter.samples()[restarts] == 0
        terminated(exporter)


@needs_bcc
def test_a_parent_that_ignores_its_children(tmp_path: Path) -> None:
    """A program inherits that, and would lose the status of each child: which interpreter has bcc could not be told."""
    port = free_port()
    ignoring = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    whole = [sys.executable, "-c", ignoring, *command(port, "--mode=ebpf_bcc", "--config.file", os.devnull)]
    with subprocess.Popen(whole, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) as child:
        exporter = Running(child, port)
        try:
            assert until(lambda: exporter.ready() or child.poll() is not None, bool)
            assert child.returncode is None, child.communicate()[1]
            assert _mode(exporter.samples()) == Mode.EBPF_BCC
            terminated(exporter)
        finally:
            child.kill()
