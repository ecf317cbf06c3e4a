r"""What the path of a cgroup says about its owner.

All patterns begin at the root of the hierarchy: users can create cgroups with any name below `user@UID.service`, but not above it.
`user.slice` is matched first. Paths are chosen by users, so no pattern takes more than linear time, and long paths are cut.

Sources: systemd.slice(5) and systemd-machined; kubelet's cgroup manager (`pod` + uid, dashes become underscores in slices); the cgroup
managers of containerd, CRI-O (`crio-`), Docker, Podman (`libpod-`), LXC (`lxc.payload.`) and libvirt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from exporter.attribution.units import folded, machine_name
from exporter.model.owner import UNKNOWN, Owner

MAX_PATH = 4096
_DELETED = b" (deleted)"
"""The end that `/proc/PID/cgroup` adds if the cgroup was removed."""


class Place(NamedTuple):
    """An owner, and the keys to the names that the path does not have."""

    owner: Owner
    container_id: str = ""
    """64 hexadecimal digits, or empty."""
    pod_uid: str = ""
    """With dashes; a static pod has 32 hexadecimal digits."""


_HEX = rb"[0-9a-f]{64}"
_UID = rb"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_END = rb"(?:/|$)"
_SLICES = rb"(?:/(?!user\.slice/)[^/]+\.slice)*"
_NODE = (
    rb"(?:/docker/%(hex)s|/system\.slice/docker-%(hex)s\.scope|(?:/machine\.slice/libpod-%(hex)s\.scope|/libpod_parent/libpod-%(hex)s)"
    rb"(?:/container)?)?" % {b"hex": _HEX}
)
"""A container that is a whole Kubernetes node, as kind and minikube make it."""
_RUNTIME_SERVICE = rb"/system\.slice/(?=[^/]*(?:containerd|crio|cri-o|docker|k3s|rke2|k0s|kubelet))[^/]+\.service"

_USER = re.compile(rb"/user\.slice(?:/user-\d+\.slice(?:/(?:(session-[^/]+\.scope)|(user@\d+\.service))?)?)?" + _END)
_POD_SLICE = re.compile(
    _NODE + _SLICES + rb"/[^/]*kubepods(?:-burstable|-besteffort)?-pod(" + _UID + rb")\.slice"
    rb"(?:/(?:(?:cri-containerd|crio|docker|libpod|nerdctl)-)?(" + _HEX + rb")(?:\.scope)?)?" + _END
)
_POD_FOLDER = re.compile(
    _NODE + rb"(?:/kubelet)?/kubepods(?:/burstable|/besteffort)?/pod(" + _UID + rb")(?:/(?:crio-)?(" + _HEX + rb"))?" + _END
)
_POD_MIXED = re.compile(  # a runtime that expects cgroupfs paths, given those for systemd
    rb"(?:"
    + _RUNTIME_SERVICE
    + rb")?/[^/]*kubepods(?:-burstable|-besteffort)?-pod("
    + _UID
    + rb")\.slice:(?:cri-containerd|crio):("
    + _HEX
    + rb")"
    + _END
)
_SCOPE = re.compile(_SLICES + rb"/(?:docker|libpod|nerdctl|buildah|crio|cri-containerd)-(" + _HEX + rb")\.scope" + _END)
_LIBPOD = re.compile(rb"/libpod_parent(?:/" + _HEX + rb")?/libpod-(" + _HEX + rb")" + _END)
_ECS = re.compile(rb"/ecs/[^/]+/(" + _HEX + rb")" + _END)
_FOLDER = re.compile(rb"/[^/]+/(" + _HEX + rb")" + _END)
_BUILDKIT = re.compile(rb"/docker/buildkit" + _END)
_LXC = re.compile(rb"/(?:lxc\.payload[./]|lxc/)([^/]+)" + _END)
_LXC_MONITOR = re.compile(rb"/lxc\.monitor[./]")
_NSPAWN = re.compile(rb"/machine\.slice/(?:systemd-(?:nspawn|vmspawn)@([^/]+)\.service|machine-([^/]+)\.scope)" + _END)
_LIBVIRT = re.compile(rb"/machine/([^/]+)\.libvirt-(?:qemu|lxc)" + _END)
_USER_MANAGER = re.compile(_SLICES + rb"/user@\d+\.service" + _END)
_UNIT = re.compile(_SLICES + rb"/([^/]+\.(scope|service|socket|mount|automount|swap))" + _END)


def _user(match: re.Match[bytes]) -> Place:
    session, manager = match.groups()
    return Place(Owner("session", "session-*.scope" if session else "user@.service" if manager else "user.slice"))


def _pod(match: re.Match[bytes]) -> Place:
    uid, container = match.groups()
    return Place(Owner("pod"), (container or b"").decode(), uid.replace(b"_", b"-").decode())


def _container(match: re.Match[bytes]) -> Place:
    return Place(Owner("container"), match[1].decode())


def _machine(match: re.Match[bytes]) -> Place:
    return Place(Owner("machine", container=machine_name(next(filter(None, match.groups()), b""))))


def _unit(match: re.Match[bytes]) -> Place:
    return Place(Owner("scope" if match[2] == b"scope" else "service", folded(match[1])))


def _fixed(owner: Owner) -> Callable[[re.Match[bytes]], Place]:
    return lambda _: Place(owner)


_PATTERNS: tuple[tuple[re.Pattern[bytes], Callable[[re.Match[bytes]], Place]], ...] = (
    (_USER, _user),
    (_USER_MANAGER, _fixed(Owner("session", "user@.service"))),
    (_POD_SLICE, _pod),
    (_POD_FOLDER, _pod),
    (_POD_MIXED, _pod),
    (_SCOPE, _container),
    (_LIBPOD, _container),
    (_ECS, _container),
    (_FOLDER, _container),
    (_BUILDKIT, _fixed(Owner("container", container="buildkit"))),
    (_LXC, _machine),
    (_LXC_MONITOR, _fixed(Owner("system", "lxc.monitor"))),
    (_NSPAWN, _machine),
    (_LIBVIRT, _machine),
    (_UNIT, _unit),
)
"""The first pattern that matches decides."""


def place(path: bytes) -> Place:
    """Return the place of a cgroup by its path below the root of its hierarchy. An empty path is unknown."""
    if not path:
        return Place(UNKNOWN)
    path = path[:MAX_PATH].removesuffix(_DELETED)
    while path.startswith(b"/../"):  # seen from another cgroup namespace
        path = path[3:]
    for pattern, placed in _PATTERNS:
        if match := pattern.match(path):
            return placed(match)
    first = path.split(b"/", 2)[1:2]
    return Place(Owner("system", folded(first[0]) if first else ""))
