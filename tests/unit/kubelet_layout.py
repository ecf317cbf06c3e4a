"""Pods as kubelet and containerd lay them out: cgroups, log directories and links."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from pathlib import Path

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


@dataclass
class FakePod:
    namespace: str
    name: str
    container: str = "app"
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    id: str = field(default_factory=lambda: random.randbytes(32).hex())

    @property
    def path(self) -> bytes:
        """The cgroup of the container, with the systemd driver."""
        return f"/kubepods.slice/kubepods-burstable.slice/{self.pod_slice}/cri-containerd-{self.id}.scope".encode()

    @property
    def pod_slice(self) -> str:
        return f"kubepods-burstable-pod{self.uid.replace('-', '_')}.slice"

    @property
    def folder(self) -> str:
        return f"{self.namespace}_{self.name}_{self.uid}"

    @property
    def link(self) -> str:
        return f"{self.name}_{self.namespace}_{self.container}-{self.id}"[:251] + ".log"


class FakeLogs:
    """The directories /var/log/pods and /var/log/containers."""

    def __init__(self, folder: Path) -> None:
        self.pods = folder / "pods"
        self.containers = folder / "containers"
        self.pods.mkdir()
        self.containers.mkdir()

    def add(self, pod: FakePod) -> None:
        log = self.pods / pod.folder / pod.container / "0.log"
        log.parent.mkdir(parents=True)
        log.touch()
        (self.containers / pod.link).symlink_to(log)

    def remove(self, pod: FakePod) -> None:
        (self.containers / pod.link).unlink()
        (self.pods / pod.folder / pod.container / "0.log").unlink()
        (self.pods / pod.folder / pod.container).rmdir()
        (self.pods / pod.folder).rmdir()


def deployment_pods(count: int) -> list[FakePod]:
    """Return pods of one deployment for each of ten namespaces."""
    suffixes = ("".join(random.choice(_ALPHABET) for _ in range(5)) for _ in range(count))
    return [FakePod(f"team-{number % 10}", f"web-7d9f8c6b5-{suffix}") for number, suffix in enumerate(suffixes)]
