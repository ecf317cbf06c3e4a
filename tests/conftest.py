"""What unit and kernel tests share."""

from __future__ import annotations

import os
import posix
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from exporter.handlers import process
from exporter.loaders.core import refusal
from tests.folders import public
from tests.turns import Turns

KERNEL, E2E = (Path(__file__).parent / name for name in ("kernel", "e2e"))
WORKLOAD = KERNEL / "workloads/workload.c"

NO_THREE = "Prometheus 3 is not there: .ci/prometheus3 unpacks it, as root, where apt has a mirror of Debian"

settings.register_profile("busy machine", deadline=None)  # no test asserts a speed
settings.load_profile("busy machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate-golden", action="store_true", help="write tests/fixtures/metrics.txt anew instead of comparing with it")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Part the tests between three workers: sources on one, commands on another, and on the third unit tests and then servers."""

    def place(item: pytest.Item) -> str:
        if item.path.is_relative_to(KERNEL):
            return "commands" if item.get_closest_marker("commands") else "sources"
        return "servers" if item.path.is_relative_to(E2E) else "unit"

    items.sort(key=lambda item: ("sources", "commands", "unit", "servers").index(place(item)))
    for item in items:
        if (group := place(item)) != "unit":
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Storms drown what others record and name: those of thousands of processes, and who can't stand any, have a mark.

    Neighbours that want to be alone stay so between them: others would need their time to end.
    """
    if item.get_closest_marker("xdist_group") is None or item.get_closest_marker("anytime"):
        return (yield)
    alone = _is_alone(item)
    _turns.take(alone=alone)
    try:
        return (yield)
    finally:
        if not (alone and _is_alone(nextitem)):
            _turns.leave()


def _is_alone(item: pytest.Item | None) -> bool:
    return item is not None and item.get_closest_marker("alone") is not None


_turns = Turns()


@pytest.fixture(scope="session", autouse=True)
def coverage_where_it_belongs() -> Iterator[None]:
    """Under `make coverage`, measure the handler process too, which gets little of our environment, but not what tests fork.

    Such a child would first write a file of all that the tests covered so far, and live several times as long.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_ENVIRONMENT", (*process._ENVIRONMENT, *(name for name in os.environ if name.startswith("COVERAGE_"))))
        patch.setattr(os, "_exit", posix._exit)
        yield


@pytest.fixture(scope="session")
def requires_bpf() -> None:
    """Skip where the programs are sure not to load."""
    if reason := refusal():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two programs: `workload`, and `nothing`, which ends at once."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (cc) to build the workloads with")
    folder = tmp_path_factory.mktemp("compiled")
    public(folder)
    nothing = folder / "nothing.c"
    nothing.write_text("int main(void) { return 0; }\n")
    for source in (WORKLOAD, nothing):
        subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-pthread", "-o", str(folder / source.stem), str(source)], check=True)
    return folder
