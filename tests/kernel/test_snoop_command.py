"""snoop as its users run it: a child that watches real processes, its output read through a pipe."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from exporter.model import NS
from exporter.snoop.lines import HEADER, line
from exporter.web.stream import MOST_STREAMS
from tests.kernel.programs import WAIT_SECONDS, Program
from tests.kernel.test_app import CHECKOUT, as_user, running
from tests.unit.sink_files import lines_to, private, rows_to
from tests.unit.snoop_records import TYPICAL

pytestmark = pytest.mark.commands

STOP_SECONDS = 30
"""Generous, as the machine may be busy."""
SEGV = int(signal.SIGSEGV)


@dataclass(frozen=True, slots=True)
class Snoop:
    child: subprocess.Popen[str]
    said: str
    """Its first line on standard error, after which it sees."""

    def line(self) -> str:
        """The next one that it prints."""
        assert self.child.stdout is not None
        return self.child.stdout.readline().rstrip("\n")

    def ended(self, number: signal.Signals | None = None) -> tuple[int, list[str], str]:
        """Status, lines and complaints, once it has ended by itself or by a signal."""
        if number is not None:
            self.child.send_signal(number)
        out, err = self.child.communicate(timeout=STOP_SECONDS)
        return self.child.returncode, out.splitlines(), err

    def summed(self, number: signal.Signals | None = None) -> tuple[int, list[str], list[str], str]:
        """The same, with the summary, which an empty line begins, apart."""
        status, lines, complaints = self.ended(number)
        begin = lines.index("")
        return status, lines[:begin], lines[begin + 1 :], complaints

    def unread(self, number: signal.Signals | None = None) -> tuple[int, str]:
        """Status and complaints where nobody reads what it prints."""
        if number is not None:
            self.child.send_signal(number)
        assert self.child.stderr is not None
        return self.child.wait(STOP_SECONDS), self.child.stderr.read()


@contextmanager
def snooping(*arguments: str, uid: int | None = None, prefix: Sequence[str] = ()) -> Iterator[Snoop]:
    """Start it, wait until it has said how it sees, and kill it if it is still there after."""
    command = [*prefix, sys.executable, "-m", "exporter", "snoop", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=pipe, stderr=pipe, text=True, **as_user(uid)) as child:
        try:
            assert child.stderr is not None
            yield Snoop(child, child.stderr.readline().rstrip("\n"))
        finally:
            if child.poll() is None:
                child.kill()


def repeat(snoop: Snoop, something: Callable[[], object]) -> None:
    """Do it until snoop has seen enough, or for long enough."""
    end = time.monotonic() + WAIT_SECONDS
    while snoop.child.poll() is None and time.monotonic() < end:
        something()


def of(program: Program) -> str:
    """Only processes that this program started."""
    return f"--parent={program.comm.decode()}"


def test_each_end_is_a_line(requires_bpf: None, workload: Program) -> None:
    """Its columns tell what happened, and --count ends it with success."""
    with snooping(of(workload), "--count=5") as snoop:
        assert snoop.said == "shortproc-exporter: mode ebpf_core"
        workload.storm("end", 3, 7)
        workload.storm("kill", 2, SEGV)
        status, (header, *rows), summary, complaints = snoop.summed()
    assert (status, complaints, header) == (0, "", HEADER)
    assert [line.split()[:4] for line in summary[-2:]] == [["total", "5", "3", "2"], ["dropped:", "0"]]
    comm = workload.comm.decode()
    row = rf"\d\d:\d\d:\d\d\.\d{{3}} +\d+ +\d+ {comm} +\d+\.\d{{3}}ms +(?:-|\d+\.\d{{3}}ms) (exit 7|SIGSEGV) +{comm} +\S+ +\S+ +\S.*"
    matches = [re.fullmatch(row, each) for each in rows]
    assert [match and match[1] for match in matches] == ["exit 7"] * 3 + ["SIGSEGV"] * 2


def test_json(requires_bpf: None, workload: Program) -> None:
    """One object a line and nothing else on standard output; the summary goes elsewhere."""
    with snooping(of(workload), "--json", "--outcome=signal") as snoop:
        workload.storm("end", 3, 7)
        workload.storm("kill", 2, SEGV)
        rows = [json.loads(snoop.line()) for _ in range(2)]
        status, rest, summary = snoop.ended(signal.SIGINT)
    assert (status, rest) == (130, [])
    assert {(row["comm"], row["outcome"], row["signal"], row["mode"]) for row in rows} == {
        (workload.comm.decode(), "signal", "SIGSEGV", "ebpf_core")
    }
    assert summary.splitlines()[1].split()[:2] == ["COMM", "COUNT"]


def test_arguments_if_asked_for(requires_bpf: None, workload: Program) -> None:
    """One flag shows them, without the secret in them, whatever the configuration says."""
    comm = f"--comm={workload.comm.decode()}"
    with snooping(comm, "--args", "--count=1") as shown, snooping(comm, "--json", "--count=1") as hidden:
        workload.run("no-such-storm", "--password", "hunter2", "two\nlines")
        (status, (header, row), *_), (_, (line,), _) = shown.summed(), hidden.ended()
    assert (status, header[: len(HEADER)], header.split()[-1]) == (0, HEADER, "ARGS")
    assert row.endswith(f" {workload.path} no-such-storm --password REDACTED $'two\\x0alines'")
    assert json.loads(line)["arguments"] is None


def test_who_started_what(requires_bpf: None, workload: Program) -> None:
    """Folded stacks at the end, however it is ended; from process 1 down to the children."""
    with snooping(of(workload), "--folded") as snoop:
        workload.storm("end", 20, 7)
        time.sleep(0.5)  # records wait for their CPU
        status, (line,), complaints = snoop.ended(signal.SIGINT)
    assert (status, complaints) == (130, "")
    *ancestors, parent, child = line.removesuffix(" 20").split(";")
    assert (parent, child) == (workload.comm.decode(), workload.comm.decode())
    assert ancestors[-1] == Path("/proc/self/comm").read_text().rstrip("\n")
    assert ancestors[0] in {Path("/proc/1/comm").read_text().rstrip("\n"), "deep"}


def test_a_tree_from_a_running_exporter(requires_bpf: None, workload: Program) -> None:
    """Records of the stream have their ancestors too."""
    with (
        running("--log.level=error") as exporter,
        snooping(f"--url=http://localhost:{exporter.port}", of(workload), "--count=20", "--tree") as snoop,
    ):
        repeat(snoop, lambda: workload.storm("end", 20, 7))
        status, (header, *rows, total), _ = snoop.ended()
    assert (status, header.split()[0], total.split()[::4]) == (0, "PROCESSES", ["20", "total"])
    comm = workload.comm.decode()
    assert [row.split()[:2] for row in rows if row.endswith(comm)] == [["20", "0"], ["20", "20"]]


def test_duration() -> None:
    """It ends by itself, with success, whatever happened."""
    with snooping("--duration=300ms", "--comm=nothing has this name") as snoop:
        status, rows, summary, complaints = snoop.summed()
    assert (status, rows, complaints) == (0, [HEADER], "")
    assert [line.split()[:2] for line in summary] == [["COMM", "COUNT"], ["total", "0"], ["dropped:", "0"]]


def test_interrupted(requires_bpf: None, workload: Program) -> None:
    """Ctrl-C gives the summary, and the status that a shell expects."""
    with snooping(of(workload)) as snoop:
        workload.storm("end", 20, 7)
        workload.storm("kill", 2, SEGV)
        for _ in range(1 + 22):
            assert snoop.line()
        status, summary, complaints = snoop.ended(signal.SIGINT)
    assert (status, complaints) == (130, "")
    rows = [line.split()[:4] for line in summary]
    assert rows[:2] == [[], ["COMM", "COUNT", "ERRORS", "SIGNALS"]]
    assert rows[2:] == [[workload.comm.decode(), "22", "20", "2"], ["total", "22", "20", "2"], ["dropped:", "0"]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminated(number: signal.Signals) -> None:
    """Who ends it otherwise wants no summary, and learns from the status what ended it."""
    with snooping("--comm=nothing has this name") as snoop:
        assert snoop.ended(number) == (128 + number, [HEADER], "")


def test_stopped_for_a_while(requires_bpf: None, workload: Program) -> None:
    """Ctrl-Z and fg, a debugger, a frozen cgroup: it goes on where it was."""
    with snooping(of(workload)) as snoop:
        snoop.child.send_signal(signal.SIGSTOP)
        workload.storm("end", 20, 7)
        time.sleep(2.2)
        snoop.child.send_signal(signal.SIGCONT)
        rows = [snoop.line() for _ in range(1 + 20)]
        status, _, complaints = snoop.ended(signal.SIGINT)
    assert (status, complaints) == (130, "")
    assert all(" exit 7 " in row for row in rows[1:])


def test_nohup() -> None:
    """It outlives its terminal where that is wanted, and can be ended all the same."""
    with snooping("--comm=nothing has this name", prefix=["nohup"]) as snoop:
        snoop.child.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert snoop.child.poll() is None
        assert snoop.ended(signal.SIGTERM) == (128 + signal.SIGTERM, [HEADER], "")


def test_a_reader_that_goes() -> None:
    """`snoop | head -1` ends at once, with the status of SIGPIPE and without a word."""
    with snooping("--comm=nothing has this name") as snoop:
        assert snoop.line() == HEADER
        assert snoop.child.stdout is not None
        snoop.child.stdout.close()
        assert snoop.unread() == (141, "")


@pytest.mark.alone
def test_a_reader_that_stands_still(requires_bpf: None, workload: Program) -> None:
    """It can be ended though its output is stuck."""
    with snooping(of(workload)) as snoop:
        workload.storm("vfork", 5000)  # much more than a pipe holds
        assert snoop.unread(signal.SIGINT) == (130, "")


def test_an_ordinary_user(nobody: int | None, compiled: Path, tmp_path: Path) -> None:
    """Without any privilege it works as well as it can, and says why no better."""
    sleep = Program.copied(Path(shutil.which("sleep") or "sleep"), tmp_path)
    with snooping(f"--comm={sleep.comm.decode()}", "--count=1", uid=nobody) as snoop:
        assert re.match(r"shortproc-exporter: mode (netlink|fast_scan)\b.*, because ebpf_core can't run: ", snoop.said)
        repeat(snoop, lambda: sleep.run("0.5"))
        status, (_, row), _, complaints = snoop.summed()
    assert (status, complaints) == (0, "")
    assert row.split()[3] == sleep.comm.decode()


@pytest.mark.parametrize("mode", ["netlink", "fast_scan", "scan"])
def test_lesser_modes(mode: str, tmp_path: Path) -> None:
    """Each shows what it sees; a scan says what it can't."""
    config = tmp_path / "exporter.yml"
    config.write_text("detection: {scan: {interval_seconds: 0.1}}\n")
    sleep = Program.copied(Path(shutil.which("sleep") or "sleep"), tmp_path)
    flags = (f"--mode={mode}", f"--config.file={config}")
    with snooping(*flags, f"--comm={sleep.comm.decode()}", "--count=1", "--json") as snoop:
        if "netlink can't run" in snoop.said:
            pytest.skip(snoop.said)
        assert snoop.said.startswith(f"shortproc-exporter: mode {mode}")
        assert ("misses" in snoop.said) == (mode != "netlink")
        repeat(snoop, lambda: sleep.run("0.4"))
        status, (row,), _ = snoop.ended()
    assert status == 0
    assert json.loads(row)["mode"] == mode


def test_a_forced_mode_that_may_not_run(requires_bpf: None, nobody: int | None) -> None:
    """Status 2 and the reason, before anything is printed."""
    with snooping("--mode=ebpf_core", uid=nobody) as snoop:
        assert "error: ebpf_core can't run: " in snoop.said
        assert snoop.ended() == (2, [], "")


def test_output_that_can_not_be_written(requires_bpf: None) -> None:
    """Output that got lost must not look like success."""
    command = [sys.executable, "-m", "exporter", "snoop", "--duration=60"]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, cwd=CHECKOUT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=STOP_SECONDS, check=False)
    assert result.returncode == 1
    assert result.stderr.endswith("error: cannot write to standard output: No space left on device\n")


def test_from_a_running_exporter(requires_bpf: None, nobody: int | None, workload: Program) -> None:
    """Anybody on the host may look through its eyes; the lines are the same."""
    with running("--log.level=error") as exporter:
        url = f"http://localhost:{exporter.port}"
        with snooping(f"--url={url}", of(workload), "--count=2", "--outcome=error", uid=nobody) as snoop:
            assert snoop.said == f"shortproc-exporter: following {url}"
            repeat(snoop, lambda: workload.storm("end", 1, 7))
            status, (header, *rows), *_ = snoop.summed()
    assert (status, header) == (0, HEADER)
    assert [row.split()[3] for row in rows] == [workload.comm.decode()] * 2
    assert all(" exit 7 " in row for row in rows)


def test_a_running_exporter_that_has_no_place(requires_bpf: None) -> None:
    """It says so itself."""
    with running("--log.level=error") as exporter, ExitStack() as stack:
        url = f"http://localhost:{exporter.port}"
        followers = [stack.enter_context(snooping(f"--url={url}")) for _ in range(MOST_STREAMS)]
        assert {each.said for each in followers} == {f"shortproc-exporter: following {url}"}
        snoop = stack.enter_context(snooping(f"--url={url}"))
        assert snoop.said == f"shortproc-exporter: error: {url} answers 503 Service Unavailable: all places for streams are taken"
        assert snoop.ended() == (1, [], "")


def test_a_running_exporter_that_ends(requires_bpf: None) -> None:
    """Status 1, and who was lost."""
    with running("--log.level=error") as exporter, snooping(f"--url=http://localhost:{exporter.port}") as snoop:
        exporter.child.terminate()
        status, (header, *_), complaints = snoop.ended()
    assert (status, header) == (1, HEADER)
    assert complaints == f"shortproc-exporter: error: lost http://localhost:{exporter.port}: it closed the connection\n"


def test_history(tmp_path: Path) -> None:
    """What sinks have written is read without a privilege, with the same filters, columns and summary."""
    with private(tmp_path) as folder:
        batch = [TYPICAL._replace(pid=number, ended_ns=TYPICAL.ended_ns + number * NS) for number in range(1, 100)]
        for sink in (lines_to(folder), rows_to(folder)):
            sink.handle(batch)
            sink.store()
            sink.release()
            span = ("--since=2023-11-14T22:13:30Z", "--until=2023-11-14T22:14:00Z")
            with snooping(f"--from={sink.path}", *span, "--ppid=1", "--sort=pid") as snoop:
                assert snoop.child.stdout is not None
                status, rows, summary, complaints = snoop.summed()
            assert (status, complaints, snoop.said) == (0, "", "")
            assert rows == [HEADER, *(line(record) for record in batch[9:39])]
            assert summary[-2].split()[:2] == ["total", "30"]


def test_a_history_that_is_not_there() -> None:
    """Status 1, and why."""
    with snooping("--from=/nowhere/records.db") as snoop:
        assert snoop.said == "shortproc-exporter: error: cannot read /nowhere/records.db: No such file or directory"
        assert snoop.ended()[0] == 1


def test_no_exporter_there() -> None:
    """Status 1, and why."""
    with snooping("--url=http://127.0.0.1:1") as snoop:
        assert snoop.said == "shortproc-exporter: error: cannot connect to http://127.0.0.1:1: Connection refused"
        assert snoop.ended() == (1, [], "")
