"""Records wait for their CPU, which the kernel writes to mapped memory after the exit; none waits for long, and none is lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from exporter.kernel.cgroups import Cgroups
from exporter.kernel.layout import RECORD_CPU_SLOTS, RecordCpu
from exporter.model import Mode
from exporter.records.hub import Hub
from exporter.records.record import Record
from exporter.sources.ebpf.cpu_join import _BYTES, MOST_WAITING, WAIT_NS, CpuJoin
from exporter.sources.ebpf.lineages import Lineages
from exporter.sources.ebpf.record_reader import RecordReader
from tests.unit.raw_records import raw_with_exe

NOW = 10**12
RUNTIME = 1000


def raw(pid: int, exited_ns: int = NOW) -> tuple[Any, ...]:
    return raw_with_exe(ended_ns=exited_ns, runtime_ns=RUNTIME, pid=pid, comm=b"comm", exe=b"/bin/comm")


class Kernel:
    """Writes to a file as the program at the free writes to the array."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("record_cpus")
        os.ftruncate(self.fd, _BYTES)

    def freed(self, pid: int, cpu_ns: int, exited_ns: int = NOW) -> None:
        slot = pid % RECORD_CPU_SLOTS
        os.pwrite(self.fd, bytes(RecordCpu(exited_ns - RUNTIME, cpu_ns)), slot * 16)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    os.close(made.fd)


@pytest.fixture
def join(kernel: Kernel) -> Iterator[CpuJoin]:
    made = CpuJoin(kernel.fd)
    yield made
    made.close()


def popped(join: CpuJoin, now_ns: int) -> list[tuple[int, int | None]]:
    ready, cpu_ns = join.pop(now_ns)
    return [(each[3], ns) for each, ns in zip(ready, cpu_ns, strict=True)]


def test_a_record_waits_for_its_cpu_in_the_order_of_exits(kernel: Kernel, join: CpuJoin) -> None:
    """Consumers get the records in order, also if the kernel frees the processes in another one."""
    join.add([raw(7), raw(8)])
    kernel.freed(8, 80)
    assert popped(join, NOW) == []
    kernel.freed(7, 0)
    assert popped(join, NOW) == [(7, 0), (8, 80)]
    assert not join


def test_a_record_without_a_free_leaves_after_the_wait(kernel: Kernel, join: CpuJoin) -> None:
    """A zombie is freed when it is reaped, perhaps never; its record must not be lost or late."""
    join.add([raw(7), raw(8, NOW + 1)])
    assert join.seconds_left(NOW) == pytest.approx(WAIT_NS / 1e9)
    assert popped(join, NOW + WAIT_NS) == [(7, None)]
    assert join.pop_all()[1] == [None]


def test_the_cpu_of_another_process_is_not_taken(kernel: Kernel, join: CpuJoin) -> None:
    """A slot is used again by a process with the same PID, or one that is a multiple away."""
    kernel.freed(7 + RECORD_CPU_SLOTS, 99, NOW - 5)
    join.add([raw(7)])
    assert popped(join, NOW + WAIT_NS) == [(7, None)]


def test_the_number_that_waits_is_bounded(join: CpuJoin) -> None:
    """A storm of zombies must not take memory without end: the oldest records leave early."""
    join.add([raw(number) for number in range(MOST_WAITING + 3)])
    assert popped(join, NOW) == [(0, None), (1, None), (2, None)]


class Buffer:
    """A buffer with one record at a time."""

    lost = 0
    wakes_when_full = False
    exes_lost = 0
    lineages = Lineages()

    def __init__(self, join: CpuJoin) -> None:
        self.join = join
        self.descriptors: list[int] = []
        self.written: list[tuple[Any, ...]] = []

    def pop(self) -> list[tuple[Any, ...]]:
        popped, self.written = self.written, []
        return popped

    def close(self) -> None:
        self.join.close()


class Inbox:
    """A consumer that keeps everything."""

    name = "inbox"
    live = True

    def __init__(self, *, at_once: bool) -> None:
        self.at_once = at_once
        self.records: list[Record] = []
        self.came = threading.Event()

    def offer(self, batch: Any) -> None:
        self.records += batch
        self.came.set()

    def dropped(self) -> dict[str, int]:
        return {}


def test_a_consumer_may_get_records_at_once_and_the_others_get_them_complete(kernel: Kernel) -> None:
    """An alerting handler may not want to wait; everybody else sees each record once, with CPU, and the store too."""
    hub = Hub(10)
    buffer = Buffer(CpuJoin(kernel.fd))
    first, whole = Inbox(at_once=True), Inbox(at_once=False)
    hub.attach(first)
    hub.attach(whole)
    exited_ns = time.monotonic_ns() + 10**12  # so that it does not leave without CPU before this test writes it
    buffer.written = [raw(7, exited_ns)]
    reader = RecordReader(buffer, Cgroups(""), Mode.EBPF_CORE, hub.publish, live=False, follows=hub)
    try:
        assert first.came.wait(10)
        assert not whole.records
        assert not hub.recent()
        kernel.freed(7, 5, exited_ns)
        assert whole.came.wait(10)
    finally:
        reader.stop()
    assert [each.cpu_ns for each in first.records] == [None]
    assert [each.cpu_ns for each in whole.records] == [5]
    assert hub.recent() == whole.records
    assert sum(hub.latencies.buckets) == 1


def test_the_last_records_do_not_wait(kernel: Kernel) -> None:
    """When the programs are detached, no CPU comes any more; the records are published before the source is gone."""
    buffer, got = Buffer(CpuJoin(kernel.fd)), list[Record]()
    reader = RecordReader(buffer, Cgroups(""), Mode.EBPF_CORE, got.extend, live=True)
    buffer.written = [raw(7, time.monotonic_ns())]
    reader.stop()
    assert [each.cpu_ns for each in got] == [None]


def test_a_record_from_another_mode_reaches_all_at_once() -> None:
    """Only eBPF modes know CPU late; consumers of both kinds get whole records from the others."""
    hub = Hub(10)
    first, whole = Inbox(at_once=True), Inbox(at_once=False)
    hub.attach(first)
    hub.attach(whole)
    record = Record(1, 1, 1, 1, 0, b"comm", b"parent", b"", outcome=None, code=0, cpu_ns=3, cgroup=b"", mode=Mode.NETLINK)  # type: ignore[arg-type]
    hub.publish([record])
    assert first.records == whole.records == hub.recent() == [record]
