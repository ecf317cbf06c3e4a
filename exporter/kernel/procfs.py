"""Reads `/proc` cheaply: as bytes, one read(2) for each file, with failures as values.

Formats: proc_pid_stat(5), proc_pid_status(5), proc_stat(5), proc_loadavg(5), pid_namespaces(7), cgroups(7).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from exporter.model import KERNEL_THREADS, NS, Lost
from exporter.model.arguments import MOST_BYTES, Arguments, first

T = TypeVar("T")

INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of its file in /proc: `PROC_PID_INIT_INO` in include/linux/proc_ns.h."""
PF_KTHREAD = 0x200000
"""Flag of kernel threads: include/linux/sched.h."""
PF_EXITING = 0x4
"""Flag of exiting tasks and zombies: include/linux/sched.h."""
RESERVED_PIDS = 300
"""First PID after `pid_max` is reached: kernel/pid.c."""

_STAT_BYTES = 2048
_CGROUP_BYTES = 16384
_CHUNK_BYTES = 65536
_VANISHED = frozenset({errno.ENOENT, errno.ESRCH, errno.ENOTDIR})


class Stat(NamedTuple):
    """The fields of `/proc/PID/stat` that are used. A tick is `Procfs.tick_ns`; the start is counted from boot."""

    pid: int
    comm: bytes
    state: bytes
    ppid: int
    threads: int
    start_ticks: int
    cpu_ticks: int
    exiting: bool = False
    """Whether the thread group leader is exiting or a zombie."""

    @property
    def ended(self) -> bool:
        """Return whether the process has exited and is not reaped. A leader can be a zombie while its threads run."""
        return self.state in {b"Z", b"X"} and self.threads <= 1


def parse_stat(data: bytes) -> Stat:
    """Parse `/proc/PID/stat`. A comm can contain any byte but NUL, so it ends at the last `)`. Raises `ValueError`."""
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
    """Return the thread group id in `/proc/PID/status`. Raises `ValueError`."""
    return int(data[data.index(b"\nTgid:") + 6 :].partition(b"\n")[0])


def parse_cgroup(data: bytes, hierarchy_id: int) -> bytes:
    """Return the path in one hierarchy, from `/proc/PID/cgroup`; see cgroups(7). Raises `ValueError` if it is missing or cut."""
    at = (b"\n" + data).index(b"\n%d:" % hierarchy_id)
    _, _, path = data[at : data.index(b"\n", at)].split(b":", 2)
    return path.removesuffix(b" (deleted)")


class Procfs:
    """A procfs mount. Processes that exit or cannot be read are values, not exceptions."""

    def __init__(self, root: str = "/proc") -> None:
        """Use the mount at `root`. It is first accessed by the first read."""
        self.root = root
        self.tick_ns = NS // os.sysconf("SC_CLK_TCK")
        self.host_cpus: int | None = None
        """Online CPUs, as of the last `kernel_clones`, which reads the same file."""
        self._prefix = os.fsencode(root) + b"/"
        self._last_pid_fd: int | None = None
        self._last_pid_field = 0

    def close(self) -> None:
        """Close the file that is kept open between reads. May be called twice; a later read opens it again."""
        if self._last_pid_fd is not None:
            os.close(self._last_pid_fd)
            self._last_pid_fd = None

    def pids(self) -> list[int]:
        """Return the PIDs of all processes. Raises `OSError`."""
        return [int(name) for name in os.listdir(self._prefix) if name.isdigit()]  # noqa: PTH208 (no pathlib on the hot path)

    def stat(self, pid: int) -> Stat | Lost:
        """Read `/proc/PID/stat` of a process or, by its TID, of a thread."""
        return self._read(b"%d/stat" % pid, parse_stat)

    def comm(self, pid: int) -> bytes | None:
        """Read the comm of a process or, by its TID, of a thread; `None` if that fails."""
        comm = self._read(b"%d/comm" % pid, lambda data: data[:-1])
        return None if isinstance(comm, Lost) else comm

    def cgroup(self, pid: int, hierarchy_id: int) -> bytes | None:
        """Read the path of a process in one hierarchy of cgroups, whose number is as in `/proc/cgroups`, 0 for v2; `None` if that fails."""
        path = self._read(b"%d/cgroup" % pid, lambda data: parse_cgroup(data, hierarchy_id), _CGROUP_BYTES)
        return None if isinstance(path, Lost) else path

    def arguments(self, pid: int) -> Arguments | None:
        """Read the arguments of a process; `None` if that fails, or if it has none: then it has exited, or is a kernel thread."""
        data = self._read(b"%d/cmdline" % pid, bytes, MOST_BYTES + 1)
        return None if isinstance(data, Lost) else first(data, len(data))

    def owner(self, pid: int) -> int | None:
        """Return the effective user ID of a process, which its directory belongs to; `None` if that fails."""
        try:
            return os.stat(self._prefix + b"%d" % pid).st_uid  # noqa: PTH116
        except OSError:
            return None

    def tgid(self, pid: int) -> int | Lost:
        """Read the process id (thread group id) of a PID or TID."""
        return self._read(b"%d/status" % pid, parse_tgid)

    def kernel_clones(self) -> int | None:
        """Read the number of clones since boot (`processes` in `/proc/stat`), threads included; `None` if that fails."""
        try:
            fd = os.open(self._prefix + b"stat", os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = b""
                while chunk := os.read(fd, _CHUNK_BYTES):  # the line of interrupts can be long
                    data += chunk
            finally:
                os.close(fd)
            self.host_cpus = data.count(b"\ncpu") or None  # `cpu0`, `cpu1`, ...; the first line, `cpu`, is the sum
            return int(data[data.index(b"\nprocesses ") + 11 :].partition(b"\n")[0])
        except (OSError, ValueError):
            return None

    def last_pid(self) -> int | None:
        """Read the last allocated PID or TID of our PID namespace; `None` if that fails."""
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
        """Read the exclusive upper limit of PIDs; the maximum of the kernel if that fails."""
        limit = self._read(b"sys/kernel/pid_max", int)
        return 1 << 22 if isinstance(limit, Lost) else limit

    def has_our_pids(self) -> bool:
        """Return whether this mount shows our PID namespace. The host's `/proc`, mounted in a container, does not."""
        try:
            return str(Path(self.root, "self").readlink()) == str(os.getpid())
        except OSError:
            return False

    def in_initial_pid_namespace(self) -> bool:
        """Return whether this process is in the host's PID namespace, whose clones the kernel counts."""
        try:
            return self.has_our_pids() and Path(self.root, "self/ns/pid").stat().st_ino == INITIAL_PID_NAMESPACE
        except OSError:
            return False

    def _read(self, path: bytes, parse: Callable[[bytes], T], most_bytes: int = _STAT_BYTES) -> T | Lost:
        lost = Lost.VANISHED
        for _ in range(2):  # retry: the process may have called exec or been replaced between open and read
            try:
                fd = os.open(self._prefix + path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                return _cause(error)
            try:
                data = os.read(fd, most_bytes)
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
