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

UNIT, KERNEL = (Path(__file__).parent / name for name in ("unit", "kernel"))
WORKLOAD = KERNEL / "workloads/workload.c"

NO_THREE = "Prometheus 3 is not there: .ci/prometheus3 unpacks it, as root, where apt has a mirror of Debian"

settings.register_profile("busy machine", deadline=None)  # no test asserts a speed
settings.load_profile("busy machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate-golden", action="store_true", help="write tests/fixtures/metrics.txt anew instead of comparing with it")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Part the tests between three workers: sources on one, commands on another, on the third long unit tests and then servers.

    Whoever is done takes files of unit tests. In each part those come first that can stand storms, and then the storms: those of sources
    blow while packages are built and promtool runs, and then nobody waits for them any more.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.path.stem if item.path.parent == UNIT else _place(item)))
    yield
    items.sort(key=lambda item: (_PLACES.index(_place(item)), [_is(item, "anytime"), _is(item, "alone"), True].index(True)))


_PLACES = "sources", "commands", "long unit tests", "servers", "unit tests"
"""In the order in which workers begin with them."""
_LONG = {"test_rules", "test_helm_chart", "test_handlers_child", "test_ledger_properties"}


def _place(item: pytest.Item) -> str:
    if item.path.parent == UNIT:
        return "long unit tests" if item.path.stem in _LONG else "unit tests"
    if item.path.parent == KERNEL:
        return "commands" if _is(item, "commands") else "sources"
    return "servers"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Storms drown what others record and name: those of thousands of processes, and who can't stand any, have a mark.

    Neighbours that want to be alone stay so between them: others would need their time to end.
    """
    if item.path.parent == UNIT or _is(item, "anytime"):
        return (yield)
    alone = _is(item, "alone")
    _turns.take(alone=alone)
    try:
        return (yield)
    finally:
        if not (alone and nextitem is not None and _is(nextitem, "alone")):
            _turns.leave()


def _is(item: pytest.Item, mark: str) -> bool:
    return item.get_closest_marker(mark) is not None


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
