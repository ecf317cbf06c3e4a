"""Paths of cgroups by the id in records: since Linux 5.5 the inode of the cgroup's directory (fs/kernfs)."""

from __future__ import annotations

import os
import time

_ROOT = "/sys/fs/cgroup"
_HYBRID_ROOT = "/sys/fs/cgroup/unified"
"""Mount point of cgroup v2 if systemd also uses v1."""
_SCAN_INTERVAL_SECONDS = 5.0
_MAX_PATHS = 20_000


class Cgroups:
    """Maps cgroup ids to paths. An unknown id causes a scan of the hierarchy, at most every 5 s."""

    def __init__(self, root: str | None = None) -> None:
        self._root = root or (_HYBRID_ROOT if os.path.isdir(_HYBRID_ROOT) else _ROOT)  # noqa: PTH112
        self._paths: dict[int, bytes] = {}
        self._scanned_at = -_SCAN_INTERVAL_SECONDS

    def path(self, cgroup_id: int) -> bytes:
        """Return the path below the root of the hierarchy, e.g. `/system.slice/cron.service`; empty if unknown."""
        path = self._paths.get(cgroup_id)
        if path is None and time.monotonic() - self._scanned_at >= _SCAN_INTERVAL_SECONDS:
            self._scan()
            path = self._paths.get(cgroup_id)
        return path or b""

    def _scan(self) -> None:
        self._scanned_at = time.monotonic()
        paths: dict[int, bytes] = {}
        folders = [os.fsencode(self._root)]
        while folders and len(paths) < _MAX_PATHS:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    folders += (entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
                paths[os.stat(folder).st_ino] = folder[len(self._root) :] or b"/"  # noqa: PTH116
            except OSError:  # removed meanwhile
                continue
        self._paths = paths
