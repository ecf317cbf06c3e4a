"""What people use today to see short processes: how each is started, and what it has caught.

Each is the package of Debian with its own defaults, but for what makes it print each line at once. One that is not there, or does not start
here, is skipped with its reason.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil

from bench.costs import LIFETIMES
from bench.exporter import free_port
from bench.revisions import ROOT

_PRINTING = 'tracepoint:sched:sched_process_exit { printf("%d %s\\n", pid, comm); }'
_COUNTING = "tracepoint:sched:sched_process_exit { @[comm] = count(); }"
_READY_SECONDS = 20
_STOP_SECONDS = 20


class Skipped(Exception):
    """It can't be measured here, for this reason."""


Caught = Callable[[str, str], int]
"""Returns how many processes of a comm an output names."""


def _lines(text: str, comm: str) -> int:
    return len(re.findall(rf"^.*\b{comm}\b", text, re.MULTILINE))


def _named(text: str, comm: str) -> int:
    """Its first column is the comm; the arguments of others may have the name, too."""
    return len(re.findall(rf"^{comm} ", text, re.MULTILINE))


def _snooped(text: str, comm: str) -> int:
    """Its fourth column is the comm; the summary at the end has the name, too."""
    return sum(line.split()[3:4] == [comm] for line in text.splitlines())


def _exited(text: str, comm: str) -> int:
    """Of atop's parseable output: field 8 is the name, field 9 the state, E for exited."""
    return len(re.findall(rf"^PRG .*?\({comm}\) E ", text, re.MULTILINE))


def _map(text: str, comm: str) -> int:
    return sum(map(int, re.findall(rf"^@\[{comm}\]: (\d+)$", text, re.MULTILINE)))


def _histogram(text: str, comm: str) -> int:
    _, _, rest = text.partition(f"@h[{comm}]:")
    return sum(map(int, re.findall(r"^\S+(?: \S+\))? +(\d+) \|", rest.partition("\n\n")[0], re.MULTILINE)))


def _groups(text: str, comm: str) -> int:
    """What each scrape showed, added up: the exporter has no counter of processes."""
    return sum(map(int, re.findall(rf'^namedprocess_namegroup_num_procs{{groupname="{comm}"}} (\d+)', text, re.MULTILINE)))


def _exits(text: str, comm: str) -> int:
    """The last scrape has them all."""
    found = re.findall(rf'^shortproc_comm_exits_total{{comm="{comm}",outcome="(\w+)"}} (\d+)', text, re.MULTILINE)
    return sum(int(n) for n in dict(found).values())


def _no_names(text: str, comm: str) -> int:  # noqa: ARG001
    return 0


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    package: str
    command: tuple[str, ...]
    """`{port}` is that of an HTTP server."""
    caught: Caught
    prints_each: bool = False
    """Whether a line tells of each process at once."""
    prints_at_end: bool = False

    @property
    def serves(self) -> bool:
        return any("{port}" in word for word in self.command)


_EXPORTER = (sys.executable, "-m", "exporter")
_SERVING = ("--web.listen-address=127.0.0.1:{port}", "--config.file={folder}/exporter.yml")
PEERS = (
    Peer("this exporter, ebpf_core", "", (*_EXPORTER, "--mode=ebpf_core", *_SERVING), _exits),
    Peer("this exporter, netlink", "", (*_EXPORTER, "--mode=netlink", *_SERVING), _exits),
    Peer("this exporter, snoop", "", (*_EXPORTER, "snoop", "--mode=ebpf_core"), _snooped, prints_each=True),
    Peer("bpftrace, prints each", "bpftrace", ("bpftrace", "-B", "none", "-e", _PRINTING), _lines, prints_each=True),
    Peer("bpftrace, counts in a map", "bpftrace", ("bpftrace", "-e", _COUNTING), _map, prints_at_end=True),
    Peer("bpftrace, histogram of runtimes", "bpftrace", ("bpftrace", "-e", LIFETIMES), _histogram, prints_at_end=True),
    Peer("execsnoop (libbpf-tools)", "libbpf-tools", ("stdbuf", "-oL", "/usr/sbin/execsnoop"), _named, prints_each=True),
    Peer("exitsnoop (libbpf-tools)", "libbpf-tools", ("stdbuf", "-oL", "/usr/sbin/exitsnoop"), _lines, prints_each=True),
    Peer("exitsnoop (bcc)", "bpfcc-tools", ("exitsnoop-bpfcc",), _lines, prints_each=True),
    Peer("forkstat", "forkstat", ("forkstat", "-l", "-c", "-e", "exit"), _lines, prints_each=True),
    Peer("atop, process accounting", "atop", ("stdbuf", "-oL", "atop", "-P", "PRG", "1"), _exited, prints_each=True),
    Peer(
        "process-exporter",
        "prometheus-process-exporter",
        ("prometheus-process-exporter", "-procnames", "peer-storm,peer-tiny", "-web.listen-address", "127.0.0.1:{port}"),
        _groups,
    ),
    Peer(
        "node exporter",
        "prometheus-node-exporter",
        ("prometheus-node-exporter", "--collector.processes", "--web.listen-address=127.0.0.1:{port}"),
        _no_names,
    ),
)


class Session:
    """A peer that runs."""

    def __init__(self, peer: Peer, child: subprocess.Popen[bytes], output: Path, port: int) -> None:
        self.peer = peer
        self._child = child
        self._output = output
        self._port = port
        self._scraped = ""

    def text(self) -> str:
        """Return what it has told so far."""
        return self._scraped or self._output.read_text(errors="replace")

    def scrape(self) -> bytes:
        """Scrape it as Prometheus does. Raises `OSError`."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", "/metrics")
            body = connection.getresponse().read()
        finally:
            connection.close()
        self._scraped += body.decode(errors="replace")
        return body

    def processes(self) -> list[psutil.Process]:
        """Return it and its children."""
        first = psutil.Process(self._child.pid)
        return [first, *first.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        times = [each.cpu_times() for each in self.processes()]
        return sum(each.user + each.system for each in times)

    def failed(self) -> str | None:
        """Return the last line that it wrote if it has ended by itself."""
        if self._child.poll() is None:
            return None
        lines = [each for each in self.text().splitlines() if each.strip()]
        return lines[-1].strip() if lines else f"exit status {self._child.returncode}"

    def wait_until_ready(self, probe: Path, is_loaded: Callable[[], bool]) -> None:
        """Wait until it tells of a probe, answers, or has loaded its programs. Raises `Skipped`."""
        until = time.monotonic() + _READY_SECONDS
        while time.monotonic() < until:
            if reason := self.failed():
                raise Skipped(reason)
            if self._is_ready(probe, is_loaded):
                return
            time.sleep(0.1)
        raise Skipped(f"not ready within {_READY_SECONDS} s")

    def _is_ready(self, probe: Path, is_loaded: Callable[[], bool]) -> bool:
        if self.peer.prints_each:
            subprocess.run([probe], check=True)
            return self.peer.caught(self.text(), probe.name) > 0
        if self.peer.serves:
            with suppress(OSError, HTTPException):
                return bool(self.scrape())
            return False
        return is_loaded()


@contextmanager
def started(peer: Peer, folder: Path) -> Iterator[Session]:
    """Start a peer, and end it after. Raises `Skipped`."""
    program = next(word for word in peer.command if word not in ("stdbuf", "-oL"))
    if shutil.which(program) is None:
        raise Skipped(f"{program} is not installed (Debian's package {peer.package})")
    port, output = free_port(), folder / "output"
    (folder / "exporter.yml").write_text("metrics: {new_series_hold_seconds: 0}\n")
    command = [word.replace("{port}", str(port)).replace("{folder}", str(folder)) for word in peer.command]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    with output.open("wb") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=folder)
    session = Session(peer, child, output, port)
    try:
        yield session
    finally:
        child.send_signal(signal.SIGINT if not peer.serves else signal.SIGTERM)
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
