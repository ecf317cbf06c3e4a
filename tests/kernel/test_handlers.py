"""The handlers' child as root starts it: what it may still do, and what a disk does to its sinks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.config.options import Config, HandlerConfig, JsonlOptions, OtlpOptions, Sinks, SqliteOptions
from exporter.handlers import plan
from exporter.handlers.parent import Handlers
from exporter.model import Mode, Outcome
from exporter.records.record import Record

OWNER = 54321
CHECKOUT = Path(__file__).parents[2]
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it is about what root gives up"), pytest.mark.commands]


def record(number: int) -> Record:
    return Record(time.time_ns(), 1000, number, 1, 0, b"comm", b"parent", b"/bin/x", Outcome.OK, 0, 1, b"/", Mode.EBPF_CORE)


def eventually(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can reach. Not `tmp_path`: each pytest that starts closes what holds those."""
    with tempfile.TemporaryDirectory(prefix="shortproc-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def folder(place: Path) -> Path:
    """A directory for sinks, with an owner of its own."""
    folder = place / "sinks"
    folder.mkdir(mode=0o750)
    os.chown(folder, OWNER, OWNER)
    return folder


def sinks(folder: Path) -> Sinks:
    return Sinks(JsonlOptions(path=str(folder / "records.jsonl")), SqliteOptions(path=str(folder / "records.db")))


@contextmanager
def running(config: Config) -> Iterator[Handlers]:
    wanted = plan.make(config.handlers, config.sinks)
    assert wanted is not None
    handlers = Handlers(wanted)
    handlers.start()
    try:
        eventually(lambda: handlers._read_page().progress >= 2 * len(wanted.handlers))
        yield handlers
    finally:
        handlers.close(60)


def status(handlers: Handlers) -> dict[str, str]:
    assert handlers._child is not None
    lines = Path(f"/proc/{handlers._child.pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def stored(folder: Path) -> list[set[int]]:
    """Process ids in each sink; fails where one is there twice."""
    lines = [json.loads(line)["pid"] for line in (folder / "records.jsonl").read_text().splitlines()]
    database = sqlite3.connect(folder / "records.db")
    rows = [pid for (pid,) in database.execute("SELECT pid FROM records")]
    database.close()
    assert (len(lines), len(rows)) == (len(set(lines)), len(set(rows)))
    return [set(lines), set(rows)]


def test_the_child_has_no_power_left(folder: Path) -> None:
    """It runs the user's code, and the exporter may be root."""
    with running(Config(sinks=sinks(folder))) as handlers:
        facts = status(handlers)
        assert handlers._child is not None
        pid = handlers._child.pid
        limits = Path(f"/proc/{pid}/limits").read_text()
        opened = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert facts["Uid"].split() == facts["Gid"].split() == [str(OWNER)] * 4
    assert facts["Groups"] == ""
    assert {facts[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert facts["NoNewPrivs"] == "1"
    assert facts["Umask"] == "0027"
    assert all(line.split()[4] == "0" for line in limits.splitlines() if line.startswith("Max core"))
    assert not [name for name in opened if "bpf" in name or "socket" in name]
    assert {(file.stat().st_uid, file.stat().st_mode & 0o777) for file in folder.iterdir()} == {(OWNER, 0o640)}


def test_a_sink_without_files_is_nobody() -> None:
    """It has the libraries of the exporter's user, whose directories it may not be able to read, and needs nothing else."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra `otlp` is not installed")
    from bench.otlp_receiver import Receiver  # noqa: PLC0415 - needs the extra

    receiver = Receiver()
    with running(Config(sinks=Sinks(otlp=OtlpOptions(endpoint=receiver.url)))) as handlers:
        assert status(handlers)["Uid"].split() == [str(plan.NOBODY)] * 4
        handlers.offer([record(number) for number in range(700)])
        eventually(lambda: handlers.status().handlers[0].handled == 700)
    assert len(receiver.records) == 700
    receiver.close()


def test_without_sinks_it_is_nobody(place: Path) -> None:
    """There is no file that says who it should be; and the user's module is imported by that user already."""
    (place / "who.py").write_text(
        "import os\nfrom exporter.handlers import Handler\nif os.getuid() == 0: raise SystemExit('root')\nclass Who(Handler):\n"
        "    def handle(self, batch): os.setuid(0)\n"
    )
    with running(Config(handlers=(HandlerConfig("who:Who", (str(place),)),))) as handlers:
        assert status(handlers)["Uid"].split() == [str(plan.NOBODY)] * 4
        handlers.offer([record(1)])
        eventually(lambda: handlers.status().handlers[0].lost == 1)  # it can't become root again


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """A tiny one."""
    command = ["mount", "-t", "tmpfs", "-o", f"size=3m,mode=0750,uid={OWNER},gid={OWNER}", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("can't mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Leave no room."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_is_an_error_and_a_retry(disk: Path) -> None:
    """Nothing is lost while there is patience left, and nothing is written twice."""
    filler = disk / "filler"
    with running(Config(sinks=sinks(disk))) as handlers:
        handlers.offer([record(0)])
        eventually(lambda: all(each.handled == 1 for each in handlers.status().handlers))
        fill(filler)
        for at in range(1, 3001, 500):
            handlers.offer([record(number) for number in range(at, at + 500)])
        eventually(lambda: all(each.errors for each in handlers.status().handlers))
        assert handlers.status().running
        filler.unlink()
        eventually(lambda: all(each.handled == 3001 for each in handlers.status().handlers))
    assert stored(disk) == [set(range(3001))] * 2
    assert [each.lost for each in handlers.status().handlers] == [0, 0]
    assert handlers.status().restarts == 0


def test_a_read_only_disk_is_too(disk: Path) -> None:
    """As after an error of the file system; where somebody has repaired it in time, the end of the exporter loses nothing either."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with running(Config(sinks=sinks(disk))) as handlers:
        handlers.offer([record(number) for number in range(10)])
        eventually(lambda: all(each.errors for each in handlers.status().handlers))
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert [(each.handled, each.lost) for each in handlers.status().handlers] == [(10, 0)] * 2
    assert stored(disk) == [set(range(10))] * 2


def test_what_was_committed_survives_sigkill(folder: Path) -> None:
    """Of the child; and what it took along is counted."""
    with running(Config(sinks=sinks(folder))) as handlers:
        for at in range(0, 10_000, 500):
            handlers.offer([record(number) for number in range(at, at + 500)])
        eventually(lambda: all(each.handled >= 5000 for each in handlers.status().handlers))
        handlers.offer([record(number) for number in range(10_000, 10_100)])
        assert handlers._child is not None
        os.kill(handlers._child.pid, signal.SIGKILL)
        eventually(lambda: handlers.status().restarts == 1)
        handlers.offer([record(20_000)])
    lost = handlers.dropped()["crash"]
    for found, each in zip(stored(folder), handlers.status().handlers, strict=True):
        assert len(found) == each.handled
        assert each.handled + each.lost + lost == 10_101
        assert 20_000 in found


_EXPORTER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from exporter.config.options import JsonlOptions, Sinks
from exporter.handlers import plan
from exporter.handlers.parent import Handlers
handlers = Handlers(plan.make((), Sinks(jsonl=JsonlOptions(path=sys.argv[2]))))
handlers.start()
while not handlers._read_page().progress >= 2: time.sleep(0.01)
print(handlers._child.pid, flush=True)
time.sleep(600)
"""


def test_the_child_ends_with_the_exporter(folder: Path) -> None:
    """An orphan would write into the same files as the child of the next exporter."""
    command = [sys.executable, "-c", _EXPORTER, str(CHECKOUT), str(folder / "records.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as exporter:
        assert exporter.stdout is not None
        child = int(exporter.stdout.readline())
        exporter.kill()
    eventually(lambda: not Path(f"/proc/{child}/exe").exists())


@pytest.mark.alone
def test_100_000_records_are_the_same_set_everywhere(folder: Path) -> None:
    """What was handled is what is stored, in both sinks, whatever the pace."""
    with running(Config(sinks=sinks(folder))) as handlers:
        for at in range(0, 100_000, 500):
            handlers.offer([record(number) for number in range(at, at + 500)])
    dropped = handlers.dropped()
    assert sum(dropped.values()) == dropped["full"]
    lines, rows = stored(folder)
    assert lines == rows
    assert [each.handled for each in handlers.status().handlers] == [len(lines)] * 2
    assert len(lines) == 100_000 - dropped["full"]
