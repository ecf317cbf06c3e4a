"""Programs to run, and a source that watches them, in both ways of counting a process's end once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.sources.ebpf.source import EbpfSource
from tests.kernel.debian import CHECKOUT, QUICKER
from tests.kernel.programs import SLOW, Program, renewed, watching

NOBODY = 65534
WAYS = ["group_dead", "guard"]
"""Of counting the end of a process once, without and with `force_guard`."""


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a release, built from this checkout."""
    for tool in ("dpkg-deb", "clang", "git"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("release")
    environment = {name: value for name, value in os.environ.items() if name != "TAG"} | QUICKER
    result = subprocess.run(
        [CHECKOUT / "deploy/release", folder], env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def workload(compiled: Path, tmp_path: Path) -> Program:
    """The storms of workload.c."""
    return Program.copied(compiled / "workload", tmp_path)


@pytest.fixture
def nothing(compiled: Path, tmp_path: Path) -> Program:
    """A program that ends at once."""
    return Program.copied(compiled / "nothing", tmp_path)


@pytest.fixture(scope="session")
def nobody() -> int | None:
    """An ordinary user who can run this checkout; None where the tests are run by one."""
    if os.geteuid() != 0:
        return None
    command = [sys.executable, "-c", "import exporter.app"]
    try:
        subprocess.run(command, cwd=CHECKOUT, user=NOBODY, group=NOBODY, extra_groups=[], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"uid {NOBODY} can't run this checkout with {sys.executable}")
    return NOBODY


@pytest.fixture(scope="module", params=[False, True], ids=WAYS)
def attached(request: pytest.FixtureRequest, requires_bpf: None) -> Iterator[EbpfSource]:
    """The programs, as this kernel is used and as those whose tracepoint doesn't tell which thread is the last one."""
    with watching(SLOW, force_guard=request.param) as source:
        yield source


@pytest.fixture
def source(attached: EbpfSource) -> EbpfSource:
    """Them, for a test that lets them run."""
    return renewed(attached)


@pytest.fixture(params=[False, True], ids=WAYS)
def own_source(request: pytest.FixtureRequest, requires_bpf: None) -> Iterator[EbpfSource]:
    """The same for one test alone: it stops them, or looks at what they did from the beginning."""
    with watching(SLOW, force_guard=request.param) as source:
        yield source
