"""The owner of a process: what a cgroup's path and the state of the host say about who is responsible for it."""

from __future__ import annotations

from typing import NamedTuple


class Owner(NamedTuple):
    """The labels of the families `shortproc_owner_*`. All of it is text that is harmless to show."""

    kind: str
    """One of service, scope, session, container, pod, machine, system, unknown."""
    unit: str = ""
    """The systemd unit, instances and transient units folded: `getty@.service`, `run-*.scope`."""
    namespace: str = ""
    pod: str = ""
    container: str = ""
    """The name of a container, a container in a pod, or a machine."""

    @property
    def text(self) -> str:
        """Return its unit, `namespace/pod/container`, or if neither has a name the kind."""
        return self.unit or "/".join(filter(None, (self.namespace, self.pod, self.container))) or self.kind


UNKNOWN = Owner("unknown")


class ContainerName(NamedTuple):
    """What is known about a container. None: not known; empty: known to have none."""

    namespace: str | None = None
    pod: str | None = None
    container: str | None = None
