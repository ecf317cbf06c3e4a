"""A real Prometheus scrapes the real exporter, and promtool asks it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.exporter import Running, free_port, running
from bench.workloads import built
from exporter.loaders.core import refusal

HOLD_SECONDS = 4
WAIT_SECONDS = 60

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Running]:
    """The exporter in its exact mode, with a short hold so that the test is short."""
    reason = refusal()
    if reason is not None:
        pytest.skip(reason)
    config = tmp_path / "exporter.yml"
    config.write_text(f"metrics: {{new_series_hold_seconds: {HOLD_SECONDS}}}\n")
    with running("--mode=ebpf_core", f"--config.file={config}") as exporter:
        yield exporter


@pytest.fixture
def prometheus(exporter: Running, tmp_path: Path) -> Iterator[str]:
    """A server that scrapes it each second; gives its URL."""
    config, port = tmp_path / "prometheus.yml", free_port()
    target = f"static_configs: [{{targets: ['127.0.0.1:{exporter.port}']}}]"
    config.write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: shortproc, {target}}}]\n")
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    child = subprocess.Popen([*command, "--log.level=error"])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)


def test_a_new_comm_is_seen_from_its_first_event(prometheus: str) -> None:
    """increase() of a series born with a value would be 0; the hold shows it at 0 first."""
    until_answered(prometheus, "up", "1")
    with built(storm="e2e-parent", tiny="e2e-new-comm") as workload:
        workload.run("forkexec", 300, workload.tiny)
    for name in ("shortproc_comm_exits_total", "shortproc_comm_execs_total"):
        query = f'sum(max_over_time({name}{{comm="e2e-new-comm"}}[1m]) - min_over_time({name}{{comm="e2e-new-comm"}}[1m]))'
        assert until_answered(prometheus, query, "300")
        assert until_answered(prometheus, f'sum(increase({name}{{comm="e2e-new-comm"}}[1m])) > 299', None)


def test_promtool_finds_nothing_to_say(exporter: Running) -> None:
    """Names, types and help are as the conventions want them."""
    checked = subprocess.run(["promtool", "check", "metrics"], input=exporter.get(), capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def until_answered(url: str, query: str, expected: str | None) -> bool:
    """Ask until the answer is the expected one (None: any)."""
    values: list[str] = []
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        asked = subprocess.run(["promtool", "query", "instant", "-o", "json", url, query], capture_output=True, text=True, check=False)
        values = [sample["value"][1] for sample in json.loads(asked.stdout or "[]") or []] if asked.returncode == 0 else []
        if values and expected in (None, values[0]):
            return True
        time.sleep(0.5)
    pytest.fail(f"{query}: {values}, not {expected}")
