"""Whoever of the exporter's processes is killed, and whenever: nothing stays behind, and what can go on does."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.exporter import free_port
from bench.processes import family, loaded, marked, programs_of
from tests.folders import public
from tests.kernel.programs import Program, until
from tests.kernel.test_app import CHECKOUT, Running, _mode, command, running

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="only as root it has a broker"), pytest.mark.commands]

MARK = "SHORTPROC_TEST_KILLS"


@pytest.fixture
def sink() -> Iterator[Path]:
    """A file in a directory that belongs to an ordinary user."""
    with tempfile.TemporaryDirectory(prefix="shortproc-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        os.chown(name, 54321, 54321)
        yield Path(name) / "records.jsonl"


@pytest.fixture
def config(sink: Path, tmp_path: Path) -> str:
    public(tmp_path)
    path = tmp_path / "exporter.yml"
    path.write_text(f"sinks: {{jsonl: {{path: {sink}}}}}\n")
    return str(path)


def children(exporter: Running) -> dict[str, psutil.Process]:
    """The broker, and the handlers' child."""
    return family(exporter.child.pid)


def gone(process: psutil.Process) -> bool:
    """Ended, also if nobody has asked how yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between the two
        return True


@pytest.mark.usefixtures("requires_bpf")
def test_nothing_is_left_of_a_killed_exporter(config: str) -> None:
    """Neither its children nor its programs: they would go on counting for nobody, at every process's cost."""
    with running("--config.file", config) as exporter:
        assert until(lambda: sorted(children(exporter)), lambda names: len(names) == 2) == ["broker", "handlers"]
        left = list(children(exporter).values())
        programs = programs_of(exporter.child.pid)
        assert len(programs) >= 6
        assert all(loaded(each) for each in programs)
        exporter.child.kill()
        exporter.child.wait()
        assert until(lambda: all(map(gone, left)), bool)
        assert not until(lambda: {each for each in programs if loaded(each)}, lambda there: not there)


@pytest.mark.usefixtures("requires_bpf")
@pytest.mark.parametrize("killed", ["broker", "handlers"])
def test_it_outlives_its_children(config: str, sink: Path, workload: Program, killed: str) -> None:
    """It counts and stores on, and ends well when it is told."""
    with running("--config.file", config) as exporter:
        child = until(lambda: children(exporter), lambda found: len(found) == 2)[killed]
        child.kill()
        assert until(lambda: gone(child), bool)
        if killed == "handlers":
            assert until(lambda: children(exporter).get(killed), bool)
        workload.storm("end", 50, 0)
        assert until(lambda: sink.exists() and sink.read_text().count(workload.comm.decode()), lambda n: n > 50) > 50
        assert _mode(exporter.samples()) == "ebpf_core"
        exporter.child.terminate()
        _, said = exporter.child.communicate(timeout=20)
    assert exporter.child.returncode == 0
    assert "Traceback" not in said


def test_killed_at_any_moment(config: str) -> None:
    """While it starts, its broker or a loader may be at work: these end all the same."""
    mark = uuid.uuid4().hex
    seen = []
    begun = time.monotonic()
    with running("--config.file", config):
        took = time.monotonic() - begun
    for moment in [took * eighth / 8 for eighth in range(1, 9)]:
        told = command(free_port(), "--config.file", config)
        with subprocess.Popen(told, cwd=CHECKOUT, stderr=subprocess.DEVNULL, env={**os.environ, MARK: mark}) as child:
            time.sleep(moment)
            seen.append(len(marked(mark)))
            child.kill()
    assert max(seen) > 1, "no other process than the exporter was ever there"
    assert not until(lambda: marked(mark), lambda found: not found, seconds=60)
