"""What the program at the exec keeps of a process until its record is read: the path of its executable, and perhaps its arguments.

It writes to slots chosen by PID, which are mapped here (`exes` and `arguments` in bpf/maps.h).
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from exporter.kernel.layout import ARGUMENTS_LEN, ARGUMENTS_SLOTS, EXE_LEN, EXE_SLOTS, RECORD_FIELDS, ArgumentsSlot, Exe
from exporter.model.arguments import Arguments, first

_EXITED, _RUNTIME, _PID, _HAS_EXE = map(RECORD_FIELDS.index, ("ended_ns", "runtime_ns", "pid", "has_exe"))
_PATH, _SIZE, _TEXT = Exe.path.offset, ArgumentsSlot.size.offset, ArgumentsSlot.text.offset

EXE_BYTES, ARGUMENTS_BYTES = EXE_SLOTS * ctypes.sizeof(Exe), ARGUMENTS_SLOTS * ctypes.sizeof(ArgumentsSlot)

Raw = tuple[Any, ...]
T = TypeVar("T")


class ExecSlots:
    """Both. The kernel may write while they are read."""

    def __init__(self, exes_fd: int, since_ns: int, arguments_fd: int | None = None) -> None:
        """Map the arrays. Processes that started before `since_ns` may have nothing. Raises `OSError`."""
        self.lost = 0
        """Records that lack something because another process took the slot."""
        self._since_ns = since_ns
        self._exes = _Slots(exes_fd, EXE_SLOTS, ctypes.sizeof(Exe), _path)
        try:
            self._arguments = None
            if arguments_fd is not None:
                self._arguments = _Slots(arguments_fd, ARGUMENTS_SLOTS, ctypes.sizeof(ArgumentsSlot), _arguments)
        except OSError:
            self._exes.close()
            raise

    def add(self, raw: list[Raw]) -> list[Raw]:
        """Return the records, each with its path as a further field, and if arguments are asked for with `Arguments` or None behind it."""
        nothing = (b"",) if self._arguments is None else (b"", None)
        return [(*each, *(self._kept(each) if each[_HAS_EXE] else nothing)) for each in raw]

    def _kept(self, raw: Raw) -> Raw:
        path = self._exes.of(raw)
        arguments: tuple[Arguments | None] | tuple[()] | None = () if self._arguments is None else self._arguments.of(raw)
        if path is None or arguments is None:
            self.lost += raw[_EXITED] - raw[_RUNTIME] >= self._since_ns
        return (path or b"", *((None,) if arguments is None else arguments))

    def close(self) -> None:
        """Unmap."""
        self._exes.close()
        if self._arguments is not None:
            self._arguments.close()


class _Slots(Generic[T]):
    """Slots that begin with the start time of their process. A value counts only if that is the same before and after the read."""

    def __init__(self, fd: int, slots: int, size: int, read: Callable[[mmap.mmap, int], T]) -> None:
        self._mask, self._size, self._read = slots - 1, size, read
        self._memory = mmap.mmap(fd, slots * size, prot=mmap.PROT_READ)
        self._words = memoryview(self._memory).cast("Q")

    def of(self, raw: Raw) -> T | None:
        at, start_ns = (raw[_PID] & self._mask) * self._size, raw[_EXITED] - raw[_RUNTIME]
        if self._words[at // 8] != start_ns:
            return None
        value = self._read(self._memory, at)
        return value if self._words[at // 8] == start_ns else None

    def close(self) -> None:
        self._words.release()
        self._memory.close()


def _path(memory: mmap.mmap, at: int) -> bytes:
    begin = at + _PATH
    return memory[begin : memory.find(b"\0", begin, begin + EXE_LEN)]


def _arguments(memory: mmap.mmap, at: int) -> tuple[Arguments | None]:
    """Return None for a process without any."""
    size = int.from_bytes(memory[at + _SIZE : at + _SIZE + 8], "little")
    return (first(memory[at + _TEXT : at + _TEXT + min(size, ARGUMENTS_LEN)], size),)
