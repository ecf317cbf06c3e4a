"""Names of containers from the state of container runtimes, which only root can read.

Read by id, from fixed places, without following links below them:

- Docker: `Name` in `containers/ID/config.v2.json` (moby, `daemon/container/container.go`, `toDisk`), from its creation to its removal;
  swarm's service from its labels. With `userns-remap`, `UID.GID/containers` (`daemon/daemon_unix.go`, `setupDaemonRoot`).
- Podman and CRI-O: `names` in `OVERLAY-containers/{containers,volatile-containers}.json` (containers/storage, `containers.go`: `--rm` and
  all of CRI-O are volatile, which with `transient_store` are in the run root; CRI-O, `internal/storage/runtime.go`).
- containerd: annotations in `io.containerd.runtime.v2.task/NAMESPACE/ID/config.json` (containerd, `core/runtime/v2/bundle.go` and
  `internal/cri/annotations`; nerdctl, `pkg/labels`), from before its start to its exit.

In a pod, Docker and CRI-O name a container `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`; the one that holds the sandbox is called `POD`
(cri-dockerd, `core/naming.go`, which adds `_RANDOM` if the name is in use; CRI-O, `internal/factory/container` and `server/naming.go`).
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from typing import Any

from exporter.model.owner import ContainerName

MAX_IDS = 32
CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
_BUDGET_SECONDS = 2.0
_MAX_CONFIG = 1 << 20
_MAX_STORE = 4 << 20
_MAX_NAMESPACES = 32
_MAX_STORED = 4096
_MAX_NAME = 255
_MAX_ANSWER = 30_000

_DOCKER = ("/var/lib/docker", "/var/snap/docker/common/var-lib-docker")
_REMAPPED = re.compile(r"[0-9]+\.[0-9]+")
_STORES = ("/var/lib/containers/storage", "/run/containers/storage")
_STORE_DRIVERS = ("overlay", "vfs", "btrfs", "zfs")
_STORE_FILES = ("containers.json", "volatile-containers.json")
_CONTAINERD = tuple(
    f"{root}/io.containerd.runtime.v2.task"
    for root in ("/run/containerd", "/run/k3s/containerd", "/run/k0s/containerd", "/var/snap/microk8s/common/run/containerd")
)
_SANDBOX = "POD"


class ContainerState:
    """Reads the state of all runtimes of the host; `root` is where the file system of the host is mounted."""

    def __init__(self, root: str = "") -> None:
        self._root = root
        self._stores: dict[str, tuple[tuple[int, int, int], dict[str, ContainerName]]] = {}

    def names(self, ids: Iterable[str]) -> dict[str, ContainerName]:
        """Return the names that are known, by id. What is not an id is ignored, as are ids after the 32nd and all after 2 s."""
        deadline = time.monotonic() + _BUDGET_SECONDS
        found: dict[str, ContainerName] = {}
        stored = self.stored()
        for container_id in list(ids)[:MAX_IDS]:
            if not isinstance(container_id, str) or not CONTAINER_ID.fullmatch(container_id):
                continue
            if time.monotonic() > deadline:
                break
            name = stored.get(container_id) or self._docker(container_id) or self._containerd(container_id)
            if name is not None:
                found[container_id] = name
        return found

    def answer(self, ids: Iterable[str]) -> bytes:
        """Return as many names as fit into a message of the broker; the others are asked for again."""
        fitting: dict[str, ContainerName] = {}
        left = _MAX_ANSWER
        for container_id, name in self.names(ids).items():
            left -= len(json.dumps([container_id, name]))
            if left < 0:
                break
            fitting[container_id] = name
        return json.dumps({"log": [], "containers": fitting}).encode()

    def folders(self) -> list[str]:
        """Return the directories where Docker and containerd make one for each container, and for each namespace of containerd."""
        bases = [self._root + base for base in _CONTAINERD]
        return [*self._dockers(), *bases, *(f"{base}/{namespace}" for base in bases for namespace in _names_in(base))]

    def stores(self) -> list[str]:
        """Return the directories with the files of Podman and CRI-O."""
        return [f"{self._root}{store}/{driver}-containers" for store in _STORES for driver in _STORE_DRIVERS]

    def _dockers(self) -> Iterator[str]:
        for root in (self._root + root for root in _DOCKER):
            yield f"{root}/containers"
            yield from (f"{root}/{name}/containers" for name in _names_in(root) if _REMAPPED.fullmatch(name))

    def _docker(self, container_id: str) -> ContainerName | None:
        for base in self._dockers():
            config = _json(_read(base, container_id, "config.v2.json"))
            labels = _dict(_dict(config.get("Config")).get("Labels"))
            if name := _from_name(labels.get("com.docker.swarm.service.name") or _text(config.get("Name")).removeprefix("/")):
                return name
        return None

    def _containerd(self, container_id: str) -> ContainerName | None:
        for base in _CONTAINERD:
            for namespace in _names_in(self._root + base):
                annotations = _dict(_json(_read(self._root + base, namespace, container_id, "config.json")).get("annotations"))
                if not annotations:
                    continue
                pod = _text(annotations.get("io.kubernetes.cri.sandbox-name"))
                if pod:
                    in_namespace = _text(annotations.get("io.kubernetes.cri.sandbox-namespace"))
                    return ContainerName(in_namespace, pod, _text(annotations.get("io.kubernetes.cri.container-name")))
                return _from_name(annotations.get("nerdctl/name"))
        return None

    def stored(self) -> dict[str, ContainerName]:
        """Return the names in the stores of Podman and CRI-O. A file that did not change is not read again."""
        names: dict[str, ContainerName] = {}
        for base in self.stores():
            for file in _STORE_FILES:
                names |= self._store(base, file)
        return names

    def _store(self, base: str, file: str) -> dict[str, ContainerName]:
        path = f"{base}/{file}"
        try:
            status = os.stat(path, follow_symlinks=False)  # noqa: PTH116
        except OSError:
            self._stores.pop(path, None)
            return {}
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        cached = self._stores.get(path)
        if cached is None or cached[0] != version:
            cached = version, _store_names(_read(base, file, limit=_MAX_STORE))
            self._stores[path] = cached
        return cached[1]


def _store_names(content: bytes) -> dict[str, ContainerName]:
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    names: dict[str, ContainerName] = {}
    for entry in entries[-_MAX_STORED:] if isinstance(entries, list) else []:
        container_id, given = _text(_dict(entry).get("id")), _dict(entry).get("names")
        name = _from_name(given[0]) if isinstance(given, list) and given else None
        if CONTAINER_ID.fullmatch(container_id) and name is not None:
            names[container_id] = name
    return names


def _from_name(name: object) -> ContainerName | None:
    text = _text(name)
    if not text:
        return None
    parts = text.split("_")
    if parts[0] == "k8s" and len(parts) in (6, 7):
        return ContainerName(parts[3], parts[2], "" if parts[1] == _SANDBOX else parts[1])
    return ContainerName(container=text)


def _names_in(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry, _ in zip(entries, range(_MAX_NAMESPACES), strict=False)]
    except OSError:
        return []


def _read(base: str, *parts: str, limit: int = _MAX_CONFIG) -> bytes:
    """Return the content of a regular file, or nothing if it is missing, too large, or reached by a link below `base`."""
    opened: list[int] = []
    try:
        opened.append(os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        for folder in parts[:-1]:
            opened.append(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened[-1]))
        opened.append(os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=opened[-1]))
        status = os.fstat(opened[-1])
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            return b""
        content = os.read(opened[-1], limit + 1)
    except OSError:
        return b""
    finally:
        for fd in opened:
            os.close(fd)
    return content if len(content) <= limit else b""


def _json(content: bytes) -> dict[str, Any]:
    try:
        return _dict(json.loads(content)) if content else {}
    except (ValueError, RecursionError):
        return {}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value[:_MAX_NAME] if isinstance(value, str) else ""
