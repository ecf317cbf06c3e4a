"""Names of pods and containers from the names of kubelet's log directories and links.

- `/var/log/pods/NAMESPACE_POD_UID/` is created before the pod's first container (kubelet, `BuildPodLogsDirectory`).
- `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` is created after the container has started (`logSymlink`). It is cut at 251
  characters, which may take a part of the id.

Names are enough: no file is opened and no link is followed. inotify(7) reports them also if they are removed before they are read.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from itertools import islice

from exporter.attribution.recent import Recent
from exporter.kernel.inotify import IN_CREATE, IN_IGNORED, IN_MOVED_TO, IN_ONLYDIR, IN_Q_OVERFLOW, Event, Inotify
from exporter.model.owner import ContainerName

PODS = "/var/log/pods"
CONTAINERS = "/var/log/containers"

_MAX_NAMES = 4096
_MAX_LISTED = 8192
_MAX_READS = 32
_DNS = r"([a-z0-9][a-z0-9.-]*)"
_POD = re.compile(rf"{_DNS}_{_DNS}_([0-9a-f-]{{32,36}})")
_LINK = re.compile(rf"{_DNS}_{_DNS}_([a-z0-9-]+)-([0-9a-f]{{12,64}})\.log")
_SHORT_ID = 12


class PodLogs:
    """The names seen so far, at most 4,096 pods and as many containers. Only `read` and `close` use the file system."""

    def __init__(self, pods: str = PODS, containers: str = CONTAINERS) -> None:
        """Watch and list both directories; one that is missing or cannot be read is tried again by `read`."""
        self._pods: Recent[str, tuple[str, str]] = Recent(_MAX_NAMES)
        self._containers: Recent[str, tuple[str, ContainerName]] = Recent(_MAX_NAMES)
        """By the first 12 digits of the id, with all that is known of it."""
        self._inotify: Inotify | None = None
        with contextlib.suppress(OSError):  # without, the directories are listed at each `read`
            self._inotify = Inotify()
        self._directories = (pods, containers)
        self._watches: dict[int, str] = {}
        self.add(self.read())

    def find(self, container_id: str, pod_uid: str) -> ContainerName:
        """Return what is known about a container, a pod (without id), or a container in a pod."""
        namespace, pod = self._pods.get(pod_uid) or (None, None)
        known, name = self._containers.get(container_id[:_SHORT_ID]) or ("", ContainerName())
        if not known or not container_id.startswith(known):
            name = ContainerName()
        return ContainerName(namespace or name.namespace, pod or name.pod, name.container)

    def add(self, names: Iterable[str]) -> None:
        """Add what `read` returned."""
        for name in names:
            if match := _POD.fullmatch(name):
                self._pods.put(match[3], (match[1], match[2]))
            elif match := _LINK.fullmatch(name):
                pod, namespace, container, container_id = match.groups()
                self._containers.put(container_id[:_SHORT_ID], (container_id, ContainerName(namespace, pod, container)))

    def add_pod(self, uid: str, namespace: str, pod: str) -> None:
        """Add a pod that was found elsewhere, so that its other cgroups are known, too."""
        self._pods.put(uid, (namespace, pod))

    def read(self) -> list[str]:
        """Return the names of directories and links that came since the last time. May be called by one thread at a time."""
        names = self._events()
        for path in self._directories:
            if path in self._watches.values():
                continue
            if self._inotify is not None:
                with contextlib.suppress(OSError):  # before the list, so that no name slips between
                    self._watches[self._inotify.watch(path, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR)] = path
            with contextlib.suppress(OSError), os.scandir(path) as entries:
                names += (entry.name for entry in islice(entries, _MAX_LISTED))
        return names

    def close(self) -> None:
        """Close the watches."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _events(self) -> list[str]:
        names: list[str] = []
        for _ in range(_MAX_READS if self._inotify is not None else 0):
            events = self._read_queue()
            if not events:
                break
            for event in events:
                if event.mask & IN_Q_OVERFLOW:
                    self._watches.clear()  # watched and listed again
                elif event.mask & IN_IGNORED:
                    self._watches.pop(event.watch, None)
                else:
                    names.append(os.fsdecode(event.name))
        return names

    def _read_queue(self) -> list[Event]:
        with contextlib.suppress(OSError):
            return list(self._inotify.events()) if self._inotify is not None else []
        return []
