"""What the program at the exec keeps of a process until its record is read: the path of its executable, and perhaps its arguments.

It writes to slots chosen by PID, which are mapped here (`exes` and `arguments` in bpf/maps.h).
"""

from __future__ import annotations

import ctypes
from typing import Any

from exporter.kernel.layout import ARGUMENTS_LEN, ARGUMENTS_SLOTS, EXE_SLOTS, RECORD_FIELDS, ArgumentsSlot, Exe
from exporter.model.arguments import Arguments, first
from exporter.sources.ebpf.slots import Slots

_EXITED, _RUNTIME, _PID, _HAS_EXE = map(RECORD_FIELDS.index, ("ended_ns", "runtime_ns", "pid", "has_exe"))
_PATH, _SIZE, _TEXT = Exe.path.offset, ArgumentsSlot.size.offset, ArgumentsSlot.text.offset

EXE_BYTES, ARGUMENTS_BYTES = EXE_SLOTS * ctypes.sizeof(Exe), ARGUMENTS_SLOTS * ctypes.sizeof(ArgumentsSlot)

Raw = tuple[Any, ...]


class ExecSlots:
    """Both. The kernel may write while they are read."""

    def __init__(self, exes_fd: int, since_ns: int, arguments_fd: int | None = None) -> None:
        """Map the arrays. Processes that started before `since_ns` may have nothing. Raises `OSError`."""
        self.lost = 0
        """Records that lack something because another process took the slot."""
        self._since_ns = since_ns
        self._exes = Slots(exes_fd, Exe, EXE_SLOTS)
        try:
            self._arguments = None if arguments_fd is None else Slots(arguments_fd, ArgumentsSlot, ARGUMENTS_SLOTS)
        except OSError:
            self._exes.close()
            raise

    def add(self, raw: list[Raw]) -> list[Raw]:
        """Return the records, each with its path as a further field, and if arguments are asked for with `Arguments` or None behind it."""
        nothing: Raw = (b"",) if self._arguments is None else (b"", None)
        return [each + (self._kept(each) if each[_HAS_EXE] else nothing) for each in raw]

    def _kept(self, raw: Raw) -> Raw:
        pid, start_ns = raw[_PID], raw[_EXITED] - raw[_RUNTIME]
        exe = self._exes.read(pid, start_ns)
        path = b"" if exe is None else exe[_PATH : exe.index(b"\0", _PATH)]  # zeros follow the longest one, too
        if self._arguments is None:
            self.lost += exe is None and start_ns >= self._since_ns
            return (path,)
        arguments = self._arguments.read(pid, start_ns)
        self.lost += (exe is None or arguments is None) and start_ns >= self._since_ns
        return path, None if arguments is None else _arguments(arguments)

    def close(self) -> None:
        """Unmap."""
        self._exes.close()
        if self._arguments is not None:
            self._arguments.close()


def _arguments(slot: bytes) -> Arguments | None:
    """Return None for a process without any."""
    size = int.from_bytes(slot[_SIZE : _SIZE + 8], "little")
    return first(slot[_TEXT : _TEXT + min(size, ARGUMENTS_LEN)], size)
