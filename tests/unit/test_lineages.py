"""The names of ancestors, from records and the slots that the kernel's programs fill: exact or unknown, never guessed."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest

from exporter.kernel.layout import (
    ABOVE_SLOTS,
    BETWEEN_SLOTS,
    BETWEEN_UNKNOWN,
    MAX_BETWEEN,
    RECORD_FIELDS,
    SPAWNER_DEEP,
    SPAWNER_FOUND,
    SPAWNER_UNKNOWN,
    Above,
    Between,
)
from exporter.model import KERNEL_THREADS
from exporter.model.origins import DEEP, UNKNOWN, Lineage
from exporter.sources.ebpf.lineages import Lineages
from tests.unit.raw_records import raw_with_exe

CRON, SCRIPT, TRUE = 10, 12, 13
START = 1_000_000


class Kernel:
    """Two arrays, as the programs fill them, and their reader."""

    def __init__(self) -> None:
        self.descriptors = [os.memfd_create(name) for name in ("between_slots", "above_slots")]
        sizes = (BETWEEN_SLOTS * ctypes.sizeof(Between), ABOVE_SLOTS * ctypes.sizeof(Above))
        for fd, size in zip(self.descriptors, sizes, strict=True):
            os.truncate(fd, size)
        self.between_slots, self.above_slots = (mmap.mmap(fd, size) for fd, size in zip(self.descriptors, sizes, strict=True))
        self.lineages = Lineages(*self.descriptors)

    def between(self, pid: int, *names: bytes, start_ns: int = START) -> None:
        _write(self.between_slots, pid % BETWEEN_SLOTS, Between(start_ns=start_ns), names)

    def above(self, pid: int, *names: bytes, **of: int) -> None:
        _write(self.above_slots, pid % ABOVE_SLOTS, Above(**{"start_ns": pid, "pid": pid, "n": len(names), **of}), names)

    def of(self, **fields: Any) -> Lineage:
        """The lineage of a process that started at `START`."""
        known = {"spawner": b"cron", "spawner_pid": CRON, "spawner_start_ns": CRON, "spawner_state": SPAWNER_FOUND}
        record = {"ended_ns": START + 5, "runtime_ns": 5, "pid": TRUE, "ppid": SCRIPT, "parent_comm": b"script", **known, **fields}
        (lineage,) = self.lineages.of({name: [value] for name, value in zip(RECORD_FIELDS, raw_with_exe(**record), strict=True)})
        return lineage


def _write(array: mmap.mmap, slot: int, value: Above | Between, names: tuple[bytes, ...]) -> None:
    """Write a slot. After the end of a name there may be anything, on old kernels."""
    raw = b"".join((name + b"\0" + b"x" * 16)[:16] for name in names)
    at = slot * ctypes.sizeof(value)
    array[at : at + ctypes.sizeof(value)] = bytes(value)
    at += type(value).names.offset
    array[at : at + len(raw)] = raw


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.lineages.close()
    for fd in made.descriptors:
        os.close(fd)


def test_a_whole_chain(kernel: Kernel) -> None:
    """Above the spawner from its slot, between it and the parent from the process's own."""
    kernel.above(CRON, b"cron", b"systemd")
    kernel.between(TRUE, b"middle", b"sh")
    assert kernel.of(between_n=2) == (b"systemd", b"cron", b"cron", b"sh", b"middle", b"script")
    assert kernel.of() == (b"systemd", b"cron", b"cron", b"script")


def test_the_parent_may_be_the_spawner(kernel: Kernel) -> None:
    """Then it is there once."""
    kernel.above(CRON, b"systemd")
    assert kernel.of(ppid=CRON, parent_comm=b"cron") == (b"systemd", b"cron")


def test_process_1_has_no_ancestors(kernel: Kernel) -> None:
    """Nothing stands before it."""
    kernel.above(1)
    assert kernel.of(ppid=1, parent_comm=b"systemd", spawner_pid=1, spawner_start_ns=1) == (b"systemd",)


@pytest.mark.parametrize(
    ("end", "first"), [({"top_pid": 7}, DEEP), ({"top_pid": 1}, b"d"), ({"top_pid": 77, "top_is_kernel": 1}, KERNEL_THREADS)]
)
def test_where_the_walk_ended(kernel: Kernel, end: dict[str, int], first: bytes) -> None:
    """At process 1; at a kernel thread that started a helper; or after its last step."""
    kernel.above(CRON, b"d", **end)
    assert kernel.of()[0] == first


def test_without_a_spawner() -> None:
    """More than 8 short-lived ancestors, or an ancestor that is not known."""
    kernel = Kernel()
    names = [b"%d" % number for number in range(MAX_BETWEEN)]
    kernel.between(TRUE, *names)
    assert kernel.of(spawner_state=SPAWNER_DEEP, between_n=MAX_BETWEEN) == (DEEP, *reversed(names), b"script")
    assert kernel.of(spawner_state=SPAWNER_UNKNOWN, between_n=BETWEEN_UNKNOWN) == (UNKNOWN, b"script")
    assert kernel.of(spawner_state=SPAWNER_UNKNOWN, between_n=BETWEEN_UNKNOWN, parent_comm=UNKNOWN) == (UNKNOWN,)


def test_a_slot_of_another_process(kernel: Kernel) -> None:
    """Slots are shared by PIDs: the names of others are never taken."""
    kernel.between(TRUE + BETWEEN_SLOTS, b"other", start_ns=START + 1)
    kernel.above(CRON + ABOVE_SLOTS, b"other")
    assert kernel.of(between_n=1) == (UNKNOWN, b"cron", UNKNOWN, b"script")
    kernel.above(CRON + ABOVE_SLOTS, b"other", start_ns=CRON)
    assert kernel.of() == (UNKNOWN, b"cron", b"script"), "started in the same nanosecond"


def test_a_spawner_is_read_again_when_the_programs_have(kernel: Kernel) -> None:
    """Its ancestors may have exited or been renamed. What was read stays known when another spawner takes the slot."""
    for read_ns, name in ((1, b"before"), (1, b"before"), (2, b"after")):
        kernel.above(CRON, b"before" if read_ns == 1 else b"after", read_ns=read_ns)
        assert kernel.of() == (name, b"cron", b"script")
    kernel.above(CRON + ABOVE_SLOTS, b"other")
    assert kernel.of() == (b"after", b"cron", b"script")


def test_without_slots() -> None:
    """As in ebpf_bcc: parent and spawner are known, and whether there is anything between."""
    kernel = Kernel()
    kernel.lineages = Lineages()
    assert kernel.of() == (UNKNOWN, b"cron", b"script")
    assert kernel.of(between_n=BETWEEN_UNKNOWN) == (UNKNOWN, b"cron", UNKNOWN, b"script")


def test_equal_chains_share_their_memory(kernel: Kernel) -> None:
    """A thousand records of one script are kept."""
    kernel.above(CRON, b"systemd")
    assert kernel.of() is kernel.of()
