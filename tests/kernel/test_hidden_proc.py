"""A `/proc` that shows processes and nothing else, as a hardened unit or container has it (subset=pid)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.exporter import free_port
from tests.kernel.programs import Program, until
from tests.kernel.test_app import CAPTURE_RATIO, CHECKOUT, KERNEL_CLONES, Running, command
from tests.kernel.test_storms import needs_core

pytestmark = pytest.mark.commands

HIDING = ["unshare", "--mount", "sh", "-c", 'mount -t proc -o subset=pid proc /proc && exec "$@"', "sh"]
WARNING = "/proc/stat cannot be read, as in a proc mount with subset=pid: there is no capture ratio"


@pytest.fixture
def hiding() -> list[str]:
    """What runs a command so."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount proc")
    tried = subprocess.run([*HIDING, "test", "!", "-e", "/proc/stat"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"proc can't be mounted with subset=pid here: {tried.stderr.strip()}")
    return HIDING


@pytest.mark.parametrize("mode", ["fast_scan", "scan", pytest.param("ebpf_core", marks=needs_core)])
def test_it_says_that_it_can_not_measure_what_it_misses(hiding: list[str], tmp_path: Path, mode: str) -> None:
    """At the default log level, for an absent metric is easily overlooked; and what it sees counts as ever."""
    sleep = Program.copied(Path(shutil.which("sleep") or "sleep"), tmp_path)
    config = tmp_path / "exporter.yml"
    config.write_text("metrics: {new_series_hold_seconds: 0, max_comms: 1000}\ndetection: {scan: {interval_seconds: 0.1}}\n")
    port = free_port()
    whole = [*hiding, *command(port, f"--mode={mode}", "--config.file", str(config))]
    with subprocess.Popen(whole, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) as child:
        exporter = Running(child, port)
        try:
            assert until(lambda: exporter.ready() or child.poll() is not None, bool)
            sleep.run(0.5)
            ended = {("comm", sleep.comm.decode()), ("outcome", "ok" if mode == "ebpf_core" else "unknown")}
            seen = "shortproc_comm_exits_total", frozenset(ended)
            samples = until(exporter.samples, lambda samples: samples.get(seen) == 1)
            assert samples.get(seen) == 1
            assert CAPTURE_RATIO not in samples
            assert KERNEL_CLONES not in samples
            child.terminate()
            _, said = child.communicate(timeout=20)
        finally:
            child.kill()
    assert said.count(WARNING) == 1


def test_doctor_says_so(hiding: list[str]) -> None:
    """It is where a person looks for why."""
    told = [*hiding, sys.executable, "-m", "exporter", "doctor", "--mode=fast_scan"]
    result = subprocess.run(told, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0
    assert f"note: {WARNING}" in result.stdout
    assert "PIDs cannot be probed here" in result.stdout
