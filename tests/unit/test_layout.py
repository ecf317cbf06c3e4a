"""C and Python must agree on every byte that they share; the compiler's own description of the object is the judge."""

from __future__ import annotations

import ctypes
import re
import struct
from pathlib import Path

import pytest

from exporter.kernel import event_layout, layout
from exporter.kernel.attached import EVENT_PROGRAMS
from exporter.kernel.cgroups import Hierarchy
from exporter.loaders import events, failures
from exporter.loaders.core import OBJECT
from exporter.model import KERNEL_THREADS, MAX_BOUNDS, NS, Outcome, RuntimeScale, lifetimes
from exporter.model.events import EventKey, EventKind
from exporter.model.failures import FAILURES
from tests.unit.btf import Btf

HEADER = Path(__file__).parents[2] / "bpf/lifecycle.h"
EVENTS_HEADER = HEADER.with_name("events.h")
FAILURES_HEADER = HEADER.with_name("failures.h")
STRUCTS = {
    "counts": layout.CommRow,
    "cpu": layout.CpuRow,
    "shared": layout.Shared,
    "control": layout.ProgramControl,
    "config": layout.ProgramConfig,
    "second": layout.Second,
    "origin": layout.OriginKey,
    "origin_counts": layout.OriginRow,
    "cgroup_key": layout.CgroupKey,
    "cgroup_counts": layout.CgroupCounts,
    "record": layout.RecordLayout,
    "record_cpu": layout.RecordCpu,
}


def enumerators(name: str, header: Path = HEADER, prefix: str = "") -> list[str]:
    """The values of an enum of a header: inlining leaves none in BTF. Without their prefix, by default the name."""
    prefix = prefix or name
    found = re.search(rf"enum {name} {{(.*?)}};", header.read_text(), re.DOTALL)
    assert found is not None
    names = [each.strip().lower() for each in found[1].split(",")]
    return [each.removeprefix(f"{prefix}_") for each in names if each.startswith(f"{prefix}_")]


@pytest.fixture(scope="module")
def btf() -> Btf:
    if not OBJECT.exists():
        pytest.skip("the BPF object is not built (`make all`)")
    return Btf(OBJECT)


@pytest.mark.parametrize("name", STRUCTS)
def test_structs(btf: Btf, name: str) -> None:
    """Size, and for each member its name, place and size."""
    ours = STRUCTS[name]
    assert ctypes.sizeof(ours) == btf.struct_size(name)
    fields = [(each, getattr(ours, each).offset, getattr(ours, each).size) for each, *_ in ours._fields_]
    assert fields == [(member.name, member.offset, member.size) for member in btf.members(name)]


def test_lengths(btf: Btf) -> None:
    """The constants of the header, by the arrays that they size."""
    lengths = {(name, member.name): member.length for name in STRUCTS for member in btf.members(name)}
    assert lengths["counts", "exits"] == len(Outcome)
    assert lengths["counts", "buckets"] == lengths["config", "bounds_ns"] == layout.BUCKETS == MAX_BOUNDS + 1
    assert lengths["counts", "lifetimes"] == layout.LIFETIMES == len(lifetimes.buckets(lifetimes.FINE).indexes)
    assert lengths["cpu", "lost"] == len(layout.KERNEL_LOST)
    assert lengths["cpu", "signals"] == layout.SIGNALS
    assert lengths["cpu", "ring"] == layout.SECONDS
    assert lengths["shared", "filter"] == layout.FILTER
    assert btf.struct_size("comm") == layout.COMM_LEN
    assert btf.struct_size("exe") == ctypes.sizeof(layout.Exe)
    assert btf.struct_size("arguments") == ctypes.sizeof(layout.ArgumentsSlot)
    assert btf.struct_size("record_with_exe") == ctypes.sizeof(layout.RecordWithExe)
    assert btf.map_entries("comms") == layout.MAX_COMMS
    assert btf.map_entries("exes") == layout.EXE_SLOTS
    assert btf.map_entries("origins") == layout.MAX_ORIGINS
    assert btf.map_entries("cpus") == layout.COPIES
    assert btf.map_entries("cgroup_rows") == layout.MAX_CGROUP_COUNTS
    assert btf.struct_size("cgroup_path") == layout.CGROUP_PATH_LEN
    assert btf.map_entries("record_cpus") == layout.RECORD_CPU_SLOTS
    assert btf.map_entries("above_slots") == layout.ABOVE_SLOTS
    assert btf.map_entries("between_slots") == layout.BETWEEN_SLOTS
    for name, ours in {"above": layout.Above, "between": layout.Between}.items():
        assert btf.struct_size(name) == ctypes.sizeof(ours)
        offsets = {each: getattr(ours, each).offset for each, *_ in ours._fields_ if each != "unused"}
        assert offsets == {member.name: member.offset for member in btf.members(name)}


def test_records_are_unpacked_whole() -> None:
    """Byte by byte: the format must hold no padding and leave nothing out."""
    raw = bytes(range(256)) * 2
    record = layout.RecordWithExe.from_buffer_copy(raw)
    values = struct.unpack_from(f"={layout.RECORD_WITH_EXE_FORMAT}", raw)
    assert struct.calcsize(f"={layout.RECORD_WITH_EXE_FORMAT}") == ctypes.sizeof(layout.RecordWithExe)
    assert dict(zip(layout.RECORD_FIELDS, values, strict=True)) == {
        name: raw[field.offset : field.offset + field.size] if isinstance(getattr(record, name), bytes) else getattr(record, name)
        for name in layout.RECORD_FIELDS
        for field in [getattr(layout.RecordWithExe, name)]
    }


def test_reasons_of_loss() -> None:
    """By their order, since the kernel counts them by number."""
    assert enumerators("lost") == [*layout.KERNEL_LOST, "reasons"]


def test_spawners() -> None:
    """Whether one was found."""
    assert enumerators("spawner") == ["found", "deep", "unknown"]
    assert (layout.SPAWNER_FOUND, layout.SPAWNER_DEEP, layout.SPAWNER_UNKNOWN) == (0, 1, 2)


def test_outcomes() -> None:
    """By their order too."""
    assert enumerators("outcome") == list(Outcome)


def test_failures() -> None:
    """By their order; a map has nothing else in it."""
    names = [f"{kind}_{errno}".lower().rstrip("_") for kind, errno in FAILURES]
    assert enumerators("failure", FAILURES_HEADER) == [*names, "kinds"]
    if not failures.OBJECT.exists():
        pytest.skip("the BPF object is not built (`make all`)")
    object_ = Btf(failures.OBJECT)
    assert object_.struct_size("failures") == 8 * len(FAILURES)
    assert object_.struct_size("control") == ctypes.sizeof(layout.ProgramControl)


def test_events() -> None:
    """All that crosses: kinds and keys by their order, structs by their members, an event unpacked whole."""
    assert enumerators("event_kind", EVENTS_HEADER, "event") == [*EventKind, "kinds"]
    assert enumerators("event_by", EVENTS_HEADER, "by") == [key.name.lower() for key in EventKey]
    assert tuple(f"send_{kind}" for kind in EventKind) == EVENT_PROGRAMS
    assert struct.calcsize(f"={event_layout.EVENT_FORMAT}") == ctypes.sizeof(event_layout.EventLayout)
    if not events.OBJECT.exists():
        pytest.skip("the BPF object is not built (`make all`)")
    object_ = Btf(events.OBJECT)
    assert object_.struct_size("control") == ctypes.sizeof(layout.ProgramControl)
    for name, ours in {
        "event": event_layout.EventLayout,
        "event_counts": event_layout.EventCounts,
        "event_key": event_layout.EventKeyLayout,
        "event_config": event_layout.EventConfig,
    }.items():
        assert object_.struct_size(name) == ctypes.sizeof(ours)
        fields = [(each, getattr(ours, each).offset, getattr(ours, each).size) for each, *_ in ours._fields_]
        assert fields == [(member.name, member.offset, member.size) for member in object_.members(name)]


def test_records() -> None:
    """Whether there are any, and whether they wake."""
    assert enumerators("records") == ["off", "on", "live"]
    assert (layout.RECORDS_OFF, layout.RECORDS_ON, layout.RECORDS_LIVE) == (0, 1, 2)


def test_standby() -> None:
    """Programs count nothing until they are told to."""
    control = layout.standby_control()
    assert (control.is_cut, control.since, control.from_ns, control.until_ns) == (1, *[2**64 - 1] * 3)


def test_hot_counts_have_cache_lines_of_their_own() -> None:
    """An exit and a free, often on different CPUs, must not write to one line."""
    assert layout.CommRow.short_cpu_ns.offset % 64 == 0
    assert layout.CommRow.lifetimes.offset == layout.CommRow.short_cpu_ns.offset + 64
    assert ctypes.sizeof(layout.CommRow) % 64 == 0


def test_program_config() -> None:
    """Spare bounds are so high that no runtime exceeds them, so its bucket is never past the last one used."""
    config = layout.program_config(RuntimeScale(threshold_ns=NS, bounds_ns=(5, 7)), Hierarchy("/sys/fs/cgroup/pids", is_pids=True, id=8))
    assert config.threshold_ns == NS
    assert list(config.bounds_ns) == [5, 7, *[2**63 - 1] * (layout.BUCKETS - 2)]
    assert bytes(config.kernel_threads) == KERNEL_THREADS
    assert bytes(config.none) == bytes(ctypes.sizeof(layout.CommRow))
    assert config.group_dead_arg == 0
    assert (config.origins, config.pids_cgroups, config.hierarchy_id) == (1, 1, 8)
