"""From the path of a cgroup to its owner."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, Protocol

from exporter.attribution.paths import MAX_PATH, Place, place
from exporter.attribution.recent import Recent
from exporter.attribution.workloads import workload
from exporter.model.owner import UNKNOWN, ContainerName, Owner

_WAIT_SECONDS = 10.0
_MAX_CACHED = 4096
_SHORT_ID = 12


class Names(Protocol):
    """A source of the names of containers."""

    def find(self, container_id: str, pod_uid: str) -> ContainerName:
        """Return what is known by now, without blocking. Both keys may be empty."""


class Owners:
    """Owners by path. At most 4,096 paths are remembered, those used most recently. Not safe for concurrent use."""

    def __init__(self, pods: Literal["pod", "workload", "none"], names: Names, now: Callable[[], float] = time.monotonic) -> None:
        """`pods`: whether the label `pod` has the pod, its workload, or is empty."""
        self._pods = pods
        self._names = names
        self._now = now
        self._owners: Recent[bytes, Owner] = Recent(_MAX_CACHED)
        self._waiting: Recent[bytes, tuple[float, Place]] = Recent(_MAX_CACHED)

    def owner(self, path: bytes) -> Owner | None:
        """Return the owner of a cgroup, or None while the name of its container or pod is not known: ask again later.

        10 s after the first call, the best that is known is returned, and stays. A container without a name has the first 12 digits of its
        id. In a pod it has no name: its pod says enough, and ids have no end (the container that holds the sandbox has no log).
        """
        owner, stays = self.so_far(path)
        return owner if stays else None

    def so_far(self, path: bytes) -> tuple[Owner, bool]:
        """Return what is known about the owner by now, and whether it stays. Names that are not known yet are empty."""
        if not path:
            return UNKNOWN, True
        path = path[:MAX_PATH]
        if (known := self._owners.get(path)) is not None:
            return known, True
        since, placed = self._waiting.get(path) or (self._now(), place(path))
        if not placed.container_id and not placed.pod_uid:
            self._owners.put(path, placed.owner)
            return placed.owner, True
        name = self._names.find(placed.container_id, placed.pod_uid)
        missing = (placed.pod_uid and name.pod is None) or (placed.container_id and name.container is None)
        if missing and self._now() - since < _WAIT_SECONDS:
            self._waiting.put(path, (since, placed))
            return self._named(placed, name._replace(container=name.container or "")), False
        self._waiting.pop(path)
        owner = self._named(placed, name)
        self._owners.put(path, owner)
        return owner, True

    def _named(self, placed: Place, name: ContainerName) -> Owner:
        container = name.container
        if container is None:
            container = "" if name.pod else placed.container_id[:_SHORT_ID]
        kind = "pod" if name.pod else placed.owner.kind
        return Owner(kind, "", name.namespace or "", self._pod(name.pod or "", placed.pod_uid), container)

    def _pod(self, pod: str, uid: str) -> str:
        if self._pods == "none":
            return ""
        static = uid and "-" not in uid  # kubelet names it: the name in its manifest, and the node
        return pod if self._pods == "pod" or static or not pod else workload(pod)
