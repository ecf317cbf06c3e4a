"""What a host costs the Prometheus that scrapes it: series, bytes on the wire, bytes on disk, memory; then the same for a fleet.

.venv/bin/python -m bench.scaling            # as root, with Debian's `prometheus`; takes nine minutes
WRITE=1 .venv/bin/python -m bench.scaling    # writes the tables into docs/scaling.md as well

A block of two hours holds 240 scrapes of 30 s of each series. The same 240 are taken here each half second, with as much happening between
two as a busy host does in 30 s, so that the block's size is the real one.
"""

from __future__ import annotations

import http.server
import json
import os
import platform
import random
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.exporter import FORMATS, Running, running
from bench.prometheus import INSTALLED, prometheus
from bench.workloads import Workload, built

_PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
_BEGIN, _END = "<!-- measured -->", "<!-- /measured -->"
_SCRAPES, _INTERVAL = 240, 0.5
_NAMES, _FLOOD = 15, 20_000
_TARGETS = 50
_CAPS = (60, 30, 15, 10, 1)
_DROP_NAMES = 'metric_relabel_configs: [{source_labels: [__name__], regex: "shortproc_(comm|parent|spawner|user|owner)_.+", action: drop}]'
_FLEETS = (1, 10, 100, 1_000, 10_000)
_DAY = 86_400
_KIB, _MIB, _GIB = 2**10, 2**20, 2**30


@dataclass(slots=True)
class Sizes:
    """One host as a scrape shows it; bytes by format and encoding."""

    series: int
    bodies: dict[str, int]


@dataclass(slots=True)
class Stored:
    """What became of the samples of one host."""

    series: int
    samples: int
    chunk_bytes: int
    index_bytes: int
    sent_bytes: int
    sent_samples: int

    @property
    def disk_bytes_a_sample(self) -> float:
        return (self.chunk_bytes + self.index_bytes) / self.samples

    @property
    def sent_bytes_a_sample(self) -> float:
        return self.sent_bytes / self.sent_samples


@dataclass(slots=True)
class Sink:
    """Takes remote writes, and counts their bytes."""

    port: int = 0
    body_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """On a loopback port, until the end of the block."""
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                size = len(self.rfile.read(int(self.headers["Content-Length"])))
                with sink.lock:
                    sink.body_bytes += size
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                pass

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            self.port = server.server_address[1]
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


def _sizes(exporter: Running) -> Sizes:
    bodies = {}
    for name, accept in FORMATS.items():
        bodies[name] = len(exporter.get(accept=accept))
        bodies[f"{name}, gzip"] = len(exporter.get(accept=accept, coding="gzip"))
    return Sizes(sum(not line.startswith(b"#") for line in exporter.get().splitlines()), bodies)


def _stored(exporter: Running, busy: Callable[[], None], more: str = "") -> Stored:
    sink = Sink()
    with sink.listening():
        config = f"""
global: {{scrape_interval: {int(_INTERVAL * 1000)}ms, scrape_timeout: {int(_INTERVAL * 1000)}ms}}
remote_write: [{{url: "http://127.0.0.1:{sink.port}/write", metadata_config: {{send: false}}}}]
scrape_configs: [{{job_name: shortproc, static_configs: [{{targets: ["127.0.0.1:{exporter.port}"]}}]{f", {more}" if more else ""}}}]
"""
        with prometheus(config) as server:
            begun = time.monotonic()
            while time.monotonic() < begun + _SCRAPES * _INTERVAL:
                round_begun = time.monotonic()
                busy()
                time.sleep(max(0.0, _INTERVAL - (time.monotonic() - round_begun)))
            sent = server.metric("prometheus_remote_storage_samples_total")
            body_bytes = sink.body_bytes
            answer = server.call("/api/v1/admin/tsdb/snapshot", post=True)
            assert isinstance(answer, dict)
            blocks = [path.parent for path in (server.data / "snapshots" / answer["name"]).glob("*/meta.json")]
            stats = [json.loads((block / "meta.json").read_text())["stats"] for block in blocks]
            return Stored(
                series=max(each["numSeries"] for each in stats),
                samples=sum(each["numSamples"] for each in stats),
                chunk_bytes=sum(path.stat().st_size for block in blocks for path in (block / "chunks").iterdir()),
                index_bytes=sum((block / "index").stat().st_size for block in blocks),
                sent_bytes=body_bytes,
                sent_samples=int(sent),
            )


def _memory_a_series(exporter: Running) -> float:
    """Of a Prometheus that has the same host under many names, less what it needs with one."""
    found: list[tuple[float, int]] = []
    for targets in (1, _TARGETS):
        hosts = ", ".join(
            f'{{targets: ["127.0.0.1:{exporter.port}"], labels: {{instance: "host-{n}.example.org:10199"}}}}' for n in range(targets)
        )
        config = f"global: {{scrape_interval: 5s}}\nscrape_configs: [{{job_name: shortproc, static_configs: [{hosts}]}}]\n"
        with prometheus(config) as server:
            time.sleep(45)
            found.append((server.metric("prometheus_tsdb_head_series"), server.rss()))
    (few, small), (many, great) = found
    return (great - small) / (many - few)


class Busy:
    """What happens on a host between two scrapes."""

    def __init__(self, workload: Workload, names: int) -> None:
        self._workload = workload
        self._programs = [workload.tiny.with_name(f"program-{number}") for number in range(names)]
        for program in self._programs:
            program.hardlink_to(workload.tiny)

    def usual(self) -> None:
        """A few names, more or less often: some 100 processes, as 3 to 4 a second in 30 s."""
        for program in self._programs:
            self._workload.run("forkexec", random.randrange(1, 14), program)

    def every_name(self) -> None:
        """All names that have series, and others."""
        self._workload.run("comms", random.randrange(60, 300))


def _size(count: float) -> str:
    for unit, size in (("TiB", 2**40), ("GiB", _GIB), ("MiB", _MIB), ("KiB", _KIB)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 10 * size else f"{count / size:,.0f} {unit}"
    return f"{count:.0f} B"


def _fleet(title: str, sizes: Sizes, stored: Stored, memory: float, interval: int = 30) -> list[str]:
    rows = [
        f"{title}: {stored.series} series (five of them Prometheus' own), scraped every {interval} s.",
        "",
        "| hosts | series | samples/s | scrapes, gzip | disk, 15 days | memory for the series | remote write |",
        "|---|---|---|---|---|---|---|",
    ]
    for hosts in _FLEETS:
        series = hosts * stored.series
        rate = series / interval
        rows.append(
            f"| {hosts:,} | {series:,} | {rate:,.0f} | {_size(hosts * sizes.bodies['OpenMetrics, gzip'] / interval)}/s"
            f" | {_size(rate * 15 * _DAY * stored.disk_bytes_a_sample)} | {_size(series * memory)}"
            f" | {_size(rate * stored.sent_bytes_a_sample)}/s |"
        )
    return [*rows, ""]


def _tables(hosts: dict[str, tuple[Sizes, Stored]], caps: dict[int, int], memory: float) -> str:
    release = ".".join(map(str, INSTALLED.version()))
    lines = [
        f"Linux {os.uname().release} {platform.machine()}, {os.cpu_count()} CPUs, Prometheus {release}; mode `ebpf_core`.",
        "",
        "| one host | " + " | ".join(hosts) + " |",
        "|---|" + "---|" * len(hosts),
    ]

    def row(title: str, cell: Callable[[Sizes, Stored], str]) -> None:
        lines.append(f"| {title} | " + " | ".join(cell(sizes, stored) for sizes, stored in hosts.values()) + " |")

    row("series stored", lambda _, stored: str(stored.series))
    for body in (each for name in FORMATS for each in (name, f"{name}, gzip")):
        row(f"bytes of a scrape: {body}", lambda sizes, _, body=body: f"{sizes.bodies[body]:,}")  # type: ignore[misc]
    row("bytes on disk per sample: chunks", lambda _, stored: f"{stored.chunk_bytes / stored.samples:.2f}")
    row("bytes on disk per sample: with the index of a 2 h block", lambda _, stored: f"{stored.disk_bytes_a_sample:.2f}")
    row("bytes of remote write per sample (snappy, bodies)", lambda _, stored: f"{stored.sent_bytes_a_sample:.1f}")
    lines += ["", f"Memory of Prometheus per series, with {_TARGETS} hosts in the head: {_size(memory)}.", ""]
    lines += ["| `metrics.max_comms` | series after a flood of 20,000 names |", "|---|---|"]
    lines += [f"| {cap}{' (default)' if cap == _CAPS[0] else ''} | {series} |" for cap, series in caps.items()]
    lines.append("")
    for name, (sizes, stored) in hosts.items():
        lines += _fleet(f"{name[0].upper()}{name[1:]}", sizes, stored, memory)
    return "\n".join(lines).rstrip()


@contextmanager
def _exporter(cap: int) -> Iterator[Running]:
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as config:
        config.write(f"metrics: {{max_comms: {cap}, new_series_hold_seconds: 0}}\n")
        config.flush()
        Path(config.name).chmod(0o644)
        with running("--mode=ebpf_core", f"--config.file={config.name}") as exporter:
            yield exporter


def main() -> None:
    """Measure, then print the tables."""
    hosts: dict[str, tuple[Sizes, Stored]] = {}
    caps: dict[int, int] = {}
    with built() as workload:
        busy = Busy(workload, _NAMES)
        with _exporter(_NAMES) as exporter:  # the cap keeps out what else runs on this machine
            hosts[f"{_NAMES} names"] = (_sizes(exporter), _stored(exporter, busy.usual))
            hosts["names and owners dropped at the scrape"] = (_sizes(exporter), _stored(exporter, busy.usual, _DROP_NAMES))
            hosts[f"{_NAMES} names"] = (_sizes(exporter), hosts[f"{_NAMES} names"][1])  # all names are there by now
        for cap in _CAPS:
            with _exporter(cap) as exporter:
                workload.run("comms", _FLOOD)
                time.sleep(7)
                caps[cap] = _sizes(exporter).series
                if cap == _CAPS[0]:
                    stored = _stored(exporter, busy.every_name)
                    hosts[f"{_CAPS[0]} names"] = (_sizes(exporter), stored)
                    memory = _memory_a_series(exporter)
    tables = _tables(hosts, caps, memory)
    print(tables)
    if os.environ.get("WRITE"):
        page = _PAGE.read_text()
        head, tail = page.partition(_BEGIN)[0], page.partition(_END)[2]
        _PAGE.write_text(f"{head}{_BEGIN}\n{tables}\n{_END}{tail}")


if __name__ == "__main__":
    main()
