"""The whole program as its users run it: a child, told by flags and signals, asked over HTTP."""

from __future__ import annotations

import html
import http.client
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from operator import eq
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from bench.exporter import free_port
from exporter.kernel.procfs import Procfs
from tests.folders import public
from tests.kernel.programs import Program, until

pytestmark = pytest.mark.commands

CHECKOUT = Path(__file__).parents[2]
STOP_SECONDS = 5
"""Generous: a second is what it takes at most."""

Sample = tuple[str, frozenset[tuple[str, str]]]
Samples = dict[Sample, float]

KERNEL_CLONES: Sample = ("shortproc_kernel_clones_total", frozenset())
OBSERVED_CLONES: Sample = ("shortproc_observed_clones_total", frozenset())
SUCCESSFUL: Sample = ("shortproc_exporter_config_last_reload_successful", frozenset())
SUCCESS_TIME: Sample = ("shortproc_exporter_config_last_reload_success_timestamp_seconds", frozenset())
CAPTURE_RATIO: Sample = ("shortproc_detection_capture_ratio", frozenset())


@dataclass(frozen=True, slots=True)
class Running:
    child: subprocess.Popen[str]
    port: int

    def get(self, path: str, accept: str = "*/*") -> tuple[int, str]:
        """Status and body, on a connection of its own."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path, headers={"Accept": accept})
            response = connection.getresponse()
            return response.status, response.read().decode()

    def ready(self) -> bool:
        try:
            return self.get("/-/ready")[0] == http.HTTPStatus.OK
        except OSError:
            return False

    def samples(self) -> Samples:
        """Every sample of a scrape."""
        families = parse_text(self.get("/metrics")[1])
        return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples}


def command(port: int, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}", *arguments]


def as_user(uid: int | None) -> dict[str, Any]:
    """Arguments of `subprocess` for somebody with no group but their own."""
    return {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}


@contextmanager
def running(*arguments: str, uid: int | None = None) -> Iterator[Running]:
    """Start it, wait until it is ready, and kill it if it is still there after."""
    port = free_port()
    with subprocess.Popen(command(port, *arguments), cwd=CHECKOUT, stderr=subprocess.PIPE, text=True, **as_user(uid)) as child:
        exporter = Running(child, port)
        try:
            assert until(lambda: exporter.ready() or child.poll() is not None, bool)
            if child.returncode is not None:
                pytest.fail(child.communicate()[1])
            yield exporter
        finally:
            if child.poll() is None:
                child.kill()


def refused(*arguments: str, port: int | None = None, uid: int | None = None) -> tuple[int, str]:
    """Run it where it can't; its exit status and what it says."""
    told = command(port or free_port(), *arguments)
    result = subprocess.run(told, cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=False, **as_user(uid))
    assert result.stdout == ""
    return result.returncode, result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_until_it_is_told_to_stop(requires_bpf: None, number: signal.Signals) -> None:
    """The default command: best mode, metrics in both formats, health, a page, 404 elsewhere, a clean end."""
    with running() as exporter:
        samples = exporter.samples()
        modes = {dict(labels)["mode"]: value for (name, labels), value in samples.items() if name == "shortproc_detection_mode"}
        assert modes == {"ebpf_core": 1, "ebpf_bcc": 0, "netlink": 0, "fast_scan": 0, "scan": 0}
        assert samples[CAPTURE_RATIO] == 1
        assert samples["shortproc_detection_degraded", frozenset()] == 0
        openmetrics = exporter.get("/metrics", "application/openmetrics-text; version=1.0.0")[1]
        assert {family.name for family in parse_openmetrics(openmetrics)} >= {
            "shortproc_ended_processes",
            "shortproc_process_runtime_seconds",
        }
        assert exporter.get("/-/healthy")[0] == 200
        assert exporter.get("/")[0] == 200
        assert exporter.get("/elsewhere")[0] == 404
        exporter.child.send_signal(number)
        _, said = exporter.child.communicate(timeout=STOP_SECONDS)
        assert exporter.child.returncode == 0
        assert "Traceback" not in said


@pytest.mark.alone
def test_totals_never_fall_while_scraped_in_a_storm(requires_bpf: None, workload: Program, tmp_path: Path) -> None:
    """Counters and histograms only grow, drains and all; and the storm is whole in them at the end."""
    config = tmp_path / "exporter.yml"
    config.write_text("metrics: {new_series_hold_seconds: 0, max_comms: 1000}\n")
    with running("--config.file", str(config)) as exporter:
        scrapes = [exporter.samples()]
        storm = threading.Thread(
            target=lambda: [workload.storm(*words) for words in (("vfork", 20000), ("comms", 600), ("together", 300, 8))]
        )
        storm.start()
        while storm.is_alive():
            scrapes.append(exporter.samples())
        storm.join()
        comm = ("comm", workload.comm.decode())
        whole = {("ok", 20000 + 300 + 3)}
        last = until(exporter.samples, lambda samples: _exits(samples, comm) == whole)
        scrapes.append(last)
    for earlier, later in pairwise(scrapes):
        fallen = {key: (value, later.get(key)) for key, value in earlier.items() if _only_grows(key[0]) and later.get(key, -1) < value}
        assert not fallen
    assert _exits(last, comm) == whole
    assert last[KERNEL_CLONES] == last[OBSERVED_CLONES]
    assert last[CAPTURE_RATIO] == 1
    assert sum(value for (name, _), value in last.items() if name == "shortproc_comm_exits_total") <= sum(
        value for (name, _), value in last.items() if name == "shortproc_ended_processes_total"
    )


def test_a_new_name_has_its_series_in_the_next_scrape(requires_bpf: None, workload: Program, tmp_path: Path) -> None:
    """At 0, so that Prometheus sees it rise; the drain that gives it the series comes up to 6 s later."""
    config = tmp_path / "exporter.yml"
    config.write_text("metrics: {max_comms: 1000}\n")
    with running("--config.file", str(config)) as exporter:
        workload.storm("vfork", 10)
        samples = exporter.samples()
    assert samples["shortproc_comm_short_exits_total", frozenset({("comm", workload.comm.decode())})] == 0


def test_a_port_in_use() -> None:
    """Exit status 1, one line that names the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said = refused("--fast-scan", port=port)
    assert status == 1
    assert said.count("\n") == 1
    assert str(port) in said


def test_a_forced_mode_that_can_not_run(tmp_path: Path) -> None:
    """Exit status 2 and the reason; nothing else is tried."""
    config = tmp_path / "exporter.yml"
    config.write_text("detection: {ebpf_bcc: {interpreter: /bin/false}}\n")
    status, said = refused("--mode=ebpf_bcc", "--log.level=error", "--config.file", str(config))
    assert status == 2
    assert said.count("\n") == 1
    assert "ebpf_bcc can't run" in said


def test_a_configuration_is_read_again(requires_bpf: None, workload: Program, tmp_path: Path) -> None:
    """SIGHUP switches the mode of a running exporter; a bad file is refused whole and seen in the metrics; no total falls."""
    public(tmp_path)
    config = tmp_path / "exporter.yml"
    config.write_text("detection: {mode: scan}\nmetrics: {new_series_hold_seconds: 0, max_comms: 1000}\n")
    with running("--config.file", str(config)) as exporter:
        scrapes = [exporter.samples()]
        assert _reloaded(scrapes[-1]) == (1, "scan")
        for text, mode, successful in (
            ("detection: {mode: ebpf_core}\nmetrics: {max_comms: 1000}\n", "ebpf_core", 1),
            ("detection: {mode: netlink, interval: 7}\n", "ebpf_core", 0),
            ("detection: {mode: netlink}\n", "netlink", 1),
            ("", "ebpf_core", 1),
        ):
            config.write_text(text)
            exporter.child.send_signal(signal.SIGHUP)
            workload.storm("end", 50, 0)
            wanted = (successful, mode)
            until(lambda: _reloaded(exporter.samples()), partial(eq, wanted))
            scrapes.append(exporter.samples())
            assert _reloaded(scrapes[-1]) == wanted
        assert scrapes[-1][SUCCESS_TIME] > scrapes[0][SUCCESS_TIME]
    for earlier, later in pairwise(scrapes):
        assert not {key: (value, later.get(key)) for key, value in earlier.items() if _only_grows(key[0]) and later.get(key, -1) < value}


def test_a_forced_mode_that_may_not_run(requires_bpf: None, nobody: int | None) -> None:
    """Somebody who asks for eBPF without the privilege is told what it takes."""
    status, said = refused("--mode=ebpf_core", "--log.level=error", uid=nobody)
    assert status == 2
    assert said.count("\n") == 1
    assert "CAP_BPF and CAP_PERFMON" in said


def test_an_ordinary_user_is_served(nobody: int | None) -> None:
    """Without any privilege the same command runs, degraded, and says so and why."""
    with running(uid=nobody) as exporter:
        samples = exporter.samples()
        mode = _mode(samples)
        assert mode in ("netlink", "fast_scan"), "newer kernels let anybody listen to the proc connector"
        assert samples["shortproc_detection_degraded", frozenset()] == 1
        assert samples["shortproc_detection_mode_switches_total", frozenset({("to_mode", mode), ("reason", "unavailable")})] == 1
        assert "ebpf_core can't run: " in html.unescape(exporter.get("/")[1])


@pytest.mark.alone
def test_fast_scan_says_what_it_misses(nobody: int | None, workload: Program) -> None:
    """Half a millisecond is less than it can see: what it saw and what there was are both published."""
    if not Procfs().in_initial_pid_namespace():
        pytest.skip("in a pid namespace the kernel's count is not of the processes seen")
    with running("--fast-scan", uid=nobody) as exporter:
        before = exporter.samples()
        workload.storm("vfork", 5000)

        unseen = ("shortproc_detection_lost_total", frozenset({("reason", "unseen")}))
        after = until(exporter.samples, lambda samples: samples[KERNEL_CLONES] - before[KERNEL_CLONES] >= 5000 and samples[unseen] > 0)
        assert after[KERNEL_CLONES] - before[KERNEL_CLONES] >= 5000
        assert after[OBSERVED_CLONES] - before[OBSERVED_CLONES] <= after[KERNEL_CLONES] - before[KERNEL_CLONES]
        assert 0 <= after[CAPTURE_RATIO] < 1
        assert after[unseen] > 0


def _mode(samples: Samples) -> str:
    return next(dict(labels)["mode"] for (name, labels), value in samples.items() if name == "shortproc_detection_mode" and value)


def _reloaded(samples: Samples) -> tuple[float, str]:
    """Whether the configuration was taken, and the mode."""
    return samples[SUCCESSFUL], _mode(samples)


def _only_grows(name: str) -> bool:
    return name.startswith("shortproc_") and name.endswith(("_total", "_bucket", "_count", "_sum"))


def _exits(samples: Samples, comm: tuple[str, str]) -> set[tuple[str, float]]:
    return {
        (dict(labels)["outcome"], value)
        for (name, labels), value in samples.items()
        if name == "shortproc_comm_exits_total" and comm in labels and value
    }
