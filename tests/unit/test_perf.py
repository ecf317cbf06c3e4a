"""Perf buffers: records that wrap around, other messages, and many descriptors in one handover."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.kernel.layout import PERF_BYTES, PERF_BYTES_LEAST, PERF_BYTES_MOST, RecordWithExe, perf_bytes
from exporter.loaders.handover import receive, send
from exporter.sources.ebpf.perfbuf import PerfBuffers

SIZE = PERF_BYTES_LEAST
HEAD, TAIL = 1024, 1032


class Kernel:
    """Writes to a file as the kernel writes to the memory of a perf event."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("perf")
        os.ftruncate(self.fd, mmap.PAGESIZE + SIZE)
        self._memory = mmap.mmap(self.fd, mmap.PAGESIZE + SIZE)

    def start_at(self, position: int) -> None:
        """Start at a position, as if `position` bytes had been written and read."""
        self._put(HEAD, position)
        self._put(TAIL, position)

    def write(self, data: bytes) -> None:
        head = self._get(HEAD)
        for at, byte in enumerate(data, head):
            self._memory[mmap.PAGESIZE + at % SIZE] = byte
        self._put(HEAD, head + len(data))

    def record(self, ended_ns: int) -> None:
        body = bytes(RecordWithExe(ended_ns=ended_ns, comm=b"cron", exe=b"/bin/cron"))
        self.write(struct.pack("=IHHI", 9, 0, 8 + 4 + len(body) + 4, len(body) + 4) + body + bytes(4))

    def lose(self, number: int) -> None:
        self.write(struct.pack("=IHHQQ", 2, 0, 24, 77, number))

    @property
    def unread(self) -> int:
        return self._get(HEAD) - self._get(TAIL)

    def close(self) -> None:
        self._memory.close()
        os.close(self.fd)

    def _get(self, at: int) -> int:
        value: int = struct.unpack_from("=Q", self._memory, at)[0]
        return value

    def _put(self, at: int, value: int) -> None:
        struct.pack_into("=Q", self._memory, at, value)


@pytest.fixture
def cpus() -> Iterator[list[Kernel]]:
    kernels = [Kernel(), Kernel()]
    yield kernels
    for each in kernels:
        each.close()


def taken(cpus: list[Kernel], *, count_lost: bool = True) -> tuple[list[int], int]:
    """Return the times of the records, and the number of lost records."""
    buffers = PerfBuffers([each.fd for each in cpus], SIZE, count_lost=count_lost)
    ended = []
    while some := buffers.pop():
        ended += [record[0] for record in some]
        assert {(record[7], record[-1].rstrip(b"\0")) for record in some} == {(b"cron".ljust(16, b"\0"), b"/bin/cron")}
    buffers.close()
    return ended, buffers.lost


def test_records_of_all_cpus_come_in_order(cpus: list[Kernel]) -> None:
    """Records of several CPUs are sorted by time."""
    for ended_ns in range(1, 100):
        cpus[ended_ns % 3 % 2].record(ended_ns)
    assert taken(cpus) == (list(range(1, 100)), 0)
    assert [each.unread for each in cpus] == [0, 0]


@pytest.mark.parametrize("before_the_end", [1, 4, 8, 12, 24, 100, 343])
def test_a_record_in_two_pieces(cpus: list[Kernel], before_the_end: int) -> None:
    """A record or its header may wrap around at the end of the memory."""
    cpus[0].start_at(10 * SIZE - before_the_end)
    cpus[0].record(1)
    cpus[0].record(2)
    assert taken(cpus) == ([1, 2], 0)


def test_what_was_lost_is_counted_where_nobody_else_does(cpus: list[Kernel]) -> None:
    """Since Linux 5.1 the programs count lost records, so the reader must not."""
    cpus[0].record(1)
    cpus[0].lose(7)
    cpus[1].lose(5)
    cpus[0].record(2)
    assert taken(cpus, count_lost=True) == ([1, 2], 12)
    for each in cpus:
        each.start_at(0)
        each.lose(3)
        each.record(3)
    assert taken(cpus, count_lost=False) == ([3, 3], 0)


def test_what_is_not_known_is_skipped(cpus: list[Kernel]) -> None:
    """Unknown messages, e.g. of a newer kernel, are skipped."""
    cpus[0].write(struct.pack("=IHH", 5, 0, 16) + bytes(8))
    cpus[0].write(struct.pack("=IHH", 9, 0, 24) + bytes(16))
    cpus[0].record(1)
    assert taken(cpus) == ([1], 0)


@pytest.mark.parametrize("size", [0, 7])
def test_a_message_without_its_size(cpus: list[Kernel], size: int) -> None:
    """The reader must not wait at a corrupt message for ever. What is behind it can't be found, and that is counted."""
    cpus[0].record(1)
    cpus[0].write(struct.pack("=IHH", 9, 0, size))
    cpus[0].record(2)
    assert taken(cpus) == ([1], 1)
    assert cpus[0].unread == 0


def test_a_cut_count_of_lost_records(cpus: list[Kernel]) -> None:
    """A number is read only from a message that has one."""
    cpus[0].write(struct.pack("=IHH", 2, 0, 16) + bytes(8))
    cpus[0].record(1)
    assert taken(cpus) == ([1], 0)


def test_a_full_buffer(cpus: list[Kernel]) -> None:
    """More records than one batch are read in several batches."""
    n = SIZE // (ctypes.sizeof(RecordWithExe) + 16)
    for ended_ns in range(n):
        cpus[0].record(ended_ns)
    assert taken(cpus) == (list(range(n)), 0)


def test_sizes() -> None:
    """Buffer sizes are powers of two, below the limit of unprivileged users, and small on hosts with many CPUs."""
    for cpus in (1, 2, 3, 8, 12, 48, 256, 1024):
        size = perf_bytes(cpus)
        assert size.bit_count() == 1
        assert PERF_BYTES_LEAST <= size <= PERF_BYTES_MOST
        assert size * cpus <= max(PERF_BYTES, cpus * PERF_BYTES_LEAST)


def test_more_descriptors_than_a_message_can_bring() -> None:
    """A handover can have 600 perf events, one for each CPU, in order."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        given = [os.memfd_create(str(number)) for number in range(600)]
        send(theirs, b"{}", given)
        message, got = receive(ours, 5)
        names = [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in got]
        for fd in (*given, *got):
            os.close(fd)
    assert message == b"{}"
    assert names == [f"/memfd:{number} (deleted)" for number in range(600)]
