"""Arrays that the programs fill, mapped here. The slot is the PID modulo their number, and begins with the start of its process."""

from __future__ import annotations

import ctypes
import mmap

from exporter.kernel.architecture import new_fence


class Slots:
    """One array. The kernel may write while it is read: a slot counts only if it is the same process's before and after."""

    def __init__(self, fd: int, of: type[ctypes.Structure], slots: int) -> None:
        """Map the array `fd`. Raises `OSError`."""
        self._size, self._mask = ctypes.sizeof(of), slots - 1
        self._fence = new_fence()
        self._memory = mmap.mmap(fd, slots * self._size, prot=mmap.PROT_READ)
        self._words = memoryview(self._memory).cast("Q")

    def word(self, pid: int, number: int) -> int:
        """Return a word of a slot, whosever it is."""
        return self._words[(pid & self._mask) * self._size // 8 + number]

    def read(self, pid: int, start_ns: int) -> bytes | None:
        """Return the slot of this process; None if it is another's."""
        at, words, fence = (pid & self._mask) * self._size, self._words, self._fence
        if words[at // 8] != start_ns:
            return None
        if fence:
            fence()
        slot = self._memory[at : at + self._size]
        if fence:
            fence()
        return slot if words[at // 8] == start_ns else None

    def close(self) -> None:
        """Unmap."""
        self._words.release()
        self._memory.close()
