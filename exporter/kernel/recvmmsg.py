"""Reads many datagrams with one system call, recvmmsg(2), into preallocated memory. Python has no binding for it."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from ctypes import c_int, c_size_t, c_uint, c_void_p
from struct import Struct

SO_RCVBUFFORCE = 33
"""Exceeds `net.core.rmem_max`, with CAP_NET_ADMIN: include/uapi/asm-generic/socket.h."""


class _Iovec(ctypes.Structure):
    _fields_ = (("base", c_void_p), ("len", c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", c_void_p),
        ("namelen", c_uint),
        ("iov", c_void_p),
        ("iovlen", c_size_t),
        ("control", c_void_p),
        ("controllen", c_size_t),
        ("flags", c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("hdr", _Msghdr), ("len", c_uint))


_LEN = Struct(f"={ctypes.sizeof(_Msghdr)}xI{ctypes.sizeof(_Mmsghdr) - ctypes.sizeof(_Msghdr) - 4}x")


class Datagrams:
    """Slots of equal size for datagrams. Bytes after the end of a datagram are left over from earlier ones."""

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._memory = bytearray(slots * slot_bytes)
        self.view = memoryview(self._memory)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._iovecs = (_Iovec * slots)()
        self._headers = (_Mmsghdr * slots)()
        for i, (iovec, header) in enumerate(zip(self._iovecs, self._headers, strict=True)):
            iovec.base, iovec.len = start + i * slot_bytes, slot_bytes
            header.hdr.iov, header.hdr.iovlen = ctypes.addressof(iovec), 1
        self._lengths = memoryview(self._headers).cast("B")
        self._recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg

    def read(self, sock: socket.socket) -> list[int]:
        """Fill the slots without waiting, and return the sizes of the datagrams in bytes. Raises `OSError`."""
        n = self._recvmmsg(sock.fileno(), self._headers, self.slots, socket.MSG_DONTWAIT, None)
        if n < 0:
            code = ctypes.get_errno()
            if code in {errno.EAGAIN, errno.EINTR}:
                return []
            raise OSError(code, os.strerror(code))
        return [size for (size,) in _LEN.iter_unpack(self._lengths[: n * ctypes.sizeof(_Mmsghdr)])]


def widen(sock: socket.socket, wanted: int) -> int:
    """Enlarge the receive buffer up to `wanted` bytes, as far as permitted. Returns its size in bytes, as the kernel counts it."""
    for option in (SO_RCVBUFFORCE, socket.SO_RCVBUF):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, wanted // 2)  # the kernel doubles it
            break
        except OSError:
            continue
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
