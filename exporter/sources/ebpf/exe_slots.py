"""Paths of executables, from the slots that the program at the exec writes (`struct exes` in bpf/maps.h)."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

from exporter.kernel.layout import EXE_LEN, EXE_SLOTS, RECORD_FIELDS, Exe

_EXITED, _RUNTIME, _PID, _HAS_EXE = map(RECORD_FIELDS.index, ("ended_ns", "runtime_ns", "pid", "has_exe"))
_SLOT = ctypes.sizeof(Exe)
BYTES = EXE_SLOTS * _SLOT
_MASK = EXE_SLOTS - 1

Raw = tuple[Any, ...]


class ExeSlots:
    """The slots. The kernel may write while they are read: a path counts only if its slot is the same process's before and after."""

    def __init__(self, fd: int, since_ns: int) -> None:
        """Map the array `fd`. Processes that started before `since_ns` may have no path. Raises `OSError`."""
        self.lost = 0
        """Records without a path because another process took the slot."""
        self._since_ns = since_ns
        self._memory = mmap.mmap(fd, BYTES, prot=mmap.PROT_READ)
        self._words = memoryview(self._memory).cast("Q")

    def add(self, raw: list[Raw]) -> list[Raw]:
        """Return the records, each with its path as the last field."""
        return [(*each, self._path(each) if each[_HAS_EXE] else b"") for each in raw]

    def _path(self, raw: Raw) -> bytes:
        at, start_ns = (raw[_PID] & _MASK) * _SLOT, raw[_EXITED] - raw[_RUNTIME]
        if self._words[at // 8] == start_ns:
            begin = at + Exe.path.offset
            end = self._memory.find(b"\0", begin, begin + EXE_LEN)
            path = self._memory[begin:end]
            if self._words[at // 8] == start_ns:
                return path
        self.lost += start_ns >= self._since_ns
        return b""

    def close(self) -> None:
        """Unmap."""
        self._words.release()
        self._memory.close()
