"""What several unit tests start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.kernel import process_cgroups
from exporter.kernel.cgroups import Hierarchy
from exporter.sources.tally import Tally
from tests.unit.fake_proc import SCALE, FakeProc


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


@pytest.fixture
def tally() -> Tally:
    return Tally(SCALE)


@pytest.fixture
def only_v2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are attributed by cgroups v2, seen from the host, whatever this machine has."""
    monkeypatch.setattr(process_cgroups, "hierarchy", lambda: Hierarchy("", is_pids=False, id=0))
    monkeypatch.setattr(process_cgroups, "INITIAL_CGROUP_NAMESPACE", Path("/proc/self/ns/cgroup").stat().st_ino)
