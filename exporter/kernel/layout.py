"""The layouts of `bpf/lifecycle.h`, as ctypes structures. A test compares each with the BTF of the object."""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_int32, c_uint16, c_uint32, c_uint64
from typing import Any

from exporter.kernel.attached import LATER_COPIES
from exporter.kernel.cgroups import Hierarchy
from exporter.model import FOREVER_NS, KERNEL_THREADS, MAX_BOUNDS, Lost, Outcome, RuntimeScale, lifetimes
from exporter.model.arguments import MOST_BYTES
from exporter.model.origins import MAX_ABOVE, MAX_HOPS

COMM_LEN = 16
BUCKETS = MAX_BOUNDS + 1
LIFETIMES = len(lifetimes.buckets(lifetimes.FINE).indexes)
SIGNALS = 65
SECONDS = 64
FILTER = 64
MAX_COMMS = 800
MAX_BETWEEN = MAX_HOPS - 1
BETWEEN_UNKNOWN = 255
BETWEEN_SLOTS = 4096
ABOVE_SLOTS = 1024
EXE_SLOTS = 8192
EXE_LEN = 256
MAX_ORIGINS = 8192
MAX_CGROUP_COUNTS = 4096
MAX_CGROUP_PATHS = 4096
CGROUP_PATH_LEN = 384
ARGUMENTS_SLOTS = 8192
ARGUMENTS_LEN = MOST_BYTES
RECORD_CPU_SLOTS = 16384
COPIES = 1 + len(LATER_COPIES)
RECORDS_BYTES = 256 << 10
BCC_RECORDS_BYTES = 2 << 20
PERF_BYTES, PERF_BYTES_LEAST, PERF_BYTES_MOST = 2 << 20, 64 << 10, 256 << 10
"""Bytes for all CPUs, and for one. An unprivileged user can map 516 KiB for each: kernel.perf_event_mlock_kb in perf_event_open(2)."""
KERNEL_LOST = (Lost.NAME_BUSY, Lost.EXIT_NOTES_FULL, Lost.LIVE_PROCESSES_FULL, Lost.EXES_FULL, Lost.ORIGINS_FULL)
"""In the order of `enum lost`."""
_LONGEST_NS = 2**63 - 1
SPAWNER_FOUND, SPAWNER_DEEP, SPAWNER_UNKNOWN = range(3)
"""Whether the spawner of an origin was found: `enum spawner`."""
RECORDS_OFF, RECORDS_ON, RECORDS_LIVE = range(3)
"""Whether the programs write records: `enum records`."""


class CommRow(ctypes.Structure):
    _fields_ = (
        ("exits", c_uint64 * len(Outcome)),
        ("long_exits", c_uint64),
        ("execs", c_uint64),
        ("runtime_ns", c_uint64),
        ("unused", c_uint64),
        ("buckets", c_uint64 * BUCKETS),
        ("short_cpu_ns", c_uint64),
        ("long_cpu_ns", c_uint64),
        ("cpu_recorded", c_uint64),
        ("unused_too", c_uint64 * 5),
        ("lifetimes", c_uint32 * LIFETIMES),
    )


class OriginKey(ctypes.Structure):
    _fields_ = (
        ("cgroup", c_uint64),
        ("uid", c_uint32),
        ("spawner_state", c_uint32),
        ("comm", c_char * COMM_LEN),
        ("parent", c_char * COMM_LEN),
        ("spawner", c_char * COMM_LEN),
    )


class OriginRow(ctypes.Structure):
    _fields_ = (("short_exits", c_uint64), ("failed_exits", c_uint64))


class CgroupKey(ctypes.Structure):
    _fields_ = (("cgroup", c_uint64), ("unused", c_uint64))


class CgroupCounts(ctypes.Structure):
    _fields_ = (("short_cpu_ns", c_uint64), ("oom_kills", c_uint64))


class Second(ctypes.Structure):
    _fields_ = (("second", c_uint32), ("short_exits", c_uint32))


class CpuRow(ctypes.Structure):
    _fields_ = (
        ("forks", c_uint64),
        ("threads", c_uint64),
        ("core_dumps", c_uint64),
        ("entered", c_uint64),
        ("records_dropped", c_uint64),
        ("stand_ins", c_uint64),
        ("lost", c_uint64 * len(KERNEL_LOST)),
        ("signals", c_uint64 * SIGNALS),
        ("ring", Second * SECONDS),
    )


class Shared(ctypes.Structure):
    _fields_ = (
        ("other", CommRow),
        ("filter", c_uint32 * FILTER),
        ("other_origin", OriginRow),
        ("other_cgroup", CgroupCounts),
        ("unused", c_uint64 * 4),
    )


class ProgramControl(ctypes.Structure):
    _fields_ = (
        ("active", c_uint64),
        ("since", c_uint64),
        ("is_cut", c_uint64),
        ("from_ns", c_uint64),
        ("until_ns", c_uint64),
        ("records", c_uint64),
        ("unused", c_uint64 * 2),
    )


class RecordLayout(ctypes.Structure):
    _fields_ = (
        ("ended_ns", c_uint64),
        ("runtime_ns", c_uint64),
        ("cgroup", c_uint64),
        ("pid", c_uint32),
        ("ppid", c_uint32),
        ("uid", c_uint32),
        ("code", c_int32),
        ("comm", c_char * COMM_LEN),
        ("parent_comm", c_char * COMM_LEN),
        ("spawner", c_char * COMM_LEN),
        ("spawner_state", c_uint32),
        ("has_exe", c_uint16),
        ("oom_killed", c_uint16),
        ("spawner_start_ns", c_uint64),
        ("spawner_pid", c_uint32),
        ("between_n", c_uint32),
    )


class RecordWithExe(ctypes.Structure):
    """`RecordLayout`, and the path."""

    _fields_ = (*RecordLayout._fields_, ("exe", c_char * EXE_LEN))


class Between(ctypes.Structure):
    _fields_ = (("start_ns", c_uint64), ("names", c_char * (MAX_BETWEEN * COMM_LEN)), ("unused", c_uint64))


class Above(ctypes.Structure):
    _fields_ = (
        ("start_ns", c_uint64),
        ("read_ns", c_uint64),
        ("pid", c_uint32),
        ("n", c_uint32),
        ("top_pid", c_uint32),
        ("top_is_kernel", c_uint32),
        ("names", c_char * (MAX_ABOVE * COMM_LEN)),
        ("unused", c_uint64 * 4),
    )


class Exe(ctypes.Structure):
    _fields_ = (("start_ns", c_uint64), ("path", c_char * EXE_LEN), ("unused", c_uint64 * 7))


class ArgumentsSlot(ctypes.Structure):
    _fields_ = (("start_ns", c_uint64), ("size", c_uint64), ("text", c_char * ARGUMENTS_LEN), ("unused", c_uint64 * 6))


class RecordCpu(ctypes.Structure):
    _fields_ = (("start_ns", c_uint64), ("cpu_ns", c_uint64))


_FORMATS: dict[type[Any], str] = {c_uint64: "Q", c_uint32: "I", c_int32: "i", c_uint16: "H"}
RECORD_FIELDS = tuple(name for name, _ in RecordWithExe._fields_)


def struct_format(layout: type[ctypes.Structure]) -> str:
    """Return a layout as a format of `struct`, which is many times faster than ctypes."""
    return "".join(_FORMATS.get(of, f"{ctypes.sizeof(of)}s") for _, of, *_ in layout._fields_)


RECORD_FORMAT = struct_format(RecordLayout)
RECORD_WITH_EXE_FORMAT = f"{RECORD_FORMAT}{EXE_LEN}s"


class ProgramConfig(ctypes.Structure):
    _fields_ = (
        ("threshold_ns", c_uint64),
        ("bounds_ns", c_uint64 * BUCKETS),
        ("group_dead_arg", c_uint64),
        ("kernel_threads", c_char * COMM_LEN),
        ("origins", c_uint64),
        ("pids_cgroups", c_uint64),
        ("hierarchy_id", c_uint64),
        ("arguments", c_uint64),
        ("lifetimes", c_uint64),
        ("copies", c_uint64),
        ("copy", c_uint64),
        ("unused", c_uint64 * 5),
        ("none", CommRow),
        ("no_origin", OriginRow),
        ("unused_too", c_uint64 * 6),
        ("no_exe", c_char * EXE_LEN),
        ("no_path", c_char * CGROUP_PATH_LEN),
    )


def row_lifetimes(scale: RuntimeScale) -> int:
    """Return how many buckets of native histograms each row of the maps of comms has."""
    return 0 if scale.lifetimes is None else len(lifetimes.buckets(scale.lifetimes).indexes)


def row_bytes(lifetimes: int) -> int:
    """Return the size of a row of the maps of comms with so many buckets of native histograms."""
    return CommRow.lifetimes.offset + lifetimes * ctypes.sizeof(c_uint32)


def comm_rows(tracked: int) -> int:
    """Return how many rows each map of comms needs so that `tracked` comms always have one, and a flood of others finds room too."""
    return max(MAX_COMMS, tracked + MAX_COMMS // 2)


def program_config(scale: RuntimeScale, cgroups: Hierarchy, *, by_origin: bool = True, arguments: bool = False) -> ProgramConfig:
    """Return the constants of the programs. The loader adds `group_dead_arg`, `copies` and `copy`.

    `by_origin` counts for whom processes ran; `arguments` keeps the arguments of processes for their records.
    """
    config = ProgramConfig(origins=by_origin, pids_cgroups=cgroups.is_pids, hierarchy_id=cgroups.id, arguments=arguments)
    config.threshold_ns, config.lifetimes = scale.threshold_ns, row_lifetimes(scale)
    spare = BUCKETS - len(scale.bounds_ns)
    config.bounds_ns[:] = [*scale.bounds_ns, *[_LONGEST_NS] * spare]
    config.kernel_threads = KERNEL_THREADS
    return config


def standby_control() -> ProgramControl:
    """Return the initial control of the programs: no event counts until `from_ns` is set."""
    return ProgramControl(since=FOREVER_NS, is_cut=1, from_ns=FOREVER_NS, until_ns=FOREVER_NS)


def perf_bytes(cpus: int) -> int:
    """Return the size of each perf buffer in bytes: a power of two, together about `PERF_BYTES`."""
    return min(max(1 << (PERF_BYTES // cpus).bit_length() - 1, PERF_BYTES_LEAST), PERF_BYTES_MOST)
