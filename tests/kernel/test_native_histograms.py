"""Native histograms that the programs count: in each mode and each schema, bucket by bucket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from exporter.kernel.bpf import map_memory
from exporter.kernel.layout import MAX_COMMS
from exporter.model import RuntimeScale, lifetimes
from exporter.model.dimensions import COMM
from exporter.model.lifetimes import COARSE, FINE
from exporter.records.record import Record
from exporter.sources.ebpf import source as ebpf
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel.bcc_watching import needs_bcc, watching_bcc
from tests.kernel.programs import SLOW, Program, named, until, watching

Watching = Callable[[RuntimeScale], AbstractContextManager[EbpfSource]]

_SCHEMAS = pytest.mark.parametrize("schema", [COARSE, FINE])
_MODES = pytest.mark.parametrize(
    "watch", [pytest.param(watching, id="ebpf_core"), pytest.param(watching_bcc, id="ebpf_bcc", marks=needs_bcc)]
)


@pytest.fixture(autouse=True)
def always_due(requires_bpf: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each swap of maps is due."""
    monkeypatch.setattr(ebpf, "_DRAIN_EVERY_NS", 0)


@_MODES
@_SCHEMAS
def test_each_bucket_has_the_processes_with_such_runtimes(watch: Watching, schema: int, workload: Program) -> None:
    """The kernel's own arithmetic against that of records, in rows that were drained and in those that are read."""
    records: list[Record] = []

    def storm(n: int) -> None:
        """Run it, and wait for all records there are by then."""
        workload.storm("end", 150, 0)
        until(lambda: sum(each.comm == workload.comm for each in records), lambda seen: seen >= n)

    with watch(replace(SLOW, lifetimes=schema)) as source:
        source.publish(records.extend, live=True)
        storm(151)
        source.swap_maps({COMM: {workload.comm}})
        counted = source.drain().of(COMM).row(workload.comm)
        storm(302)
        counted.add(source.peek().of(COMM).row(workload.comm))
    buckets = lifetimes.buckets(schema)
    truth = Counter(buckets.index_of(each.runtime_ns) for each in records if each.comm == workload.comm)
    assert sum(truth.values()) == 302
    assert counted.lifetimes == truth
    assert len(truth) > 2


@_MODES
@_SCHEMAS
def test_names_without_a_row_have_one_together(watch: Watching, schema: int, workload: Program) -> None:
    """Its histogram is as fine, and the whole is the sum of all."""
    with watch(replace(SLOW, lifetimes=schema)) as source:
        workload.storm("comms", MAX_COMMS + 700)
        source.swap_maps({})
        first, rest = source.drain(), source.peek().of(COMM).other
        workload.storm("comms", MAX_COMMS + 700)
        source.stop()
        drains = [first, source.drain()]
    for each in drains:
        other = each.of(COMM).other
        assert sum(other.lifetimes.values()) == sum(other.exits) > 0
        assert named(each).lifetimes == each.total.lifetimes
        assert set(each.total.lifetimes) <= set(lifetimes.buckets(schema).indexes)
    assert sum(rest.lifetimes.values()) == sum(rest.exits)


@_MODES
def test_only_those_who_want_them_have_buckets(watch: Watching) -> None:
    """A row has 256 counts of 4 bytes in schema 3, twice as many in schema 4, and none without native histograms."""
    sizes: dict[int | None, int] = {}
    memory: dict[int | None, int] = {}
    for schema in (None, COARSE, FINE):
        with watch(replace(SLOW, lifetimes=schema)) as source:
            comms = source._map("comms_a")
            sizes[schema], memory[schema] = comms.value_size, map_memory(comms.fd)
            assert source.peek().total.lifetimes == {} or schema
    assert (sizes[COARSE] - sizes[None], sizes[FINE] - sizes[COARSE]) == (1024, 1024)
    assert memory[COARSE] - memory[None] == pytest.approx(memory[FINE] - memory[COARSE], rel=0.02)
    assert memory[FINE] - memory[COARSE] == pytest.approx(MAX_COMMS * 1024, rel=0.02)
