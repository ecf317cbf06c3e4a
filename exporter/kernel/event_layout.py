"""The layouts of `bpf/events.h`, as ctypes structures. A test compares each with the BTF of the object."""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_int32, c_uint32, c_uint64

from exporter.kernel.layout import COMM_LEN, EXE_LEN, struct_format
from exporter.model.events import EventKind

EVENTS_BYTES = 4 << 20
"""Size of the ring: about 11,900 events."""


class EventLayout(ctypes.Structure):
    _fields_ = (
        ("at_ns", c_uint64),
        ("runtime_ns", c_uint64),
        ("kind", c_uint32),
        ("pid", c_uint32),
        ("ppid", c_uint32),
        ("uid", c_uint32),
        ("code", c_int32),
        ("other_pid", c_uint32),
        ("comm", c_char * COMM_LEN),
        ("parent_comm", c_char * COMM_LEN),
        ("sender_comm", c_char * COMM_LEN),
        ("exe", c_char * EXE_LEN),
    )


class EventCounts(ctypes.Structure):
    _fields_ = (("sent", c_uint64 * len(EventKind)), ("dropped", c_uint64 * len(EventKind)))


class EventKeyLayout(ctypes.Structure):
    _fields_ = (("by", c_uint32), ("number", c_uint32), ("name", c_char * COMM_LEN))


class EventConfig(ctypes.Structure):
    _fields_ = (("group_dead_arg", c_uint64), ("filtered_by", c_uint64 * len(EventKind)), ("kernel_threads", c_char * COMM_LEN))


EVENT_FORMAT = struct_format(EventLayout)
