"""A real Prometheus, with all in a folder of its own: the installed one, or the newer one that `.ci/prometheus3` unpacks."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from bench.exporter import free_port

_KIB = 2**10


@dataclass(frozen=True, slots=True)
class Release:
    """A Prometheus and what comes with it, found in `path` as a shell would."""

    path: str | None

    def program(self, name: str) -> str | None:
        """Its whole path, if it is there: `prometheus`, `promtool`, `prometheus-alertmanager`, `amtool`."""
        return shutil.which(name, path=self.path)

    def version(self) -> tuple[int, int]:
        """The two numbers that tell what it can do; of one that is not there, (0, 0)."""
        program = self.program("prometheus")
        return _version(program) if program else (0, 0)

    def native(self) -> tuple[dict[str, bool], tuple[str, ...]]:
        """Settings under `global`, and flags, with which it takes native histograms."""
        return ({"scrape_native_histograms": True}, ()) if self.version() >= (3, 8) else ({}, ("--enable-feature=native-histograms",))


INSTALLED = Release(None)
THREE = Release("/var/cache/shortproc-exporter/prometheus3")


@cache
def _version(program: str) -> tuple[int, int]:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    first, second = (said.stdout or said.stderr).split()[2].split(".")[:2]
    return int(first), int(second)


@dataclass(slots=True)
class Prometheus:
    """A real one, with all in a folder of its own."""

    url: str
    pid: int
    data: Path

    def call(self, path: str, *, post: bool = False) -> object:
        """The data of its answer."""
        with urllib.request.urlopen(urllib.request.Request(self.url + path, method="POST" if post else "GET"), timeout=60) as response:
            return json.load(response)["data"]

    def value(self, query: str) -> float:
        """Of a query with one answer; 0 without one."""
        answer = self.call(f"/api/v1/query?query={urllib.parse.quote(query)}")
        assert isinstance(answer, dict)
        return float(answer["result"][0]["value"][1]) if answer["result"] else 0.0

    def metric(self, name: str) -> float:
        """One of its own, labels left out, added up."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=60) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def rss(self) -> int:
        """Resident bytes that are no file's."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) * _KIB


@contextmanager
def prometheus(config: str, *more: str, release: Release = INSTALLED) -> Iterator[Prometheus]:
    """Start one with this configuration and `more` flags, and end it after."""
    program = release.program("prometheus")
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="shortproc-prometheus-") as folder:
        port, path = free_port(), Path(folder, "prometheus.yml")
        path.write_text(config)
        command = [program, f"--config.file={path}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        child = subprocess.Popen([*command, "--web.enable-admin-api", "--log.level=error", *more])
        server = Prometheus(f"http://127.0.0.1:{port}", child.pid, Path(folder, "data"))
        try:
            until(partial(server.call, "/api/v1/status/runtimeinfo"))
            yield server
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(60)


def until(action: Callable[[], object]) -> None:
    """Try for ten seconds until it raises no `OSError`."""
    for _ in range(100):
        with suppress(OSError):
            action()
            return
        time.sleep(0.1)
    action()
