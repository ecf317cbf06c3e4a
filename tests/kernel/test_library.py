"""The Python API on the real kernel, and the examples of its manual as they stand there."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import exporter
from exporter.model import NS
from tests.kernel.programs import Program
from tests.kernel.test_app import CHECKOUT, running
from tests.unit.sink_files import private, rows_to
from tests.unit.snoop_records import TYPICAL

pytestmark = pytest.mark.commands

EXAMPLES = re.findall(r"^```python\n(.*?)^```", (CHECKOUT / "docs" / "library.md").read_text(), re.MULTILINE | re.DOTALL)
SECONDS = 60


def descriptors() -> list[str]:
    """What this process has open, threads included."""
    threads = [each.name for each in threading.enumerate()]
    files = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            files.append(str(each.readlink()))
    return sorted(threads) + sorted(each for each in files if not each.endswith("/fd"))


def test_watching(requires_bpf: None, workload: Program) -> None:
    """Each short process is a record and in the totals, `recent` has them too, and nothing stays behind."""
    comm = workload.comm.decode()
    before = descriptors()
    with exporter.watch("ebpf_core", only=exporter.Filter(parent=(comm,)), recent=10) as processes:
        assert processes.description == "mode ebpf_core"
        first = processes.counts()
        workload.storm("end", 20, 7)
        found = []
        for record in processes.within(SECONDS):
            found.append(record)
            if len(found) == 20:
                break
        last = processes.counts()
        assert {(each.comm, each.outcome, each.code) for each in found} == {(workload.comm, exporter.Outcome.ERROR, 7)}
        assert processes.recent() == found[-10:]
        assert processes.dropped == 0
    assert last.exits[exporter.Outcome.ERROR] - first.exits[exporter.Outcome.ERROR] >= 20
    assert last.short - first.short >= 20
    assert last.mode is exporter.Mode.EBPF_CORE
    assert processes.counts().short >= last.short, "totals can be asked for after the end"
    assert list(processes.recent()) == found[-10:]
    assert descriptors() == before


def test_a_mode_that_does_not_work(nobody: int | None, requires_bpf: None) -> None:
    """The reason is the exporter's, and nothing stays behind."""
    code = (
        "import exporter\ntry:\n    exporter.watch('ebpf_core').__enter__()\nexcept exporter.ModeUnavailable as reason:\n    print(reason)"
    )
    run = subprocess.run([sys.executable, "-c", code], user=nobody, capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert "ebpf_core can't run: " in run.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_of_the_manual(example: str, requires_bpf: None, tmp_path: Path) -> None:
    """They are what people copy."""
    with private(tmp_path) as folder:
        sink = rows_to(folder)
        sink.handle([TYPICAL._replace(ended_ns=time.time_ns() - NS)])
        sink.store()
        sink.release()
        code = example.replace("/var/lib/shortproc/records.db", str(sink.path))
        if "localhost:10199" not in code:
            run_example(code)
            return
        with running("--log.level=error") as each:
            run_example(code.replace("localhost:10199", f"localhost:{each.port}"))


def run_example(code: str) -> None:
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (run.returncode, run.stderr) == (0, "")
