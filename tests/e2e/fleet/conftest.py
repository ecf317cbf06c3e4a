"""Servers that scrape a small fleet of hosts. They are busy for as long as they run, so their tests have a folder of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.loaders.core import refusal
from tests.conftest import NO_THREE
from tests.e2e.fleet.scraped import Fleet, scraped


@pytest.fixture(scope="package")
def fleets() -> Iterator[dict[str, Fleet]]:
    """The same hosts as each of `SERVERS` knows them, for all who only look: to start these takes longer than to ask them everything."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    if os.geteuid() != 0 or (reason := refusal()) is not None:
        pytest.skip(f"needs root and eBPF for a host that sees everything: {reason if os.geteuid() == 0 else 'not root'}")
    with tempfile.TemporaryDirectory(prefix="shortproc-fleet-") as folder, scraped(Path(folder)) as fleets:
        yield fleets


@pytest.fixture(scope="package", params=["installed", "3, native"])
def fleet(request: pytest.FixtureRequest, fleets: dict[str, Fleet]) -> Fleet:
    """As a server knows it that has classic histograms only, and as one does that takes native ones."""
    return known_to(request.param, fleets)


def known_to(name: str, fleets: dict[str, Fleet]) -> Fleet:
    """Skips where it is not there."""
    if name not in fleets:
        pytest.skip(NO_THREE)
    return fleets[name]
