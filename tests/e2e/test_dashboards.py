"""Every query of the dashboards, asked of a real Prometheus that scrapes five hosts: one for each answer to "is the data complete?"."""

from __future__ import annotations

import http
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.exporter import Running, free_port, running
from bench.workloads import Workload, built
from exporter.loaders.core import refusal

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "grafana").glob("*.json"))}
JOB, TINY, ROUNDS, EACH = "shortproc", "dash-tiny", 5, 60
NOBODY = 65534
RANGE_SECONDS, STEP_SECONDS, RATE_SECONDS = 90, 5, 15

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


class Asked(NamedTuple):
    """A query of a page, as it is committed."""

    page: str
    of: str
    expr: str
    instant: bool


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

    def ask(self, asked: Asked, instance: str) -> list[dict[str, Any]]:
        """Series, as Grafana would ask for them over the last `RANGE_SECONDS`; those without a number are left out."""
        now, expr = time.time(), filled(asked.expr, instance)
        window = {"start": now - RANGE_SECONDS, "end": now, "step": STEP_SECONDS}
        series = self.api("query", query=expr, time=now) if asked.instant else self.api("query_range", query=expr, **window)
        values = [(one, one.get("values") or [one["value"]]) for one in series["result"]]
        return [{**one, "values": pairs} for one, pairs in values if any(math.isfinite(float(value)) for _, value in pairs)]


def filled(expr: str, instance: str) -> str:
    """With Grafana's variables replaced."""
    values = {
        "__rate_interval": f"{RATE_SECONDS}s",
        "__interval": f"{STEP_SECONDS}s",
        "__range": f"{RANGE_SECONDS}s",
        "job": JOB,
        "instance": instance,
        "comm": ".*",
    }
    return re.sub(r"\$(\w+)", lambda variable: values[variable[1]], expr)


def asked() -> Iterator[Asked]:
    """Every query of every panel and annotation."""
    for name, page in PAGES.items():
        for panel in page["panels"]:
            for target in panel.get("targets", []):
                yield Asked(name, f"{panel['title']}: {target['refId']}", target["expr"], target.get("instant", False))
        for annotation in page["annotations"]["list"]:
            yield Asked(name, annotation["name"], annotation["expr"], instant=False)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Exact; degraded, without leave for eBPF; partial, since it scans; unknown, in a pid namespace; and one that is down."""
    if os.geteuid() != 0 or refusal() is not None:
        pytest.skip("needs root and eBPF for a host that sees everything")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shortproc-fleet-")))
        folder.chmod(0o755)  # the exporter reads and writes there as another user
        sink = folder / "sink"
        sink.mkdir()
        os.chown(sink, NOBODY, NOBODY)
        whole = configured(folder / "whole.yml", f"sinks: {{jsonl: {{path: {sink}/records.jsonl}}}}")
        scanning = configured(folder / "scanning.yml", "detection: {mode: fast_scan}")
        workload = stack.enter_context(built("dash-storm", TINY))
        partial = stack.enter_context(running(f"--config.file={scanning}"))
        ports = {
            "complete": stack.enter_context(running("--mode=ebpf_core", f"--config.file={whole}")).port,
            "degraded": stack.enter_context(running_in("setpriv --bounding-set=-bpf,-perfmon,-sys_admin")).port,
            "partial": partial.port,
            "unknown": stack.enter_context(running_in("unshare --pid --fork --mount-proc", "--mode=scan")).port,
            "not scraped": free_port(),
        }
        hosts = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        fleet = Fleet(stack.enter_context(prometheus(folder, list(hosts.values()))), hosts)
        time.sleep(4)
        busy(workload)
        configured(scanning, "detection: {mode: scan}")
        os.kill(partial.pid, signal.SIGHUP)
        until(lambda: partial.samples()["shortproc_detection_mode", (("mode", "scan"),)] == 1)
        busy(workload)
        time.sleep(4)  # names are held back for two seconds
        yield fleet


def configured(path: Path, more: str) -> Path:
    """A file with a short hold, so that the test is short."""
    path.write_text(f"metrics: {{new_series_hold_seconds: 2}}\n{more}\n")
    return path


@contextmanager
def running_in(box: str, *arguments: str) -> Iterator[Running]:
    """The exporter under a command that takes something from it."""
    port = free_port()
    command = [*box.split(), sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error", *arguments]
    child = subprocess.Popen(command, start_new_session=True)
    exporter = Running(child.pid, port, 0.0)
    try:
        until(lambda: exporter.status("/-/ready") == http.HTTPStatus.OK)
        yield exporter
    finally:
        os.killpg(child.pid, signal.SIGTERM)  # unshare itself ignores it, and waits for the other
        child.wait(10)


def until(done: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(OSError):
            if done():
                return
        time.sleep(0.05)
    pytest.fail("waited in vain")


@contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[str]:
    """A server that scrapes them each second; gives its URL."""
    config, url = folder / "prometheus.yml", f"127.0.0.1:{free_port()}"
    jobs = [{"job_name": JOB, "static_configs": [{"targets": targets}]}]
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    options = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={url}", "--log.level=error"]
    child = subprocess.Popen(["prometheus", *options])
    try:
        yield f"http://{url}"
    finally:
        child.terminate()
        child.wait(30)


def busy(workload: Workload) -> None:
    """A little of everything, a second apart."""
    for _ in range(ROUNDS):
        workload.run("forkexec", EACH, workload.tiny)
        workload.run("together", 5, 4)
        workload.run("burn", 2, 20, 1)
        workload.run("end", 10, 3)
        workload.run("kill", 10, signal.SIGKILL)
        time.sleep(1)


@pytest.mark.parametrize("asked", list(asked()), ids=lambda asked: f"{asked.page}: {asked.of}")
def test_each_query_returns_data(fleet: Fleet, asked: Asked) -> None:
    """Of one of the hosts at least: a panel that shows nothing anywhere is of no use, and an error is worse."""
    answers = [fleet.ask(asked, instance) for instance in fleet.hosts.values()]
    assert any(answers)


@pytest.mark.parametrize("page", PAGES)
def test_each_variable_lists_something(fleet: Fleet, page: str) -> None:
    """Those that are asked of Prometheus: without values the page stays empty."""
    found = {}
    for variable in PAGES[page]["templating"]["list"]:
        if variable["type"] == "query":
            matched = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert matched is not None
            selector = urllib.parse.quote(filled(matched[1], fleet.hosts["complete"]))
            found[variable["name"]] = set(fleet.api(f"label/{matched[2]}/values?match[]={selector}"))
    assert found.keys() == {"job", "instance", "comm"}
    assert found["job"] == {JOB}
    assert found["instance"] <= set(fleet.hosts.values())
    assert fleet.hosts["complete"] in found["instance"]
    assert TINY in found["comm"]


def test_each_host_is_counted_under_its_verdict(fleet: Fleet) -> None:
    """A host whose figures are too low must not pass for one that sees everything."""
    counted = {}
    for target, asked in panel("shortproc-fleet", "Hosts by how complete their data is"):
        (answer,) = fleet.ask(asked, ".+")
        counted[target["legendFormat"]] = answer["values"][0][1]
    assert counted == dict.fromkeys(fleet.hosts, "1")


def test_the_banner_says_one_thing_of_each_host(fleet: Fleet) -> None:
    """Two answers, or none, would leave the reader with the doubt that the banner is there to take away."""
    said = {}
    for name, instance in fleet.hosts.items():
        answers = [(target, fleet.ask(asked, instance)) for target, asked in panel("shortproc-host", "Is this page complete?")]
        said[name] = [target["legendFormat"].partition(":")[0] for target, series in answers for _ in series]
    assert said == {
        "complete": ["Complete"],
        "degraded": ["Complete counts, but a better mode than {{mode}} was wanted; seen"],
        "partial": ["Partial"],
        "unknown": ["Unknown"],
        "not scraped": [],
    }


def test_names_are_counted_right(fleet: Fleet) -> None:
    """A query may return data and be wrong all the same: the table is compared with what was run."""
    (_, asked), *_ = panel("shortproc-host", "Names")
    counts = {one["metric"].get("comm"): float(one["values"][0][1]) for one in fleet.ask(asked, fleet.hosts["complete"])}
    assert counts[TINY] == pytest.approx(2 * ROUNDS * EACH, rel=0.1)  # increase() guesses beyond the first and last scrape


def test_a_switch_is_marked_once(fleet: Fleet) -> None:
    """At one step: a mark at each step of a rate's window would hide when it was."""
    (asked,) = (each for each in asked_of("shortproc-host") if each.of == "Mode switches")
    (series,) = fleet.ask(asked, fleet.hosts["partial"])
    assert (series["metric"]["to_mode"], series["metric"]["reason"]) == ("scan", "config")
    assert [value for _, value in series["values"]] == ["1"]


def asked_of(page: str) -> list[Asked]:
    return [each for each in asked() if each.page == page]


def panel(page: str, title: str) -> Iterator[tuple[dict[str, Any], Asked]]:
    """Its queries, with what the page says of each."""
    (found,) = (panel for panel in PAGES[page]["panels"] if panel["title"] == title and panel["type"] != "row")
    for target in found["targets"]:
        yield target, Asked(page, title, target["expr"], target.get("instant", False))
