"""The cgroup of a process, from `/proc`, for the modes in which the kernel does not report it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from exporter.kernel.cgroups import Hierarchy, hierarchy
from exporter.kernel.procfs import Procfs, Stat, parse_cgroup

INITIAL_CGROUP_NAMESPACE = 0xEFFFFFFB
"""Inode of its file in /proc: `PROC_CGROUP_INIT_INO` in include/linux/proc_ns.h."""
_MAX_PATHS = 4096
_MAX_FOLDERS = 20_000


class ProcessCgroups:
    """Reads paths below the root of the hierarchy by which processes are attributed, as `Cgroups` has them."""

    def __init__(self, procfs: Procfs, of: Hierarchy | None = None, own: str = "/proc/self") -> None:
        """`of` is the hierarchy, by default that of the host; `own` is our own directory in `/proc`."""
        self._procfs = procfs
        self._hierarchy = of
        self._own = Path(own)
        self._namespace: list[str] | None = None
        """Where our cgroup namespace begins, by component; None if the namespace is the host's."""
        self._paths: dict[bytes, bytes] = {}

    def path(self, pid: int) -> bytes:
        """Return the path of the cgroup of a process; empty if unknown."""
        of = self._hierarchy or self._begin()
        path = self._procfs.cgroup(pid, of.id)
        if path is None or (path == b"/" and of.is_pids and self._is_exiting(pid)):
            return b""
        if self._namespace is not None:
            path = _resolved(self._namespace, path)
        if len(self._paths) >= _MAX_PATHS:
            self._paths.clear()
        return self._paths.setdefault(path, path)  # many processes share one path

    def _is_exiting(self, pid: int) -> bool:
        """Return whether a process exits: then v1 says that it is in the root (kernel/cgroup/cgroup.c, proc_cgroup_show())."""
        stat = self._procfs.stat(pid)
        return not isinstance(stat, Stat) or stat.exiting

    def _begin(self) -> Hierarchy:
        try:
            self._hierarchy = hierarchy()
            if (self._own / "ns/cgroup").stat().st_ino != INITIAL_CGROUP_NAMESPACE:
                self._namespace = self._find_namespace(self._hierarchy)
        except (OSError, ValueError):  # no cgroups, or no namespaces of them (before Linux 4.6)
            self._hierarchy = self._hierarchy or Hierarchy("", is_pids=False, id=0)
        return self._hierarchy

    def _find_namespace(self, of: Hierarchy) -> list[str]:
        """Return the components of the path where our namespace begins; those that can't be known are empty."""
        ours = parse_cgroup((self._own / "cgroup").read_bytes(), of.id)
        if ours == b"/" and (path := _folder_of(os.getpid(), of.root)):
            return path.split("/")[1:]
        init = os.fsdecode(self._procfs.cgroup(1, of.id) or b"")
        return [""] * init.split("/").count("..")


def _resolved(namespace: list[str], path: bytes) -> bytes:
    """Return a path as the host has it. In a namespace it has `/..` for each level above the namespace's root (cgroup_namespaces(7))."""
    up = 0
    while path == b"/.." or path.startswith(b"/../"):
        path, up = path[3:], up + 1
    above = namespace[: max(0, len(namespace) - up)]
    if not namespace or not all(above):
        return b""
    return b"".join(b"/" + os.fsencode(each) for each in above) + path.removesuffix(b"/") or b"/"


def _folder_of(pid: int, root: str) -> str:
    """Return the path of the cgroup that lists a process, below the mount point of the hierarchy; empty if there is none."""
    folders, found = [root], 0
    while root and folders and found < _MAX_FOLDERS:
        folder, found = folders.pop(), found + 1
        with contextlib.suppress(OSError):  # a threaded cgroup
            if str(pid) in Path(folder, "cgroup.procs").read_text(encoding="ascii").split():
                return folder[len(root) :]
        with contextlib.suppress(OSError), os.scandir(folder) as entries:  # removed meanwhile
            folders += (entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    return ""
