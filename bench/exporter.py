"""Runs the real exporter as a child, and looks at it as Prometheus and `ps` would."""

from __future__ import annotations

import contextlib
import http
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

_SCHEDULED = 2
"""Of a process's own clock, which is not sampled by ticks: CPUCLOCK_SCHED of include/linux/posix-timers.h."""

FORMATS = {
    "text": "text/plain;version=0.0.4",
    "OpenMetrics": "application/openmetrics-text;version=1.0.0",
    "protobuf": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
}
"""What a server asks for, by name."""

_NONE: Mapping[str, str] = {}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(slots=True)
class Running:
    pid: int
    port: int
    ready_seconds: float
    exit_status: int | None = None
    """As in `subprocess`, once it has ended."""

    def get(self, path: str = "/metrics", accept: str = "", coding: str = "identity") -> bytes:
        """The body of one request, on a connection of its own, as it was sent."""
        return self.ask(path, accept, coding)[1]

    def status(self, path: str) -> int:
        """The status of one request."""
        return self.ask(path)[0]

    def ask(self, path: str, accept: str = "", coding: str = "identity") -> tuple[int, bytes]:
        """Status and body of one request."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path, headers={"Accept": accept, "Accept-Encoding": coding})
            response = connection.getresponse()
            return response.status, response.read()

    def samples(self) -> Samples:
        """Every sample by name and labels."""
        families = text_string_to_metric_families(self.get().decode())
        return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}

    def rss_mib(self) -> float:
        """Resident memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def children(self) -> list[int]:
        """The PIDs of its children, in the order in which they were started."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def cpu_seconds(self) -> float:
        """User and system time so far, of all threads, those that have ended too."""
        return cpu_seconds(self.pid)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, of all threads, those that have ended too."""
    return time.clock_gettime(~pid << 3 | _SCHEDULED)


def free_port() -> int:
    """A port that nothing takes meanwhile by chance: it is below those that the kernel gives out by itself (ip_local_port_range)."""
    while True:
        port = random.randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(
    *arguments: str, uid: int | None = None, checkout: Path | None = None, stderr: int | None = None, environment: Mapping[str, str] = _NONE
) -> Iterator[Running]:
    """Start it on a free loopback port, wait until it is ready, and end it after. `checkout` is that of another revision.

    `stderr` is the descriptor that it logs to; `environment` has further variables. It may have been killed meanwhile.
    """
    port = free_port()
    command = [sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn", *arguments]
    begun = time.monotonic()
    child = subprocess.Popen(
        command,
        user=uid,
        group=uid,
        extra_groups=[] if uid is not None else None,
        cwd=checkout,
        stderr=stderr,
        env={**os.environ, **environment},
    )
    exporter = Running(child.pid, port, 0.0)
    try:
        while time.monotonic() < begun + 20:
            try:
                if exporter.status("/-/ready") == http.HTTPStatus.OK:
                    break
            except OSError:
                pass
            time.sleep(0.01)
        exporter.ready_seconds = time.monotonic() - begun
        yield exporter
    finally:
        child.send_signal(signal.SIGTERM)
        exporter.exit_status = child.wait(10)
