"""The source over its life: attach, drain while a storm goes on, detach; and what it costs."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import psutil
import pytest

from exporter.kernel import bpf
from exporter.kernel.bpf import map_memory, program_info
from exporter.kernel.layout import MAX_COMMS
from exporter.loaders.core import load_core
from exporter.model import RuntimeScale, SourceFailed
from exporter.model.counts import Counts, ProcessCounts
from exporter.model.dimensions import COMM
from exporter.sources.ebpf import source as ebpf
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel.bcc_watching import needs_bcc, watching_bcc
from tests.kernel.programs import Program, descriptors, named, watching
from tests.origins import short_children

NO_SUCH_COMMANDS = 9998, 9999
MIB = 2**20
FLOOD = 2 * MAX_COMMS
"""More names than a map holds."""


@pytest.mark.alone
def test_drains_in_a_storm_lose_nothing(own_source: EbpfSource, workload: Program, always_due: None) -> None:
    """Each event is in exactly one drain, however often the maps are swapped under the running programs."""
    drains = [*_drained_during(own_source, lambda: workload.storm("vfork", 5000))]
    last, children = _rest(own_source)
    drains.append(last)
    assert len(drains) > 2
    mine = _of(drains, workload.comm)
    assert mine.exits == [5001, 0, 0, 0]
    assert mine.short_exits == 5001
    assert sum(mine.buckets) == sum(mine.lifetimes.values()) == 5001
    assert children[workload.comm] == 5000
    for drain in drains:
        assert named(drain).exits == drain.total.exits
        assert named(drain).lifetimes == drain.total.lifetimes


def test_what_has_no_name_is_in_one_drain_too(own_source: EbpfSource, workload: Program, always_due: None) -> None:
    """Clones and signals are sums over CPUs that never start anew; a drain gives what came since the one before."""

    def storms() -> None:
        workload.storm("kill", 50, int(signal.SIGXFSZ))
        workload.storm("together", 50, 4)

    drains = [*_drained_during(own_source, storms)]
    own_source.stop()
    clones = own_source.clones()
    drains.append(own_source.drain())
    assert len(drains) > 2
    assert sum(drain.signals.get(signal.SIGXFSZ, 0) for drain in drains) == 50
    assert sum(drain.forks + drain.threads for drain in drains) == clones >= 50 + 50 * 4


@pytest.mark.alone
def test_drains_keep_a_flood_of_names_apart(own_source: EbpfSource, workload: Program, always_due: None) -> None:
    """A map that is drained in time does not fill up, so every name of a flood larger than the map is kept."""
    at_once, names = MAX_COMMS // 2, MAX_COMMS * 3 // 2
    drains: list[Counts] = []
    for first in range(0, names, at_once):
        drains += _drained_during(own_source, lambda first=first: workload.storm("comms", at_once, first))  # type: ignore[misc]
        for _ in range(2):
            own_source.swap_maps({})
            drains.append(own_source.drain())
    last, children = _rest(own_source)
    drains.append(last)
    for number in range(names):
        exits = sum(drain.of(COMM).rows[comm].exits[number % 3] for drain in drains if (comm := b"c%d" % number) in drain.of(COMM).rows)
        assert exits >= 1, number
    assert children[workload.comm] == names
    assert not any(sum(drain.of(COMM).other.exits) for drain in drains)


@pytest.mark.alone
def test_a_full_map_loses_nothing(own_source: EbpfSource, workload: Program) -> None:
    """What was counted as other since the map was full is drained too, once."""
    own_source.swap_maps({})
    own_source.drain()
    workload.storm("comms", FLOOD)
    last, children = _rest(own_source)
    drains = [last]
    named_exits = sum(sum(each.exits) for drain in drains for comm, each in drain.of(COMM).rows.items() if re.fullmatch(rb"c\d+", comm))
    assert named_exits + sum(sum(drain.of(COMM).other.exits) for drain in drains) >= FLOOD
    others = last.of(COMM).other
    assert sum(others.exits) == sum(others.lifetimes.values()) > 0
    assert children[workload.comm] == FLOOD


@pytest.mark.alone
def test_a_known_name_has_room_in_a_flood(source: EbpfSource, workload: Program, always_due: None) -> None:
    """A flood of new names can't push those that have series into other, nor does giving them room keep them from being drained."""
    for _ in range(2):
        source.swap_maps({COMM: [workload.comm]})
        source.drain()
        workload.storm("comms", FLOOD)
        workload.storm("end", 20, 0)
        source.swap_maps({COMM: [workload.comm]})
        assert source.drain().of(COMM).row(workload.comm).exits == [22, 0, 0, 0]


@pytest.mark.alone
@pytest.mark.parametrize("watch", [watching, pytest.param(watching_bcc, marks=needs_bcc)])
def test_all_that_may_have_series_have_room(
    watch: Callable[..., AbstractContextManager[EbpfSource]], workload: Program, always_due: None
) -> None:
    """The maps grow with metrics.max_comms; smaller ones could not take all names at a swap, and the mode would fail."""
    tracked = {COMM: [workload.comm, *(b"tracked-%d" % number for number in range(999))]}
    with watch(comms=1000) as source:
        for _ in range(2):
            source.swap_maps(tracked)
            source.drain()
            workload.storm("comms", 1500)
            workload.storm("end", 20, 0)
            source.swap_maps(tracked)
            assert sum(source.drain().of(COMM).row(workload.comm).exits) == 22


def test_a_drain_begins_anew(source: EbpfSource, workload: Program, always_due: None) -> None:
    """What one drain gave, neither a look nor the next one gives again; CPU comes later than the end."""
    workload.storm("end", 20, 0)
    source.swap_maps({})
    assert source.drain().of(COMM).row(workload.comm).exits == [21, 0, 0, 0]
    assert sum(source.peek().of(COMM).row(workload.comm).exits) == 0
    source.swap_maps({})
    assert sum(source.drain().of(COMM).row(workload.comm).exits) == 0


def test_a_map_in_use_is_not_drained(source: EbpfSource, workload: Program) -> None:
    """Without a swap a drain gives nothing by name: programs may be writing there."""
    workload.storm("end", 20, 0)
    assert workload.comm not in source.drain().of(COMM).rows
    assert source.peek().of(COMM).row(workload.comm).exits == [21, 0, 0, 0]


def test_a_swap_that_was_not_waited_for_is_not_drained(source: EbpfSource, workload: Program, always_due: None) -> None:
    """A program may still hold the retired map then; the next rotation waits for it first."""
    workload.storm("end", 20, 0)
    barrier = source._map("barrier").fd
    kept = os.dup(barrier)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), barrier)
    with pytest.raises(SourceFailed, match="cannot drain"):
        source.swap_maps({})
    assert workload.comm not in source.drain().of(COMM).rows
    os.dup2(kept, barrier)
    os.close(kept)
    source.swap_maps({})
    assert source.drain().of(COMM).row(workload.comm).exits == [21, 0, 0, 0]


def test_stop_keeps_what_was_seen(own_source: EbpfSource, workload: Program, always_due: None) -> None:
    """The last drain has both maps; nothing is counted after the stop; stopping twice is no harm."""
    workload.storm("end", 20, 0)
    own_source.swap_maps({})
    workload.storm("end", 20, 0)
    own_source.stop()
    own_source.stop()
    workload.storm("end", 20, 0)
    assert own_source.drain().of(COMM).row(workload.comm).exits == [42, 0, 0, 0]
    with pytest.raises(SourceFailed):
        own_source.drain()


def test_stop_gives_everything_back(requires_bpf: None, workload: Program) -> None:
    """No descriptor is left, so the kernel unloads programs and maps."""
    with watching() as source:
        identifiers = [program_info(fd).name for fd in source._kernel.programs.values()]
        assert {"on_exec", "on_exit", "on_free", "on_mkdir", "on_newtask", "on_signal"} <= set(identifiers)
    before = descriptors()
    with watching() as source:
        assert len(descriptors()) > len(before)
    assert descriptors() == before


def test_the_loader_does_not_stay(source: EbpfSource) -> None:
    """Loading needs privilege and memory; only descriptors outlive it."""
    assert psutil.Process().children() == []


def test_kernel_memory(source: EbpfSource) -> None:
    """All maps together take at most 12 MiB, as the kernel itself adds it up."""
    memory = sum(map_memory(each.fd) for each in source._kernel.maps.values())
    assert MIB // 8 < memory <= 12 * MIB
    assert re.search(r"maps use \d+\.\d MiB", source.about())


def test_reading_without_batches(source: EbpfSource, workload: Program, monkeypatch: pytest.MonkeyPatch, always_due: None) -> None:
    """Kernels that know no batches answer EINVAL; the rows are then read one by one, and are the same."""
    workload.storm("comms", 600)
    workload.storm("end", 20, 1)
    source.swap_maps({})
    retired = source._map(f"comms_{source._retired_half}")
    batched = retired.read()
    for name, number in zip(("_MAP_LOOKUP_BATCH", "_MAP_LOOKUP_AND_DELETE_BATCH"), NO_SUCH_COMMANDS, strict=True):
        monkeypatch.setattr(bpf, name, number)
    assert len(batched.keys) > 600
    assert _rows(retired.read()) == _rows(batched)
    assert _rows(retired.pop_all()) == _rows(batched)
    assert retired.read().keys == []


def test_rows_are_the_same_however_large_the_batch(
    source: EbpfSource, workload: Program, monkeypatch: pytest.MonkeyPatch, always_due: None
) -> None:
    """A batch with less room than one bucket of the hash is tried again with more."""
    workload.storm("comms", 600)
    source.swap_maps({})
    retired = source._map(f"comms_{source._retired_half}")
    whole = _rows(retired.read())
    monkeypatch.setattr(bpf, "_BATCH", 1)
    assert _rows(retired.read()) == whole
    assert _rows(retired.pop_all()) == whole


def test_two_sources_see_the_same(requires_bpf: None, workload: Program) -> None:
    """A second exporter, or a new one that starts before the old has gone, takes nothing away from the first."""
    with watching() as one, watching() as other:
        workload.storm("end", 50, 3)
        assert one.peek().of(COMM).row(workload.comm).exits == other.peek().of(COMM).row(workload.comm).exits == [1, 50, 0, 0]


@pytest.mark.alone
def test_all_bounds_are_used(requires_bpf: None, workload: Program) -> None:
    """The search for a bucket is right at both ends of the longest list of bounds, and with a single bound."""
    hour = 3600 * 10**9
    for bounds in (tuple(range(1, 32)), tuple(hour + n for n in range(31)), (1,), (hour,)):
        with watching(RuntimeScale(hour, bounds, per_comm_buckets=True)) as source:
            workload.storm("end", 9, 0)
            buckets = source.peek().of(COMM).row(workload.comm).buckets
        expected = [0] * (len(bounds) + 1)
        expected[0 if bounds[0] == hour else -1] = 10
        assert buckets == expected


def test_handed_over_descriptors_are_not_inherited(requires_bpf: None) -> None:
    """The user's programs, started by a handler, must not hold the maps open."""
    handover = load_core(RuntimeScale(1, (1,)), lambda line: None)
    try:
        given = [*handover.links.values(), *handover.programs.values(), *(each.fd for each in handover.maps.values())]
        assert not any(os.get_inheritable(fd) for fd in given)
    finally:
        handover.close()


@pytest.fixture
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every rotation swap the maps that has anything to swap."""
    monkeypatch.setattr(ebpf, "_DRAIN_EVERY_NS", 0)


def _drained_during(source: EbpfSource, storm: Callable[[], object]) -> Iterator[Counts]:
    thread = threading.Thread(target=storm)
    thread.start()
    while thread.is_alive():
        source.swap_maps({})
        yield source.drain()
    thread.join()


def _rest(source: EbpfSource) -> tuple[Counts, Counter[bytes]]:
    """The last drain, and the children of each parent since the beginning."""
    source.stop()
    children = short_children(source)
    return source.drain(), children


def _of(drains: list[Counts], comm: bytes) -> ProcessCounts:
    whole = ProcessCounts()
    for drain in drains:
        whole.add(drain.of(COMM).row(comm))
    return whole


def _rows(rows: bpf.Rows) -> dict[bytes, bytes]:
    size = len(rows.values) // max(1, len(rows.keys))
    assert len(set(rows.keys)) == len(rows.keys)
    return {key: bytes(rows.values[at * size : (at + 1) * size]) for at, key in enumerate(rows.keys)}
