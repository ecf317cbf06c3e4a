"""Six hosts and the servers that scrape them: one host for each answer to "is the data complete?"."""

from __future__ import annotations

import http.server
import json
import math
import os
import re
import signal
import socketserver
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.exporter import free_port
from bench.prometheus import INSTALLED, THREE, Release, prometheus
from bench.workloads import Workload, built

RULES = Path(__file__).parents[3] / "deploy/prometheus/rules"
JOB = "shortproc"
TINY, ROUNDS, EACH = "dash-tiny", 4, 60
NEW, NEW_ENDS = "e2e-new-comm", 300
NOBODY = 65534
SCRAPE, HOLD_SECONDS, WAIT_SECONDS = "1s", 3, 30
RANGE_SECONDS = 90

SERVERS = {"installed": (INSTALLED, False), "installed, native": (INSTALLED, True), "3": (THREE, False), "3, native": (THREE, True)}
"""Those that scrape all hosts, and whether they take native histograms, and so ask for protobuf."""


class Asked(NamedTuple):
    """A query of a page, as it is committed."""

    page: str
    of: str
    expr: str
    instant: bool


class Window(NamedTuple):
    """The time that a page shows, up to now or, if given, to `end`, and what else Grafana would derive from it; in seconds."""

    seconds: int = RANGE_SECONDS
    step: int = 2
    rate: int = 15
    end: float = 0


LAST = Window()


@dataclass(frozen=True, slots=True)
class Fleet:
    """A Prometheus, and what it scrapes by what the pages should say of it."""

    url: str
    hosts: dict[str, str]

    def api(self, path: str, **form: object) -> Any:
        """What it answers, which must not be an error."""
        body = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", body or None, timeout=30) as response:
            return json.loads(response.read())["data"]

    def number(self, expr: str) -> float | None:
        """What an expression of one series is now."""
        values = [float(series["value"][1]) for series in self.api("query", query=expr)["result"]]
        return values[0] if len(values) == 1 else None

    def ask(self, asked: Asked, instance: str, window: Window = LAST) -> list[dict[str, Any]]:
        """Series, as Grafana would ask for them; those without a number are left out."""
        end, expr = window.end or time.time(), filled(asked.expr, instance, window)
        times = {"start": end - window.seconds, "end": end, "step": window.step}
        series = self.api("query", query=expr, time=end) if asked.instant else self.api("query_range", query=expr, **times)
        values = [(one, one.get("values") or one.get("histograms") or [one["value"]]) for one in series["result"]]
        return [{**one, "values": pairs} for one, pairs in values if any(math.isfinite(_number(value)) for _, value in pairs)]


def _number(value: Any) -> float:
    """Of a native histogram, how many it has."""
    return float(value["count"] if isinstance(value, dict) else value)


def filled(expr: str, instance: str, window: Window = LAST) -> str:
    """With Grafana's variables replaced."""
    values = {
        "__rate_interval": f"{window.rate}s",
        "__interval": f"{window.step}s",
        "__range": f"{window.seconds}s",
        "job": JOB,
        "instance": instance,
        "comm": ".*",
        "owner": ".*",
    }
    return re.sub(r"\$([a-z_]+)", lambda variable: values[variable[1]], expr)


@contextmanager
def scraped(folder: Path) -> Iterator[dict[str, Fleet]]:
    """Exact; degraded, without leave for eBPF; partial, since it scans; unknown, in a pid namespace; blind; and one that is down.

    By the names of `SERVERS`, as far as these are there.
    """
    with ExitStack() as stack:
        hosts = {name: f"127.0.0.1:{free_port()}" for name in ("complete", "degraded", "partial", "unknown", "blind", "not scraped")}
        # first of all: it takes five seconds to look for what to scrape
        fleets = {
            name: Fleet(stack.enter_context(scraping(folder / name, release, [{"targets": list(hosts.values())}], native=native)), hosts)
            for name, (release, native) in SERVERS.items()
            if release.program("prometheus")
        }
        folder.chmod(0o755)  # the exporter reads and writes there as another user
        sink = folder / "sink"
        sink.mkdir()
        os.chown(sink, NOBODY, NOBODY)
        whole = configured(folder / "whole.yml", {"sinks": {"jsonl": {"path": f"{sink}/records.jsonl"}}}, per_comm_histogram=True)
        scanning = configured(folder / "scanning.yml", {"detection": {"mode": "fast_scan"}})
        stack.enter_context(started(hosts["complete"], "", "--mode=ebpf_core", f"--config.file={whole}"))
        partial = stack.enter_context(started(hosts["partial"], "", f"--config.file={scanning}"))
        stack.enter_context(started(hosts["degraded"], "setpriv --bounding-set=-bpf,-perfmon,-sys_admin"))
        unknown = hosts["unknown"], "unshare --pid --fork --mount-proc", "--mode=scan"
        restarted = stack.enter_context(ExitStack())
        restarted.enter_context(started(*unknown))
        blinded = stack.enter_context(losing_sight(hosts["complete"], hosts["blind"]))
        workload, newcomer = stack.enter_context(built("dash-storm", TINY)), stack.enter_context(built("e2e-parent", NEW))
        up = f'sum(up{{job="{JOB}"}})'
        until(lambda: all(fleet.number(up) == len(hosts) - 1 for fleet in fleets.values()), "scrape of each host")
        newcomer.run("forkexec", NEW_ENDS, newcomer.tiny)
        busy(workload)
        blinded.set()
        restarted.close()
        stack.enter_context(started(*unknown))
        configured(scanning, {"detection": {"mode": "scan"}})
        os.kill(partial, signal.SIGHUP)
        scans = f'shortproc_detection_mode{{mode="scan", instance="{hosts["partial"]}"}}'
        until(lambda: all(fleet.number(scans) == 1 for fleet in fleets.values()), "switch")
        busy(workload)
        for name, ends in ((TINY, 2 * ROUNDS * EACH), (NEW, NEW_ENDS)):
            exits = f'sum(shortproc_comm_exits_total{{comm="{name}", instance="{hosts["complete"]}"}})'
            until(lambda exits=exits, ends=ends: all(fleet.number(exits) == ends for fleet in fleets.values()), name)  # type: ignore[misc]
        time.sleep(2)  # a rate wants two scrapes
        of = f'{{instance=~"{hosts["complete"]}|{hosts["degraded"]}"}}[{RANGE_SECONDS}s]'
        seen = f"count(increase(shortproc_observed_clones_total{of}) >= 0.999 * increase(shortproc_kernel_clones_total{of}))"
        until(lambda: all(fleet.number(seen) == 2 for fleet in fleets.values()), "moment at which all clones are counted")
        yield fleets


@contextmanager
def scraping(folder: Path, release: Release, targets: list[dict[str, Any]], *, native: bool) -> Iterator[str]:
    """A server that scrapes these `static_configs` each second, and has the rules, with seconds in place of minutes; gives its URL."""
    folder.mkdir(parents=True)
    for path in RULES.glob("*.yml"):
        hasty = re.sub(r"(interval|for): \d+[ms]", r"\1: 1s", path.read_text())
        (folder / path.name).write_text(hasty)
    settings, flags = release.native() if native else ({}, ())
    jobs = [{"job_name": JOB, "static_configs": targets}]
    config = {"global": {"scrape_interval": SCRAPE, **settings}, "scrape_configs": jobs, "rule_files": [f"{folder}/*.yml"]}
    with prometheus(json.dumps(config), *flags, release=release) as server:
        yield server.url


def configured(path: Path, more: dict[str, Any], **metrics: object) -> Path:
    """A file with a short hold, so that the test is short."""
    path.write_text(json.dumps({"metrics": {"new_series_hold_seconds": HOLD_SECONDS, **metrics}, **more}))
    return path


@contextmanager
def started(address: str, box: str, *arguments: str) -> Iterator[int]:
    """The exporter, under a command that takes something from it; gives the process id. Nobody waits until it is ready."""
    options = (f"--web.listen-address={address}", "--log.level=error", *arguments)
    child = subprocess.Popen([*box.split(), sys.executable, "-m", "exporter", *options], start_new_session=True)
    try:
        yield child.pid
    finally:
        os.killpg(child.pid, signal.SIGTERM)  # unshare itself ignores it, and waits for the other
        child.wait(10)


@contextmanager
def losing_sight(host: str, address: str) -> Iterator[threading.Event]:
    """Shows what a host shows until the event; from then on what an exporter shows that has no mode left: nothing moves."""
    blinded, shown = threading.Event(), [b""]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if blinded.is_set():
                without_ratio = re.sub(rb"(?m)^shortproc_detection_capture_ratio .*\n", b"", shown[0])
                page = re.sub(rb'(_detection_mode\{mode="\w+"\}) 1', rb"\1 0", without_ratio)
            else:
                page = shown[0] = fetched(f"http://{host}/metrics")
            self.send_response(http.HTTPStatus.OK if page else http.HTTPStatus.SERVICE_UNAVAILABLE)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

    with socketserver.ThreadingTCPServer((address.partition(":")[0], int(address.partition(":")[2])), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield blinded
        finally:
            server.shutdown()
            thread.join()


def fetched(url: str) -> bytes:
    """Nothing where there is no answer."""
    with suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
        body: bytes = response.read()
        return body
    return b""


def until(done: Callable[[], bool], what: str) -> None:
    """Wait for it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            if done():
                return
        time.sleep(0.1)
    raise TimeoutError(f"no {what} in {WAIT_SECONDS} s")


def busy(workload: Workload) -> None:
    """A little of everything, a second apart."""
    for _ in range(ROUNDS):
        workload.run("forkexec", EACH, workload.tiny)
        workload.run("together", 5, 4)
        workload.run("burn", 2, 20, 1)
        workload.run("end", 10, 3)
        workload.run("kill", 10, signal.SIGKILL)
        time.sleep(0.6)
