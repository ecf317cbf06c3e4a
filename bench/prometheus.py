"""A real Prometheus, with all in a folder of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.exporter import free_port

_KIB = 2**10


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
def prometheus(config: str, *more: str) -> Iterator[Prometheus]:
    """Start one with this configuration and `more` flags, and end it after."""
    with tempfile.TemporaryDirectory(prefix="shortproc-scaling-") as folder:
        port, path = free_port(), Path(folder, "prometheus.yml")
        path.write_text(config)
        command = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
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
