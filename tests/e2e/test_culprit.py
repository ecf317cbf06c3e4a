"""As in an incident: many quiet names, and then one that is run again and again. Its name must be in the metrics, at once and in full."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from bench.exporter import Running, running
from bench.workloads import Workload, built
from exporter.loaders.core import refusal
from exporter.model import comm_text

HOLD_SECONDS = 4
QUIET, BURST_SECONDS, APART_SECONDS = 200, 10, 0.01

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or refusal() is not None, reason="needs root and eBPF, which see every process")


def short_exits(exporter: Running) -> dict[str, float]:
    return {
        dict(labels)["comm"]: value for (name, labels), value in exporter.samples().items() if name == "shortproc_comm_short_exits_total"
    }


def quiet_names(workload: Workload) -> None:
    """200 names of one exit each, a few at a time."""
    for _ in range(4):
        workload.run("comms", QUIET // 4)
        time.sleep(0.5)


@pytest.mark.alone
def test_a_burst_after_many_names_has_a_series(tmp_path: Path) -> None:
    """At 0 in the first seconds, and when it is no longer held back, at its true value."""
    config = tmp_path / "exporter.yml"
    config.write_text(json.dumps({"metrics": {"new_series_hold_seconds": HOLD_SECONDS}, "attribution": {"pods": "none"}}))
    culprit = Path(shutil.copy("/bin/true", tmp_path / "culprit"))
    with built() as workload, running("--mode=ebpf_core", f"--config.file={config}", "--path.procfs=/proc") as exporter:
        quiet_names(workload)
        begun, runs, first_seen = time.monotonic(), 0, None
        while time.monotonic() < begun + BURST_SECONDS:
            subprocess.run([culprit], check=True)
            runs += 1
            time.sleep(APART_SECONDS)
            if first_seen is None and runs % 20 == 0 and "culprit" in (shown := short_exits(exporter)):
                first_seen = time.monotonic() - begun
                assert shown["culprit"] == 0
        page = exporter.get("/").decode()
        first = dict(re.findall('<span id="first-(\\w+)-short_exits">(.*?)</span>', page))
        assert first["comm"] == "culprit", "on the first screen of the page, without a script"
        assert first["parent"] == first["spawner"] == comm_text(Path("/proc/self/comm").read_bytes().strip())
        assert first["user"] == "root"
        assert max(map(int, re.findall(r"<td class=\"number\">(\d+)</td>", page[page.index('id="seconds"') :]))) >= runs / BURST_SECONDS / 2
        assert first_seen is not None
        assert first_seen < 12
        deadline = time.monotonic() + HOLD_SECONDS + 12
        while time.monotonic() < deadline and short_exits(exporter).get("culprit") != runs:
            time.sleep(0.5)
        shown = short_exits(exporter)
        assert shown["culprit"] == runs
        rank = json.loads(exporter.get("/api/v1/busiest?seconds=60&limit=3"))["busiest"]
        assert "culprit" in [each["comm"] for each in rank]
