"""Whom single short processes ran for: the spawner from the kernel, user and owner as they are published."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from exporter.config.options import Config
from exporter.kernel.cgroups import hierarchy
from exporter.loaders.bcc_child import _headers
from exporter.loaders.direct import Direct
from exporter.model.origins import UNKNOWN, Origins
from exporter.records.hub import Hub
from exporter.records.record import Record
from exporter.sources.ebpf.source import EbpfSource
from exporter.supervision.modes import loader_settings
from exporter.supervision.supervisor import Supervisor
from tests.kernel.bcc_watching import needs_bcc, watching_bcc
from tests.kernel.programs import Program, ended, until, watching
from tests.origins import origins_of

OURSELVES = Path("/proc/self/comm").read_bytes().rstrip(b"\n")
"""The spawner of all that a test runs: it has lived for long."""


def records_of(source: EbpfSource, workload: Program) -> list[Record]:
    """Records of 20 children of a short process."""
    got: list[Record] = []
    source.publish(got.extend, live=True)
    workload.storm("vfork", 20)
    return until(lambda: [each for each in got if each.comm == workload.comm], lambda mine: len(mine) >= 21)


@needs_bcc
@pytest.mark.parametrize("use_headers", [False, True], ids=["live processes", "headers"])
@pytest.mark.parametrize("use_ring", [False, True], ids=["perf buffers", "ring"])
def test_bcc_knows_spawners(requires_bpf: None, workload: Program, use_headers: bool, use_ring: bool) -> None:
    """It has them for the counts anyway."""
    if use_headers and _headers() is None:
        pytest.skip("the kernel's headers are not installed")
    with watching_bcc(use_headers=use_headers, use_ring=use_ring) as source:
        records = records_of(source, workload)
        assert {each.spawner for each in records} == {OURSELVES}
        assert Counter(each.lineage for each in records) == {(UNKNOWN, OURSELVES): 1, (UNKNOWN, OURSELVES, workload.comm): 20}


def test_records_have_their_origin_without_attribution(requires_bpf: None, workload: Program) -> None:
    """Metrics by owner can be switched off; whoever reads records still wants to know. Nothing is counted by origin then."""
    with watching(by_origin=False) as source:
        records = records_of(source, workload)
        origins = origins_of(source)
    assert {(each.spawner, each.uid) for each in records} == {(OURSELVES, os.geteuid())}
    assert all(each.cgroup.startswith(b"/") for each in records)
    assert origins == Origins()


def test_user_and_owner(requires_bpf: None, workload: Program) -> None:
    """The whole way, from a process in the cgroup of a unit to the store of recent records."""
    folder = Path(hierarchy().root) / f"shortproc-test-{os.getpid()}.service"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make {folder}: {error.strerror}")
    hub = Hub(1000)
    supervisor = Supervisor(Config(), hub, Direct(loader_settings(Config())))
    try:
        supervisor.start()
        pid = os.fork()
        if pid == 0:
            (folder / "cgroup.procs").write_text("0")
            os.execv(workload.path, [str(workload.path), "vfork", "5"])
        ended(pid)
        records = until(lambda: [each for each in hub.recent() if each.comm == workload.comm], lambda mine: len(mine) >= 6)
    finally:
        supervisor.stop()
        folder.rmdir()
    assert {(each.spawner, each.owner_kind, each.unit) for each in records} == {(OURSELVES, "service", folder.name)}
    assert {each.user for each in records} == {"root" if os.geteuid() == 0 else records[0].user}
