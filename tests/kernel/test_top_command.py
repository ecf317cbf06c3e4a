"""`top` as its users run it: on a real terminal, with real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.programs import Program
from tests.kernel.test_app import CHECKOUT, running
from tests.terminal import Terminal

pytestmark = pytest.mark.commands

TOP = [sys.executable, "-m", "exporter", "top"]
SECONDS = 60
HOSTILE = b"\x1b[31m\x1b[2J\x07"
"""A name of 12 bytes that clears a terminal, if it gets there."""


@contextmanager
def busy(workload: Program) -> Iterator[None]:
    """Keep the workload running: it starts children that exit with 7."""
    stopping = threading.Event()

    def run() -> None:
        while not stopping.is_set():
            workload.storm("end", 20, 7)
            stopping.wait(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def test_on_a_terminal(requires_bpf: None, workload: Program) -> None:
    """A burst is there by name and parent at 80x24; keys, filter, pause and resizing work; `q` leaves the terminal as it was."""
    comm = workload.comm.decode()
    with Terminal([*TOP, f"--parent={comm}"]) as terminal, busy(workload):
        lines = terminal.wait_for(lambda lines: any(line.split()[5:7] == [comm, comm] for line in lines))
        assert "mode ebpf_core" in lines[0]
        assert lines[23].startswith("n:name")
        (row,) = [line.split() for line in lines if line.split()[5:6] == [comm]]
        assert float(row[0]) > 0
        assert int(row[1]) > 0
        terminal.type("t")
        terminal.wait_for(lambda lines: "TREE" in lines[4] and any("`-" in line for line in lines))
        terminal.type("u")
        terminal.wait_for(lambda lines: "USER" in lines[4] and any(" root " in line for line in lines))
        terminal.type("n/nothing has this")
        terminal.wait_for(lambda lines: lines[23] == "filter: nothing has this_" and not lines[5])
        terminal.type("\x1b")
        terminal.wait_for(lambda lines: comm in lines[5])
        terminal.type(" ")
        terminal.wait_for(lambda lines: lines[0].endswith("PAUSED"))
        terminal.type("c")
        terminal.wait_for(lambda lines: "sorted by cpu" in lines[3])
        shown = [terminal.after(seconds) for seconds in (0.3, 1.2)]
        assert shown[0] == shown[1], "what is paused does not change"
        terminal.type(" ")
        terminal.resize(160, 50)
        terminal.wait_for(lambda lines: "SPAWNER" in lines[4] and lines[49].startswith("n:name"))
        terminal.type("q")
        assert terminal.ended() == 0
    assert b"\x1b[?1049h" in terminal.raw
    assert terminal.raw.rindex(b"\x1b[?1049l") > terminal.raw.rindex(b"\x1b[?1049h"), "the screen from before is back"


def test_names_are_harmless(requires_bpf: None) -> None:
    """A name that is a command for the terminal is shown, not obeyed."""
    code = f"open('/proc/self/comm', 'wb').write({HOSTILE!r})\n"
    with Terminal([*TOP, r"--comm=*\x1b*"]) as terminal:
        terminal.wait_for(lambda lines: "mode " in lines[0])
        subprocess.run([sys.executable, "-c", code], check=True)
        shown = r"\x1b[31m\x1b[2J\x07"
        terminal.wait_for(lambda lines: any(shown[:14] in line for line in lines))
        terminal.type("q")
        assert terminal.ended() == 0
    assert HOSTILE not in terminal.raw
    assert b"\x07" not in terminal.raw


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_ended_by_a_signal(number: signal.Signals, status: int) -> None:
    """The terminal is usable after it, whatever ended it."""
    with Terminal([*TOP, "--mode=scan"]) as terminal:
        terminal.wait_for(lambda lines: "mode scan" in lines[0])
        assert terminal.ended(number) == status
    assert terminal.raw.rindex(b"\x1b[?1049l") > terminal.raw.rindex(b"\x1b[?1049h")


def test_from_a_running_exporter(requires_bpf: None, nobody: int | None, workload: Program) -> None:
    """The rows are records of its stream, the head its metrics; and it is told when it is gone."""
    comm = workload.comm.decode()
    with running("--log.level=error") as exporter:
        command = [*TOP, f"--url=http://localhost:{exporter.port}", f"--parent={comm}"]
        with Terminal(command, NO_COLOR="1") as terminal:
            with busy(workload):
                terminal.wait_for(lambda lines: any(line.split()[5:7] == [comm, comm] for line in lines) and "short -" not in lines[1])
            exporter.child.terminate()
            assert terminal.ended() == 1
    assert b"error: lost http://localhost" in terminal.raw


def test_once(requires_bpf: None, workload: Program) -> None:
    """A table for scripts: each row has all columns, and nothing needs a terminal."""
    comm = workload.comm.decode()
    command = [*TOP, "--once", "--duration=2", f"--parent={comm}", "--by=parent"]
    with busy(workload):
        run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    header, row = (line.split() for line in run.stdout.splitlines())
    assert header == ["SHORT/s", "COUNT", "%", "FAILED", "CPU%", "P50", "P99", "PARENT", "NAME", "SPAWNER", "USER", "OWNER"]
    assert row[2:4] == ["100.0", row[1]]
    assert row[7:9] == [comm, comm]
    assert int(row[1]) >= 20
    assert row[3] == row[1], "each of them failed"


def test_a_mode_that_cannot_run(requires_bpf: None, nobody: int | None) -> None:
    """Status 2 and the reason; the terminal was not touched."""
    command = [*TOP, "--once", "--mode=ebpf_core"]
    run = subprocess.run(command, cwd=CHECKOUT, user=nobody, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert "error: ebpf_core can't run: " in run.stderr


def test_there_is_no_curses_in_the_exporter() -> None:
    """What only `top` needs takes no memory of the serving process."""
    code = "import sys, exporter.cli, exporter.app; print('curses' in sys.modules, 'exporter.library.host' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(CHECKOUT), capture_output=True, text=True, check=True)
    assert run.stdout == "False False\n"
