"""Reads records and events from BPF ring buffers.

Memory layout: kernel/bpf/ringbuf.c. The first page has the position of the reader, the second page that of the kernel. The data follows
twice, so an item never wraps around. Each item has a header of eight bytes: its length, with a bit that is set while it is being
written, and a number for the kernel.

The kernel writes a header before the position (smp_store_release) and the data before it clears the bit (xchg). So here the position is
read first, then headers, then data, and only then is the reader's position moved.
"""

from __future__ import annotations

import mmap
from struct import Struct
from typing import Any

from exporter.kernel.architecture import new_fence
from exporter.kernel.layout import BCC_RECORDS_BYTES, RECORD_FORMAT, RECORD_WITH_EXE_FORMAT, RECORDS_BYTES
from exporter.sources.ebpf.cpu_join import CpuJoin
from exporter.sources.ebpf.exec_slots import ExecSlots
from exporter.sources.ebpf.lineages import Lineages

_HEADER = 8
_BUSY = 1 << 31
_BATCH = 512


class RingBuffer:
    """The ring buffer of all CPUs, with items of one size. Not thread-safe. The kernel may write while it is read."""

    def __init__(self, fd: int, size: int, item: str) -> None:
        """Map the ring buffer `fd` of `size` bytes. `item` is the format of its items, as in `struct`. Raises `OSError`."""
        self._size = size
        self._item = Struct(f"={_HEADER}x{item}")
        self._stride = self._item.size
        self._fence = new_fence()
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(fd, page)
        try:
            self._producer = mmap.mmap(fd, page + 2 * size, prot=mmap.PROT_READ, offset=page)
        except OSError:
            self._consumer.close()
            raise
        self._position = memoryview(self._consumer).cast("Q")
        self._written = memoryview(self._producer)[:8].cast("Q")
        self._data = memoryview(self._producer)[page:]

    def pop(self) -> list[tuple[Any, ...]]:
        """Return a batch of complete items; empty if there are no more."""
        position, stride = self._position[0], self._stride
        at = position % self._size
        fence = self._fence
        n = min((self._written[0] - position) // stride, _BATCH, len(self._data) // stride)
        if fence:
            fence()
        headers = self._data[at : at + n * stride].cast("I")[:: stride // 4].tolist()
        complete = next((number for number, header in enumerate(headers) if header & _BUSY), len(headers))
        if fence:
            fence()
        popped = list(self._item.iter_unpack(self._data[at : at + complete * stride]))
        if fence:
            fence()
        self._position[0] = position + complete * stride
        return popped

    def close(self) -> None:
        """Unmap."""
        for view in (self._position, self._written, self._data):
            view.release()
        self._consumer.close()
        self._producer.close()


class Ring(RingBuffer):
    """The ring buffer of records."""

    lost = 0
    """Always 0: the programs count records that do not fit."""

    def __init__(self, fd: int, lineages: Lineages, exes: ExecSlots | None = None, join: CpuJoin | None = None) -> None:
        """Map the ring buffer `fd`. Raises `OSError`. `exes` has the paths, and perhaps arguments; without it, records contain the paths.

        `close` closes the others, too.
        """
        if exes is not None:
            super().__init__(fd, RECORDS_BYTES, RECORD_FORMAT)
        else:
            super().__init__(fd, BCC_RECORDS_BYTES, RECORD_WITH_EXE_FORMAT)
        self.descriptors = [fd]
        self.lineages = lineages
        self.join = join
        self._exes = exes
        self.wakes_when_full = exes is not None

    @property
    def exes_lost(self) -> int:
        """Return the number of records that have no path because another process took the slot."""
        return self._exes.lost if self._exes is not None else 0

    def pop(self) -> list[tuple[Any, ...]]:
        """Return a batch of complete records; see `RecordBuffer`."""
        popped = super().pop()
        return popped if self._exes is None else self._exes.add(popped)

    def close(self) -> None:
        """Unmap."""
        super().close()
        self.lineages.close()
        if self._exes is not None:
            self._exes.close()
        if self.join is not None:
            self.join.close()
