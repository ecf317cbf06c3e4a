"""Joins records with their CPU, which the kernel knows only when it frees the process: usually 8 to 131 ms after the exit.

The program at the free writes the CPU to a slot of memory that is mapped here (`struct record_cpus` in bpf/maps.h). Records wait for it in
the order of their exits. A zombie is freed only when it is reaped, and sometimes the program does not run; such records leave without CPU.
"""

from __future__ import annotations

import ctypes
import mmap
from itertools import islice
from typing import Any

from exporter.kernel.architecture import new_fence
from exporter.kernel.layout import RECORD_CPU_SLOTS, RECORD_FIELDS, RecordCpu
from exporter.model import NS

WAIT_NS = NS // 4
"""Longest time from the exit to the record."""
MOST_WAITING = 8192
"""Further records leave early. They take about 6 MiB, and later ones might find their slot used again."""
_EXITED, _RUNTIME, _PID = map(RECORD_FIELDS.index, ("ended_ns", "runtime_ns", "pid"))
_BYTES = RECORD_CPU_SLOTS * ctypes.sizeof(RecordCpu)
_MASK = RECORD_CPU_SLOTS - 1

Raw = tuple[Any, ...]
"""A record in the order of `RECORD_FIELDS`."""


class CpuJoin:
    """The records that wait. Not thread-safe. The kernel may write while it looks."""

    def __init__(self, fd: int) -> None:
        """Map the array `fd`. Raises `OSError`."""
        self._fence = new_fence()
        self._memory = mmap.mmap(fd, _BYTES, prot=mmap.PROT_READ)
        self._words = memoryview(self._memory).cast("Q")
        self._waiting: list[Raw] = []

    def __bool__(self) -> bool:
        """Return whether records wait."""
        return bool(self._waiting)

    def add(self, raw: list[Raw]) -> None:
        """Let records wait."""
        self._waiting += raw

    def pop(self, now_ns: int) -> tuple[list[Raw], list[int | None]]:
        """Return the first records, up to one that still has to wait, and the CPU of each in ns, None if it did not come in time."""
        waiting, words, fence = self._waiting, self._words, self._fence
        due_ns, excess = now_ns - WAIT_NS, len(waiting) - MOST_WAITING
        found: list[int | None] = []
        for raw in waiting:
            at = (raw[_PID] & _MASK) * 2
            exited_ns = raw[_EXITED]
            # The program writes the start last. A start of 0 is a process that the programs have never seen
            if words[at] == exited_ns - raw[_RUNTIME]:
                if fence:
                    fence()
                found.append(words[at + 1])
            elif exited_ns <= due_ns or len(found) < excess:
                found.append(None)
            else:
                break
        ready = waiting[: len(found)]
        del waiting[: len(found)]
        return ready, found

    def pop_all(self) -> tuple[list[Raw], list[int | None]]:
        """Return all records: nothing more comes."""
        return self.pop(1 << 63)

    def seconds_left(self, now_ns: int) -> float:
        """Return how long the first record may still wait."""
        return max(0, next((raw[_EXITED] + WAIT_NS - now_ns for raw in islice(self._waiting, 1)), WAIT_NS)) / NS

    def close(self) -> None:
        """Unmap."""
        self._words.release()
        self._memory.close()
