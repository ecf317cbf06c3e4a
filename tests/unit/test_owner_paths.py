"""From paths of cgroups to owners, without names of containers."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.attribution.paths import MAX_PATH, Place, place
from exporter.attribution.units import folded, machine_name
from exporter.model.owner import UNKNOWN, Owner

_ID = "ab" * 32
_OTHER = "0123456789abcdef" * 4
_UID = "dde1244b-5bb5-4297-b544-85f3bc0d80bf"
_UID_ = _UID.replace("-", "_")
_STATIC = "0123456789abcdef0123456789abcdef"
_HOME = "/user.slice/user-1000.slice/user@1000.service"


def _pod(container: str = _ID, uid: str = _UID) -> Place:
    return Place(Owner("pod"), container, uid)


def _container(container: str = _ID) -> Place:
    return Place(Owner("container"), container)


def _machine(name: str) -> Place:
    return Place(Owner("machine", container=name))


def _unit(kind: str, unit: str) -> Place:
    return Place(Owner(kind, unit))


_PATHS = {
    # kubelet with the systemd driver
    f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{_UID_}.slice/cri-containerd-{_ID}.scope": _pod(),
    f"/kubepods.slice/kubepods-pod{_UID_}.slice/cri-containerd-{_ID}.scope": _pod(),
    f"/kubepods.slice/kubepods-pod{_UID_}.slice/crio-{_ID}.scope": _pod(),
    f"/kubepods.slice/kubepods-pod{_UID_}.slice/crio-{_ID}.scope/container": _pod(),
    f"/kubepods.slice/kubepods-pod{_UID_}.slice/crio-{_ID}": _pod(),
    f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{_UID_}.slice/docker-{_ID}.scope": _pod(),
    f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{_UID_}.slice/{_ID}": _pod(),
    f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{_UID_}.slice": _pod(""),
    f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{_UID_}.slice/crio-conmon-{_ID}.scope": _pod(""),
    f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{_STATIC}.slice/crio-{_ID}.scope": _pod(uid=_STATIC),
    f"/fast.slice/fast-kubepods.slice/fast-kubepods-pod{_UID_}.slice/crio-{_ID}.scope": _pod(),
    # with the cgroupfs driver
    f"/kubepods/burstable/pod{_UID}/{_ID}": _pod(),
    f"/kubepods/pod{_UID}/{_ID}": _pod(),
    f"/kubepods/pod{_UID}/{_ID}/child": _pod(),
    f"/kubepods/besteffort/pod{_UID}/crio-{_ID}": _pod(),
    f"/kubepods/besteffort/pod{_UID}": _pod(""),
    f"/kubelet/kubepods/burstable/pod{_UID}/{_ID}": _pod(),
    # a runtime with the other driver
    f"/system.slice/containerd.service/kubepods-burstable-pod{_UID_}.slice:cri-containerd:{_ID}": _pod(),
    f"/system.slice/k3s.service/kubepods-pod{_UID_}.slice:cri-containerd:{_ID}": _pod(),
    f"/kubepods-besteffort-pod{_UID_}.slice:cri-containerd:{_ID}": _pod(),
    f"/system.slice/web.service/kubepods-burstable-pod{_UID_}.slice:cri-containerd:{_ID}": _unit("service", "web.service"),
    # a node in a container: kind, minikube
    f"/docker/{_OTHER}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{_UID_}.slice/cri-containerd-{_ID}.scope": _pod(),
    f"/docker/{_OTHER}/kubelet/kubepods/besteffort/pod{_UID}/{_ID}": _pod(),
    f"/docker/{_OTHER}/kubepods/besteffort/pod{_UID}/{_ID}": _pod(),
    f"/system.slice/docker-{_OTHER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{_UID_}.slice/crio-{_ID}.scope": _pod(),
    f"/machine.slice/libpod-{_OTHER}.scope/container/kubelet.slice/kubelet-kubepods-pod{_UID_}.slice/crio-{_ID}.scope": _pod(),
    f"/docker/{_OTHER}/user.slice/user-1.slice/kubepods-pod{_UID_}.slice/crio-{_ID}.scope": _container(_OTHER),
    # containers without Kubernetes
    f"/system.slice/docker-{_ID}.scope": _container(),
    f"/docker/{_ID}": _container(),
    f"/docker/{_ID}/init.scope": _container(),
    f"/docker/{_ID}/docker/{_OTHER}": _container(),
    f"/apps.slice/docker-{_ID}.scope": _container(),
    f"/actions_job/{_ID}": _container(),
    f"/ecs/4711/{_ID}": _container(),
    f"/ecstasks.slice/ecstasks-4711.slice/docker-{_ID}.scope": _container(),
    f"/machine.slice/libpod-{_ID}.scope/container": _container(),
    f"/machine.slice/machine-libpod_pod_{_OTHER}.slice/libpod-{_ID}.scope": _container(),
    f"/libpod_parent/libpod-{_ID}": _container(),
    f"/libpod_parent/{_OTHER}/libpod-{_ID}/container": _container(),
    f"/system.slice/nerdctl-{_ID}.scope": _container(),
    f"/default/{_ID}": _container(),
    f"/moby/{_ID}": _container(),
    f"/k8s.io/{_ID}": _container(),
    "/docker/buildkit/x0y1z2": Place(Owner("container", container="buildkit")),
    f"/machine.slice/libpod-conmon-{_ID}.scope": _unit("scope", "libpod-conmon-*.scope"),
    f"/system.slice/crio-conmon-{_ID}.scope": _unit("scope", "crio-conmon-*.scope"),
    # machines
    "/machine.slice/systemd-nspawn@web.service/payload/system.slice/cron.service": _machine("web"),
    "/machine.slice/systemd-nspawn@web\\x2d1.service/payload": _machine("web-1"),
    "/machine.slice/systemd-vmspawn@web.service": _machine("web"),
    "/machine.slice/machine-web\\x2d1.scope": _machine("web-1"),
    "/machine.slice/machine-debian\\x2da1b2c3d4e5f60718.scope": _machine("debian"),
    "/machine.slice/machine-qemu\\x2d12\\x2dweb.scope/libvirt/emulator": _machine("web"),
    "/machine/qemu-12-web.libvirt-qemu": _machine("web"),
    "/lxc.payload.samba19/system.slice/smbd.service": _machine("samba19"),
    "/lxc.payload/samba19": _machine("samba19"),
    "/lxc/101/ns": _machine("101"),
    "/lxc.monitor.samba19": _unit("system", "lxc.monitor"),
    # users
    "/user.slice": _unit("session", "user.slice"),
    "/user.slice/user-1000.slice": _unit("session", "user.slice"),
    "/user.slice/user-1000.slice/session-3.scope": _unit("session", "session-*.scope"),
    "/user.slice/user-1000.slice/session-c2.scope/job": _unit("session", "session-*.scope"),
    f"{_HOME}/app.slice/cron.service": _unit("session", "user@.service"),
    f"{_HOME}/user.slice/libpod-{_ID}.scope/container": _unit("session", "user@.service"),
    f"{_HOME}/kubepods.slice/kubepods-pod{_UID_}.slice/cri-containerd-{_ID}.scope": _unit("session", "user@.service"),
    f"{_HOME}/docker/{_ID}": _unit("session", "user@.service"),
    f"/user.slice/docker-{_ID}.scope": _unit("session", "user.slice"),
    f"/tenants.slice/user@1000.service/docker-{_ID}.scope": _unit("session", "user@.service"),
    # units
    "/system.slice/cron.service": _unit("service", "cron.service"),
    f"/system.slice/cron.service/docker-{_ID}.scope": _unit("service", "cron.service"),
    f"/system.slice/cron.service/kubepods.slice/kubepods-pod{_UID_}.slice/crio-{_ID}.scope": _unit("service", "cron.service"),
    "/system.slice/system-getty.slice/getty@tty1.service": _unit("service", "getty@.service"),
    "/system.slice/check@147486-10.26.90.68:9200-10.26.90.68:51526.service": _unit("service", "check@.service"),
    "/system.slice/run-u123.service": _unit("service", "run-*.service"),
    "/system.slice/run-p4711-i4712.scope": _unit("scope", "run-*.scope"),
    f"/system.slice/run-r{_STATIC}.service": _unit("service", "run-*.service"),
    "/system.slice/run-backups.service": _unit("service", "run-backups.service"),
    "/system.slice/backup-20261130131200.service": _unit("service", "backup-*.service"),
    f"/system.slice/snap.lxd.daemon-{_UID}.scope": _unit("scope", "snap.lxd.daemon-*.scope"),
    "/system.slice/dev-disk-by\\x2duuid.swap": _unit("service", "dev-disk-by\\x2duuid.swap"),
    "/system.slice/session-3.scope": _unit("scope", "session-*.scope"),
    "/init.scope": _unit("scope", "init.scope"),
    "/podruntime.slice/kubelet.service": _unit("service", "kubelet.service"),
    "/system.slice/ssh.service (deleted)": _unit("service", "ssh.service"),
    "/../../system.slice/ssh.service": _unit("service", "ssh.service"),
    # the rest
    "/": _unit("system", ""),
    "/system.slice": _unit("system", "system.slice"),
    "/slurm/uid_1000": _unit("system", "slurm"),
    "": Place(UNKNOWN),
}


@pytest.mark.parametrize("path", _PATHS)
def test_each_layout_has_its_owner(path: str) -> None:
    """Every runtime and driver writes another path; a wrong one would blame somebody else."""
    assert place(path.encode()) == _PATHS[path]


@pytest.mark.parametrize("path", [path for path in _PATHS if path not in ("", "/") and not path.startswith("/..")])
def test_layouts_below_a_user_belong_to_the_user(path: str) -> None:
    """Users can create any cgroup there, so nothing below it may pass for a container, a pod or a service of the system."""
    assert place((_HOME + path).encode()) == _unit("session", "user@.service")


_PIECES = st.sampled_from([
    *(b"/", b".slice", b"kubepods", b"-pod", b"docker", b".service", b"user.slice", b"system.slice", b"@", b"..", b"\\x2d", b"libpod-"),
    *(_ID.encode(), _UID.encode(), _UID_.encode(), b"a", b"-burstable", b":cri-containerd:", b".scope", b"machine", b"\n", b"\xff", b"\0"),
])  # fmt: skip


@given(st.one_of(st.binary(max_size=200), st.lists(_PIECES, max_size=40).map(b"".join)))
def test_any_bytes_become_harmless_text(path: bytes) -> None:
    """Paths are chosen by users: none may raise, and no label may hold what moves a cursor or ends a line."""
    owner, container_id, pod_uid = place(path)
    assert all(label.isprintable() for label in owner)
    assert len(container_id) in (0, 64)
    assert len(pod_uid) in (0, 32, 36)


@pytest.mark.parametrize(
    "piece",
    [
        b"a",
        b"/",
        b".slice",
        b"/a.slice",
        b"kubepods",
        b"/kubepods-pod",
        b"docker",
        b"/system.slice/docker",
        b".service",
        b"0",
        b"@",
        b"a.a",
        b"/..",
    ],
)
@pytest.mark.parametrize("head", [b"/", b"/system.slice/", b"/docker/" + _ID.encode() + b"/", b"/machine.slice/machine-", b""])
def test_long_paths_take_linear_time(head: bytes, piece: bytes) -> None:
    """A pattern that backtracks would stop all threads: `re` holds the interpreter's lock. Slow ones take seconds: the bound is wide."""
    path = (head + piece * MAX_PATH)[: MAX_PATH + 100]
    before = time.thread_time()
    place(path)
    assert time.thread_time() - before < 0.1


def test_names_of_units_are_bounded() -> None:
    """A forged path has longer components than a file system allows."""
    assert len(folded(b"\xff" * 5000)) <= 4 * 255
    assert len(machine_name(b"a" * 5000)) <= 255


def test_instances_without_end_are_one_owner() -> None:
    """Another exporter had 311,751 series of template units on one host."""
    owners = {place(f"/system.slice/system-check.slice/check@{number}-10.0.0.{number % 250}.service".encode()) for number in range(1000)}
    assert owners == {_unit("service", "check@.service")}
