"""Paths of cgroups by their id: since Linux 5.5 the inode of the cgroup's directory (fs/kernfs)."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # modes without BPF need no BPF
    from exporter.kernel.bpf import BpfMap

_SCAN_INTERVAL_SECONDS = 5.0
_MAX_PATHS = 20_000
_MOUNTS = "/proc/self/mountinfo"
_CONTAINERS = ("kubepods", "docker", "libpod_parent", "lxc")
"""How directories of container runtimes begin, at the root of a hierarchy."""


class Hierarchy(NamedTuple):
    """The hierarchy of cgroups by which processes are attributed."""

    root: str
    """Mount point; empty if none is mounted."""
    is_pids: bool
    """Whether it is that of the v1 controller `pids`, not v2."""
    id: int
    """As in /proc/cgroups; 0 for v2."""


def hierarchy(mounts: str = _MOUNTS, controllers: str = "/proc/cgroups") -> Hierarchy:
    """Return v2 if it is mounted. On hosts that mount both, v1 if only that has containers: runtimes may not know v2."""
    v2, pids = _mount_points(mounts)
    if pids and (not v2 or (_has_containers(pids) and not _has_containers(v2))):
        return Hierarchy(pids, is_pids=True, id=_pids_id(controllers))
    return Hierarchy(v2, is_pids=False, id=0)


class Cgroups:
    """Maps cgroup ids to paths. An unknown id causes a scan of the hierarchy, at most every 5 s."""

    def __init__(self, root: str | None = None, paths: BpfMap | None = None) -> None:
        """`root` is the mount point of the hierarchy; `paths` is the map to which the kernel adds each cgroup when it is made."""
        self._root = hierarchy().root if root is None else root
        self._from_kernel = paths
        self._paths: OrderedDict[int, bytes] = OrderedDict()
        self._scanned_at = -_SCAN_INTERVAL_SECONDS

    def path(self, cgroup_id: int) -> bytes:
        """Return the path below the root of the hierarchy, e.g. `/system.slice/cron.service`; empty if unknown."""
        if not cgroup_id:
            return b""
        path = self._paths.get(cgroup_id)
        if path is None:
            path = self._path_from_kernel(cgroup_id)
            if path is None and time.monotonic() - self._scanned_at >= _SCAN_INTERVAL_SECONDS:
                self._scan()
                path = self._paths.get(cgroup_id)
        return path or b""

    def _path_from_kernel(self, cgroup_id: int) -> bytes | None:
        if self._from_kernel is None:
            return None
        value = self._from_kernel.lookup(cgroup_id.to_bytes(8, "little"))
        path, end, _ = bytes(value or b"").partition(b"\0")
        if not path or not end or len(path) == len(value or b"") - 1:  # it may be cut
            return None
        self._keep(cgroup_id, path)
        return path

    def _scan(self) -> None:
        self._scanned_at = time.monotonic()
        if not self._root:
            return
        folders, found = [os.fsencode(self._root)], 0
        while folders and found < _MAX_PATHS:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    folders += (entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
                self._keep(os.stat(folder).st_ino, folder[len(self._root) :] or b"/")  # noqa: PTH116
                found += 1
            except OSError:  # removed meanwhile
                continue

    def _keep(self, cgroup_id: int, path: bytes) -> None:
        self._paths[cgroup_id] = path
        self._paths.move_to_end(cgroup_id)
        if len(self._paths) > _MAX_PATHS:
            self._paths.popitem(last=False)


def _mount_points(mounts: str) -> tuple[str, str]:
    """Return the mount points of v2 and of the v1 controller `pids`; empty where there is none."""
    v2 = pids = ""
    for line in Path(mounts).read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        point, kind, options = before.split()[4], *after.split(" ")[::2]
        if kind == "cgroup2" and not v2:
            v2 = point
        elif kind == "cgroup" and not pids and "pids" in options.split(","):
            pids = point
    return v2, pids


def _has_containers(root: str) -> bool:
    try:
        with os.scandir(root) as entries:
            return any(entry.name.startswith(_CONTAINERS) for entry in entries)
    except OSError:
        return False


def _pids_id(controllers: str) -> int:
    for line in Path(controllers).read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition("\t")
        if name == "pids":
            return int(rest.split()[0])
    return 0
