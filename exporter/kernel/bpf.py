"""BPF maps and programs by descriptor, through bpf(2).

The serving process needs no library: only the child of a loader uses libbpf. Layouts of the attributes: include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from exporter.kernel.architecture import HERE

_SYS_BPF = HERE.bpf if HERE else -1  # ENOSYS

_MAP_LOOKUP_ELEM = 1
_MAP_UPDATE_ELEM = 2
_MAP_DELETE_ELEM = 3
_MAP_GET_NEXT_KEY = 4
_OBJ_GET_INFO_BY_FD = 15
_MAP_LOOKUP_BATCH = 24
_MAP_LOOKUP_AND_DELETE_BATCH = 25

_NOEXIST = 1

ENOTSUPP = 524  # not in errno(3): include/linux/errno.h
_NO_BATCH = {errno.EINVAL, ENOTSUPP, errno.EOPNOTSUPP}
_BATCH = 256

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _ElementAttr(ctypes.Structure):
    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class _BatchAttr(ctypes.Structure):
    _fields_ = (
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class _InfoAttr(ctypes.Structure):
    _fields_ = (("bpf_fd", ctypes.c_uint32), ("info_len", ctypes.c_uint32), ("info", ctypes.c_uint64))


_Attr = _ElementAttr | _BatchAttr | _InfoAttr


def _bpf(command: int, attr: _Attr) -> int:
    """Return 0 or the errno."""
    if _libc.syscall(_SYS_BPF, command, ctypes.byref(attr), ctypes.sizeof(attr)) < 0:
        return ctypes.get_errno()
    return 0


def _check(error: int, what: str) -> None:
    if error:
        raise OSError(error, f"{what}: {os.strerror(error)}")


@dataclass(frozen=True, slots=True)
class Rows:
    """Entries of a map: a list of keys, and their values in the same order, concatenated."""

    keys: list[bytes]
    values: memoryview
    value_size: int
    """Bytes of each value."""


@dataclass(frozen=True, slots=True)
class BpfMap:
    """A BPF map. Sizes are in bytes, as user space sees them: a value of a per-CPU map holds the values of all CPUs.

    All methods raise `OSError`.
    """

    fd: int
    key_size: int
    value_size: int

    def lookup(self, key: bytes) -> bytearray | None:
        """Return the value of `key`, or None."""
        value = bytearray(self.value_size)
        error = self._element(_MAP_LOOKUP_ELEM, key, value)
        if error == errno.ENOENT:
            return None
        _check(error, "bpf map lookup")
        return value

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value of `key`. In a map of maps, `value` is a descriptor, and the call waits for programs that still use the old map."""
        _check(self._element(_MAP_UPDATE_ELEM, key, bytearray(value)), "bpf map update")

    def insert(self, key: bytes, value: bytes) -> None:
        """Set the value of `key`, unless it exists."""
        error = self._element(_MAP_UPDATE_ELEM, key, bytearray(value), _NOEXIST)
        if error != errno.EEXIST:
            _check(error, "bpf map insert")

    def delete(self, key: bytes) -> None:
        """Delete `key`, if it exists."""
        error = self._element(_MAP_DELETE_ELEM, key, None)
        if error != errno.ENOENT:
            _check(error, "bpf map delete")

    def read(self) -> Rows:
        """Return all entries. Entries inserted meanwhile may be missing. Each is returned once, unless entries are deleted meanwhile."""
        return self._rows(_MAP_LOOKUP_BATCH)

    def pop_all(self) -> Rows:
        """Return all entries and delete them. Exact only while no program uses the map."""
        return self._rows(_MAP_LOOKUP_AND_DELETE_BATCH)

    def _element(self, command: int, key: bytes, value: bytearray | None, flags: int = 0) -> int:
        key_buffer = ctypes.create_string_buffer(key, self.key_size)
        value_at = ctypes.addressof((ctypes.c_char * len(value)).from_buffer(value)) if value is not None else 0
        return _bpf(command, _ElementAttr(self.fd, ctypes.addressof(key_buffer), value_at, flags))

    def _rows(self, command: int) -> Rows:
        """Return the entries of a hash map, in batches since Linux 5.6, else one by one."""
        size = _BATCH
        keys, values = bytearray(), bytearray()
        token = ctypes.create_string_buffer(max(8, self.key_size))
        begun = False
        while True:
            key_room = (ctypes.c_char * (size * self.key_size))()
            value_room = (ctypes.c_char * (size * self.value_size))()
            token_at = ctypes.addressof(token)
            rooms = ctypes.addressof(key_room), ctypes.addressof(value_room)
            attr = _BatchAttr(token_at if begun else 0, token_at, *rooms, size, self.fd)
            error = _bpf(command, attr)
            if error in _NO_BATCH and not begun:
                return self._one_by_one(delete=command == _MAP_LOOKUP_AND_DELETE_BATCH)
            if error == errno.ENOSPC:  # a bucket of the hash has more entries than the buffers
                size *= 2
                continue
            if error != errno.ENOENT:
                _check(error, "bpf map batch")
            keys += memoryview(key_room)[: attr.count * self.key_size]
            values += memoryview(value_room)[: attr.count * self.value_size]
            if error == errno.ENOENT:
                return self._split(keys, values)
            begun = True

    def _one_by_one(self, *, delete: bool) -> Rows:
        keys, values = bytearray(), bytearray()
        here = None
        key = ctypes.create_string_buffer(self.key_size)
        while True:
            at = ctypes.addressof(here) if here is not None else 0
            error = _bpf(_MAP_GET_NEXT_KEY, _ElementAttr(self.fd, at, ctypes.addressof(key), 0))
            if error == errno.ENOENT:
                return self._split(keys, values)
            _check(error, "bpf map next key")
            value = self.lookup(key.raw)
            if value is not None:
                keys += key.raw
                values += value
            if delete:  # then the next key is again the first
                self.delete(key.raw)
            else:
                here = ctypes.create_string_buffer(key.raw, self.key_size)

    def _split(self, keys: bytearray, values: bytearray) -> Rows:
        size = self.key_size
        return Rows([bytes(keys[at : at + size]) for at in range(0, len(keys), size)], memoryview(values), self.value_size)


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """Statistics of a program. `run_ns` and `runs` do not grow while `kernel.bpf_stats_enabled` is 0."""

    name: str
    run_ns: int
    runs: int
    misses: int
    """Runs that the kernel skipped; 0 before Linux 5.12, which does not report them."""
    instructions: int
    """Instructions verified; 0 before Linux 5.16, which does not report them."""
    jited_bytes: int


def program_info(fd: int) -> ProgramInfo:
    """Return the statistics of the program `fd` (struct bpf_prog_info). Raises `OSError`."""
    info = ctypes.create_string_buffer(232)
    _check(_bpf(_OBJ_GET_INFO_BY_FD, _InfoAttr(fd, len(info), ctypes.addressof(info))), "bpf program info")
    jited_bytes = struct.unpack_from("=I", info, 16)[0]
    name = struct.unpack_from("=16s", info, 64)[0].split(b"\0", 1)[0].decode()
    run_ns, runs, misses, instructions = struct.unpack_from("=QQQI", info, 192)
    return ProgramInfo(name, run_ns, runs, misses, instructions, jited_bytes)


def map_memory(fd: int) -> int:
    """Return the kernel memory of the map `fd`, in bytes, from /proc/self/fdinfo (kernel/bpf/syscall.c, bpf_map_show_fdinfo)."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "memlock":
            return int(value)
    return 0


def possible_cpus() -> int:
    """Return the number of values in a per-CPU map: /sys/devices/system/cpu/possible, a list of ranges."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    ends = (part.partition("-") for part in text.split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)
