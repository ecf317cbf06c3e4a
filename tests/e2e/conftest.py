"""What the tests with a Prometheus, and those with a browser, share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.loaders.core import refusal
from tests.e2e.browser import Tab, tab
from tests.e2e.fleet import Fleet, scraped


@pytest.fixture(scope="package")
def fleet() -> Iterator[Fleet]:
    """One Prometheus for all who only look: to start one takes longer than to ask it everything."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    if os.geteuid() != 0 or (reason := refusal()) is not None:
        pytest.skip(f"needs root and eBPF for a host that sees everything: {reason if os.geteuid() == 0 else 'not root'}")
    with tempfile.TemporaryDirectory(prefix="shortproc-fleet-") as folder, scraped(Path(folder)) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A page of its own for each module."""
    with tab(tmp_path_factory.mktemp("browser")) as page:
        yield page
