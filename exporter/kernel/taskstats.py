"""Taskstats of the kernel: a message for each exiting thread, with its comm, CPU and exit status.

Layouts: include/uapi/linux/{genetlink,taskstats}.h. Sender: kernel/taskstats.c, kernel/tsacct.c. The message of a task is sent before its
exit event of the proc connector: `do_exit` calls `taskstats_exit`, later `proc_exit_connector`. CPU is as in getrusage(2), but without the
CPU that the exit uses after the message.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from exporter.kernel.recvmmsg import widen
from exporter.model import Lost

NETLINK_GENERIC = 16
GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2
NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 1, 4, 2
CMD_GET, CMD_NEW = 1, 2
REGISTER_CPUMASK, DEREGISTER_CPUMASK = 3, 4
TYPE_PID, TYPE_STATS, TYPE_AGGR_PID = 1, 3, 4
AGROUP = 0x20
"""Bit of `ac_flag`, set for the last thread of a group since version 12."""
AGROUP_VERSION = 12
VERSION_OF_MOVED_FIELDS = 15
"""Version 15 has its new fields between the older ones; version 16 moved them to the end."""

SLOT_BYTES = 4096
"""A message with two `taskstats` (thread and group) has 1.4 KiB in version 16."""
_CPUS = Path("/sys/devices/system/cpu/possible")
_NLMSG = Struct("=IHHII")
_GENL = Struct("=BBH")
_ATTR = Struct("=HH")
_HEAD = _NLMSG.size + _GENL.size
_START = Struct("=IH10xB3x")
"""Fields: length and type of the message, command."""
_STATS = Struct("=H2xIB71x32s8xI4xII8xQQQ")
_STATS_15 = Struct("=H2xIB119x32s8xI4xII8xQQQ")
"""Fields: version, ac_exitcode, ac_flag, ac_comm, ac_uid, ac_pid, ac_ppid, ac_etime, ac_utime, ac_stime."""
_GROUP = Struct("=I4xQ")
"""Fields: ac_tgid and ac_tgetime, since version 12."""
_GROUP_AT, _GROUP_AT_15 = 368, 464


class Stats(NamedTuple):
    """Statistics of an exiting thread."""

    pid: int
    tgid: int
    """0 before version 12."""
    ppid: int
    """Parent of the process at the exit of the thread."""
    comm: bytes
    exit_code: int
    """As in wait(2). Before version 12 only the leader has it."""
    group_dead: bool
    """Whether this is the last thread of its process; false before version 12."""
    uid: int
    elapsed_us: int
    """Since the start of the thread; for the last thread, since the start of its process."""
    cpu_us: int


def decode(message: memoryview, family: int) -> Stats | Lost | None:
    """Decode a message; None if it has another type, `Lost.MALFORMED` if it is malformed. `family` is the id of taskstats."""
    try:
        length, kind, command = _START.unpack_from(message)
        if kind != family or command != CMD_NEW:
            return None
        if length > len(message):
            return Lost.MALFORMED
        found = _attribute(message, _HEAD, length, TYPE_AGGR_PID)
        if found is None:
            return Lost.MALFORMED
        found = _attribute(message, *found, TYPE_STATS)
        if found is None:
            return Lost.MALFORMED
        return _stats(message[: found[1]], found[0])
    except struct.error:
        return Lost.MALFORMED


def _attribute(message: memoryview, at: int, end: int, wanted: int) -> tuple[int, int] | None:
    """Return the start and end of the content of an attribute, or None."""
    while at + 4 <= end:
        length, kind = _ATTR.unpack_from(message, at)
        if length < 4 or at + length > end:
            return None
        if kind & 0x3FFF == wanted:
            return at + 4, at + length
        at += (length + 3) & ~3
    return None


def _stats(message: memoryview, at: int) -> Stats | Lost:
    version, code, flag, comm, uid, pid, ppid, elapsed, utime, stime = _STATS.unpack_from(message, at)
    tgid = 0
    dead = False
    if version >= AGROUP_VERSION:
        group_at = _GROUP_AT
        if version == VERSION_OF_MOVED_FIELDS:
            _, _, _, comm, uid, pid, ppid, elapsed, utime, stime = _STATS_15.unpack_from(message, at)
            group_at = _GROUP_AT_15
        tgid, group_elapsed = _GROUP.unpack_from(message, at + group_at)
        if flag & AGROUP:
            dead, elapsed = True, group_elapsed
    if pid == 0:
        return Lost.MALFORMED
    return Stats(pid, tgid, ppid, comm.partition(b"\0")[0], code, dead, uid, elapsed, utime + stime)


class Registration:
    """A socket that receives the messages of all CPUs."""

    def __init__(self, sock: socket.socket, buffer_bytes: int, family: int) -> None:
        """Adopt a registered socket."""
        self.socket = sock
        self.buffer_bytes = buffer_bytes
        self.family = family
        self._cpus = _CPUS.read_bytes().strip() + b"\0"

    @classmethod
    def open(cls, buffer_bytes: int) -> Registration:
        """Open a socket and register. Raises `OSError`."""
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_GENERIC)
        try:
            sock.bind((0, 0))
            sock.connect((0, 0))
            sock.settimeout(1)
            registration = cls(sock, widen(sock, buffer_bytes), 0)
            registration._register()
        except BaseException:
            sock.close()
            raise
        return registration

    def close(self) -> None:
        """Deregister and close."""
        try:
            self.socket.send(request(self.family, CMD_GET, DEREGISTER_CPUMASK, self._cpus))
        except OSError:
            pass  # fails without the privilege; the kernel removes a closed socket by itself
        finally:
            self.socket.close()

    def _register(self) -> None:
        self.family = self._family()
        self._exchange(request(self.family, CMD_GET, REGISTER_CPUMASK, self._cpus))

    def _family(self) -> int:
        self.socket.send(request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, b"TASKSTATS\0"))
        reply = memoryview(self.socket.recv(SLOT_BYTES))
        _check_ack(reply)
        found = _attribute(reply, _HEAD, len(reply), CTRL_ATTR_FAMILY_ID)
        if found is None:
            raise OSError(errno.EPROTO, "the kernel reports no family id for taskstats")
        family = int.from_bytes(reply[found[0] : found[0] + 2], "little" if _LITTLE else "big")
        _check_ack(memoryview(self.socket.recv(SLOT_BYTES)))  # the acknowledgement
        return family

    def _exchange(self, message: bytes) -> None:
        self.socket.send(message)
        while not _check_ack(memoryview(self.socket.recv(SLOT_BYTES))):
            pass  # messages before the acknowledgement


_LITTLE = Struct("=H").pack(1) == b"\1\0"


def _check_ack(reply: memoryview) -> bool:
    """Return whether `reply` is an acknowledgement. Raises `OSError` if it is an error."""
    _, kind, *_ = _NLMSG.unpack_from(reply)
    if kind != NLMSG_ERROR:
        return False
    code = -Struct("=i").unpack_from(reply, _NLMSG.size)[0]
    if code:
        raise OSError(code, os.strerror(code))
    return True


def request(family: int, command: int, attribute: int, value: bytes) -> bytes:
    """Return a generic netlink request with one attribute, which asks for an acknowledgement."""
    body = _GENL.pack(command, 1, 0) + _ATTR.pack(4 + len(value), attribute) + value + bytes(-len(value) % 4)
    return _NLMSG.pack(_NLMSG.size + len(body), family, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body
