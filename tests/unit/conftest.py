"""What several unit tests start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.sources.tally import Tally
from tests.unit.fake_proc import SCALE, FakeProc


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


@pytest.fixture
def tally() -> Tally:
    return Tally(SCALE)
