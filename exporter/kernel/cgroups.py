"""Paths of cgroups by the id that the kernel gives in records: the inode of the folder (fs/kernfs, since Linux 5.5)."""

from __future__ import annotations

import os
import time

_ROOT = "/sys/fs/cgroup"
_HYBRID_ROOT = "/sys/fs/cgroup/unified"
"""Where systemd mounts version 2 beside version 1."""
_SCAN_INTERVAL_SECONDS = 5.0
_MAX_PATHS = 20_000


class Cgroups:
    """Looks folders up when an id is new, at most each 5 s."""

    def __init__(self, root: str | None = None) -> None:
        self._root = root or (_HYBRID_ROOT if os.path.isdir(_HYBRID_ROOT) else _ROOT)  # noqa: PTH112
        self._paths: dict[int, bytes] = {}
        self._scanned_at = -_SCAN_INTERVAL_SECONDS

    def path(self, cgroup_id: int) -> bytes:
        """The path from the root of the hierarchy, such as `/system.slice/cron.service`; empty where it is not known."""
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
            except OSError:  # it has gone
                continue
        self._paths = paths
