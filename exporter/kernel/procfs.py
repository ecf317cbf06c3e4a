"""Reading `/proc` often and cheaply: bytes, one read for a file, and a failure is a value.

What is read and how it is laid out: proc_pid_stat(5), proc_pid_status(5), proc_stat(5), proc_loadavg(5), pid_namespaces(7).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from exporter.model import KERNEL_THREADS, NS, Lost

T = TypeVar("T")

INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Its inode: `PROC_PID_INIT_INO` of include/linux/proc_ns.h."""
PF_KTHREAD = 0x200000
"""The flag of kernel threads, include/linux/sched.h."""
PF_EXITING = 0x4
"""The flag of tasks that are on their way out, and of zombies."""
RESERVED_PIDS = 300
"""Where PIDs start again after `pid_max`: kernel/pid.c."""

_STAT_BYTES = 2048
_CHUNK_BYTES = 65536
_VANISHED = frozenset({errno.ENOENT, errno.ESRCH, errno.ENOTDIR})


class Stat(NamedTuple):
    """`/proc/PID/stat`, as far as it is used. Ticks are `Procfs.tick_ns` long; the start is counted from boot."""

    pid: int
    comm: bytes
    state: bytes
    ppid: int
    threads: int
    start_ticks: int
    cpu_ticks: int
    exiting: bool = False
    """Whether the leader has begun to exit; a zombie has."""

    @property
    def ended(self) -> bool:
        """Whether the whole process has exited and only waits to be reaped; a leader may be a zombie while its threads live on."""
        return self.state in {b"Z", b"X"} and self.threads <= 1


def parse_stat(data: bytes) -> Stat:
    """Parse `/proc/PID/stat`. A comm may hold any byte but NUL, so it ends at the last `)`. Raises `ValueError`."""
    opening, closing = data.index(b"("), data.rindex(b")")
    fields = data[closing + 2 :].split(b" ", 20)
    if len(fields) < 20:
        raise ValueError("too few fields in /proc/PID/stat")
    return Stat(
        pid=int(data[:opening]),
        comm=KERNEL_THREADS if int(fields[6]) & PF_KTHREAD else data[opening + 1 : closing],
        state=fields[0],
        ppid=int(fields[1]),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        exiting=bool(int(fields[6]) & PF_EXITING),
    )


def parse_tgid(data: bytes) -> int:
    """Find the thread group in `/proc/PID/status`. Raises `ValueError`."""
    return int(data[data.index(b"\nTgid:") + 6 :].partition(b"\n")[0])


class Procfs:
    """One procfs mount. Nothing in it raises for what a process does: it came, went or hid."""

    def __init__(self, root: str = "/proc") -> None:
        """Use the mount at `root`, which is not touched before the first read."""
        self.root = root
        self.tick_ns = NS // os.sysconf("SC_CLK_TCK")
        self.host_cpus: int | None = None
        """CPUs online, as of the last `kernel_clones`, which reads the same file."""
        self._prefix = os.fsencode(root) + b"/"
        self._last_pid_fd: int | None = None
        self._last_pid_field = 0

    def close(self) -> None:
        """Close what is kept open between reads. May be called twice; a later read opens it again."""
        if self._last_pid_fd is not None:
            os.close(self._last_pid_fd)
            self._last_pid_fd = None

    def pids(self) -> list[int]:
        """List the processes. Raises `OSError` where the mount can't be listed."""
        return [int(name) for name in os.listdir(self._prefix) if name.isdigit()]  # noqa: PTH208 (no pathlib on the hot path)

    def stat(self, pid: int) -> Stat | Lost:
        """Read what the kernel says of a process, or of a thread by its TID."""
        return self._read(b"%d/stat" % pid, parse_stat)

    def comm(self, pid: int) -> bytes | None:
        """Read the name of a process, or of a thread by its TID; `None` if that fails."""
        comm = self._read(b"%d/comm" % pid, lambda data: data[:-1])
        return None if isinstance(comm, Lost) else comm

    def tgid(self, pid: int) -> int | Lost:
        """Read which process a PID or TID belongs to."""
        return self._read(b"%d/status" % pid, parse_tgid)

    def kernel_clones(self) -> int | None:
        """Read how many processes and threads the host cloned since boot (`processes` of `/proc/stat`); `None` if that fails."""
        try:
            fd = os.open(self._prefix + b"stat", os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = b""
                while chunk := os.read(fd, _CHUNK_BYTES):  # the line of interrupts before it can be long
                    data += chunk
            finally:
                os.close(fd)
            self.host_cpus = data.count(b"\ncpu") or None  # `cpu0` and on; before them, the first line, `cpu`, is of all
            return int(data[data.index(b"\nprocesses ") + 11 :].partition(b"\n")[0])
        except (OSError, ValueError):
            return None

    def last_pid(self) -> int | None:
        """Read the PID or TID given out last in our own PID namespace; `None` if that fails."""
        try:
            if self._last_pid_fd is None:
                self._open_last_pid()
            return int(os.pread(self._last_pid_fd or 0, 128, 0).split()[self._last_pid_field])
        except (OSError, ValueError, IndexError):
            return None

    def _open_last_pid(self) -> None:
        try:
            self._last_pid_fd, self._last_pid_field = os.open(self._prefix + b"sys/kernel/ns_last_pid", os.O_RDONLY | os.O_CLOEXEC), 0
        except OSError:  # kernels without CONFIG_CHECKPOINT_RESTORE
            self._last_pid_fd, self._last_pid_field = os.open(self._prefix + b"loadavg", os.O_RDONLY | os.O_CLOEXEC), 4

    def pid_max(self) -> int:
        """Read what PIDs stay below; without `/proc/sys/kernel/pid_max`, the kernel's own limit."""
        limit = self._read(b"sys/kernel/pid_max", int)
        return 1 << 22 if isinstance(limit, Lost) else limit

    def has_our_pids(self) -> bool:
        """Whether PIDs in this mount are the ones that our own system calls take: not so for a host's `/proc` in a container."""
        try:
            return str(Path(self.root, "self").readlink()) == str(os.getpid())
        except OSError:
            return False

    def in_initial_pid_namespace(self) -> bool:
        """Whether we see the host's processes, which are what the kernel's own count is of."""
        try:
            return self.has_our_pids() and Path(self.root, "self/ns/pid").stat().st_ino == INITIAL_PID_NAMESPACE
        except OSError:
            return False

    def _read(self, path: bytes, parse: Callable[[bytes], T]) -> T | Lost:
        lost = Lost.VANISHED
        for _ in range(2):  # a process that exec'ed or was replaced half-way deserves a second look
            try:
                fd = os.open(self._prefix + path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                return _cause(error)
            try:
                data = os.read(fd, _STAT_BYTES)
                return parse(data)
            except OSError as error:
                lost = _cause(error)
                if lost is not Lost.VANISHED:
                    return lost
            except ValueError:
                lost = Lost.MALFORMED if data else Lost.VANISHED
            finally:
                os.close(fd)
        return lost


def _cause(error: OSError) -> Lost:
    return Lost.VANISHED if error.errno in _VANISHED else Lost.UNREADABLE
