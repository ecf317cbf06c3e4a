"""The layouts of `bpf/lifecycle.h`, in Python. A test compares each with the object's BTF."""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_uint16, c_uint32, c_uint64

from exporter.model import KERNEL_THREADS, MAX_BOUNDS, Lost, Measures

COMM_LEN = 16
BUCKETS = MAX_BOUNDS + 1
SIGNALS = 65
SECONDS = 64
KERNEL_OUTCOMES = 3
"""A kernel program always knows the outcome: `Outcome` without its last."""
KERNEL_LOST = (Lost.NAME_BUSY, Lost.CPU_PENDING_FULL, Lost.CPU_NEVER_CAME)
"""In the order of `enum lost`."""

U64_MAX = 2**64 - 1


class Counts(ctypes.Structure):
    _fields_ = (
        ("exits", c_uint64 * KERNEL_OUTCOMES),
        ("short_exits", c_uint64),
        ("execs", c_uint64),
        ("runtime_ns", c_uint64),
        ("cpu_ns", c_uint64),
        ("short_cpu_ns", c_uint64),
        ("short_children", c_uint64),
        ("buckets", c_uint64 * BUCKETS),
    )


class Totals(ctypes.Structure):
    _fields_ = (
        ("all", Counts),
        ("other", Counts),
        ("forks", c_uint64),
        ("threads", c_uint64),
        ("core_dumps", c_uint64),
        ("comms_entered", c_uint64),
        ("signals", c_uint64 * SIGNALS),
        ("lost", c_uint64 * len(KERNEL_LOST)),
    )


class Config(ctypes.Structure):
    _fields_ = (
        ("threshold_ns", c_uint64),
        ("bounds_ns", c_uint64 * BUCKETS),
        ("comm_buckets", c_uint32),
        ("group_dead_arg", c_uint32),
        ("kernel_threads", c_char * COMM_LEN),
        ("none", Counts),
    )


class Pending(ctypes.Structure):
    _fields_ = (
        ("start_ns", c_uint64),
        ("end_ns", c_uint64),
        ("comm", c_char * COMM_LEN),
        ("tgid", c_uint32),
        ("is_short", c_uint16),
        ("charged", c_uint16),
    )


class Second(ctypes.Structure):
    _fields_ = (("second", c_uint32), ("short_exits", c_uint32))


class Seconds(ctypes.Structure):
    _fields_ = (("ring", Second * SECONDS),)


def kernel_config(measures: Measures) -> Config:
    """The constants that the programs are loaded with. The loader adds what it finds out about the kernel."""
    config = Config()
    config.threshold_ns = measures.threshold_ns
    spare = BUCKETS - len(measures.bounds_ns)
    config.bounds_ns[:] = [*measures.bounds_ns, *[U64_MAX] * spare]
    config.comm_buckets = measures.per_comm_buckets
    config.kernel_threads = KERNEL_THREADS
    return config
