"""Names of containers from the state files of runtimes: real ones in `fixtures/containers`, shortened, and others written as they are."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from exporter.loaders import container_state
from exporter.loaders.container_state import ContainerState
from exporter.model.owner import ContainerName

_ID = "ab" * 32
_OTHER = "cd" * 32
_UID = "dde1244b-5bb5-4297-b544-85f3bc0d80bf"


_FIXTURES = Path(__file__).parents[1] / "fixtures/containers"


def _write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def _docker(root: Path, name: str, labels: dict[str, str] | None = None, folder: str = "var/lib/docker") -> Path:
    config = {
        "StreamConfig": {},
        "State": {"Running": True, "Pid": 4711},
        "ID": _ID,
        "Created": "2026-11-30T12:00:00.0Z",
        "Managed": False,
        "Path": "sleep",
        "Args": ["1"],
        "Config": {"Hostname": _ID[:12], "Env": ["PATH=/bin"], "Cmd": ["sleep", "1"], "Image": "debian", "Labels": labels},
        "Name": name,
        "Driver": "overlay2",
    }
    return _write(root / folder / "containers" / _ID / "config.v2.json", config)


def _stored(container_id: str, *names: str, **metadata: Any) -> dict[str, Any]:
    return {
        "id": container_id,
        "names": names,
        "image": "0" * 64,
        "layer": "1" * 64,
        "metadata": json.dumps(metadata),
        "created": "2026-11-30T12:00:00.0Z",
        "flags": {"MountLabel": "", "ProcessLabel": ""},
    }


def _containerd(root: Path, namespace: str, annotations: dict[str, str], run: str = "run/containerd") -> Path:
    config = {"ociVersion": "1.2.0", "process": {"args": ["sleep", "1"]}, "root": {"path": "rootfs"}, "annotations": annotations}
    return _write(root / run / "io.containerd.runtime.v2.task" / namespace / _ID / "config.json", config)


def _names(root: Path, *ids: str) -> dict[str, ContainerName]:
    return ContainerState(str(root)).names(ids or (_ID,))


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("/shop-web-1", None, ContainerName(container="shop-web-1")),
        ("/web.1.k8xq0n5w2v7l3d9y1r4t6p0sz", {"com.docker.swarm.service.name": "web"}, ContainerName(container="web")),
        (f"/k8s_app_web-0_shop_{_UID}_0", {"io.kubernetes.container.name": "app"}, ContainerName("shop", "web-0", "app")),
        (f"/k8s_POD_web-0_shop_{_UID}_0", {}, ContainerName("shop", "web-0", "")),
        (f"/k8s_app_web-0_shop_{_UID}_0_1f2e3d4c", {}, ContainerName("shop", "web-0", "app")),
    ],
)
def test_docker(tmp_path: Path, name: str, labels: dict[str, str] | None, expected: ContainerName) -> None:
    """Plain containers, tasks of swarm (a new name each time), and pods through cri-dockerd, which adds a number if a name is in use."""
    _docker(tmp_path, name, labels)
    assert _names(tmp_path) == {_ID: expected}


@pytest.mark.parametrize("folder", ["var/lib/docker/231072.231072", "var/snap/docker/common/var-lib-docker"])
def test_docker_elsewhere(tmp_path: Path, folder: str) -> None:
    """With `userns-remap`, where dockerd 20.10 was seen to keep it, and as a snap."""
    _docker(tmp_path, "/web", folder=folder)
    assert _names(tmp_path) == {_ID: ContainerName(container="web")}


@pytest.mark.parametrize("file", sorted(_FIXTURES.iterdir()), ids=lambda file: file.name)
def test_real_files(tmp_path: Path, file: Path) -> None:
    """Each of a container `app` in the pod `web-0`, as the version in its name has written it."""
    folder = "run/containerd/io.containerd.runtime.v2.task/k8s.io" if "containerd" in file.name else "var/lib/docker/containers"
    path = tmp_path / folder / _ID / file.name[file.name.index("config") :]
    path.parent.mkdir(parents=True)
    shutil.copy(file, path)
    assert _names(tmp_path) == {_ID: ContainerName("shop", "web-0", "app")}


@pytest.mark.parametrize("store", ["var/lib/containers/storage", "run/containers/storage"])
@pytest.mark.parametrize("file", ["containers.json", "volatile-containers.json"])
@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_podman(tmp_path: Path, store: str, driver: str, file: str) -> None:
    """Containers with `--rm` are in the volatile file, which may be in the other directory."""
    entries = [_stored(_OTHER, "db"), _stored(_ID, "web", **{"image-name": "debian", "image-id": "0" * 64})]
    _write(tmp_path / store / f"{driver}-containers" / file, entries)
    assert _names(tmp_path, _ID, _OTHER) == {_ID: ContainerName(container="web"), _OTHER: ContainerName(container="db")}


def test_crio(tmp_path: Path) -> None:
    """CRI-O keeps its containers in the same store, always volatile, named as cri-dockerd names them. A sandbox has two names."""
    metadata = {"pod-name": f"k8s_web-0_shop_{_UID}_0", "pod-id": _OTHER, "metadata-name": "app"}
    entries = [
        _stored(_ID, f"k8s_app_web-0_shop_{_UID}_0", **metadata),
        _stored(_OTHER, f"k8s_POD_web-0_shop_{_UID}_0", f"k8s_web-0_shop_{_UID}_0", **metadata, pod=True),
    ]
    _write(tmp_path / "var/lib/containers/storage/overlay-containers/volatile-containers.json", entries)
    assert _names(tmp_path, _ID, _OTHER) == {_ID: ContainerName("shop", "web-0", "app"), _OTHER: ContainerName("shop", "web-0", "")}


@pytest.mark.parametrize("run", ["run/containerd", "run/k3s/containerd", "run/k0s/containerd", "var/snap/microk8s/common/run/containerd"])
def test_containerd(tmp_path: Path, run: str) -> None:
    """Kubernetes distributions keep it in different places."""
    prefix = "io.kubernetes.cri."
    annotations = {
        prefix + "container-type": "container",
        prefix + "container-name": "app",
        prefix + "sandbox-id": _OTHER,
        prefix + "sandbox-name": "web-0",
        prefix + "sandbox-namespace": "shop",
        prefix + "sandbox-uid": _UID,
    }
    _containerd(tmp_path, "k8s.io", annotations, run)
    assert _names(tmp_path) == {_ID: ContainerName("shop", "web-0", "app")}
    del annotations[prefix + "container-name"]
    _containerd(tmp_path, "k8s.io", annotations | {prefix + "container-type": "sandbox"}, run)
    assert _names(tmp_path) == {_ID: ContainerName("shop", "web-0", "")}


def test_nerdctl(tmp_path: Path) -> None:
    """Its containers are containerd's, with a name of their own."""
    _containerd(tmp_path, "default", {"nerdctl/name": "web", "nerdctl/namespace": "default"})
    assert _names(tmp_path) == {_ID: ContainerName(container="web")}


def test_a_store_is_read_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has all containers of the host, and is asked about at each new one."""
    reads: list[str] = []
    real = container_state._read

    def read(base: str, *parts: str, limit: int = 1 << 20) -> bytes:
        reads.append(parts[-1])
        return real(base, *parts, limit=limit)

    monkeypatch.setattr(container_state, "_read", read)
    file = tmp_path / "var/lib/containers/storage/overlay-containers/containers.json"
    state = ContainerState(str(tmp_path))
    _write(file, [_stored(_ID, "web")])
    for _ in range(3):
        assert state.names([_ID]) == {_ID: ContainerName(container="web")}
    assert reads.count("containers.json") == 1
    _write(file, [_stored(_ID, "other")])
    assert state.names([_ID]) == {_ID: ContainerName(container="other")}
    file.unlink()
    assert state.names([_ID]) == {}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"Name": 1}', '{"Name": "/"}', '{"Config": []}', "[" * 100_000, '{"names": 1}']
)
def test_damaged_state_gives_no_name(tmp_path: Path, content: str) -> None:
    """A file may be read while it is written; its format may change."""
    for path in (_docker(tmp_path, "/a"), _containerd(tmp_path, "k8s.io", {})):
        path.write_text(content)
    store = tmp_path / "var/lib/containers/storage/overlay-containers/containers.json"
    _write(store, [1, {}, {"id": _ID}, {"id": _ID, "names": []}, {"id": _ID, "names": [1]}])
    assert _names(tmp_path) == {}
    store.write_text(content)
    assert _names(tmp_path) == {}


def test_only_ids_are_looked_up(tmp_path: Path) -> None:
    """The serving process may be in an attacker's hands; it must not choose which files root reads."""
    _write(tmp_path / "var/lib/docker/containers/config.v2.json", {"Name": "/secret"})
    wanted: list[Any] = [".", "..", "../containers", "", _ID.upper(), _ID + "\n", _ID + "/", 5, None, [_ID]]
    assert ContainerState(str(tmp_path)).names(wanted) == {}


def test_links_are_not_followed(tmp_path: Path) -> None:
    """Below the directory of a runtime, neither a directory nor a file may lead elsewhere."""
    outside = _write(tmp_path / "outside/config.v2.json", {"Name": "/secret"})
    folder = tmp_path / "var/lib/docker/containers"
    folder.mkdir(parents=True)
    (folder / _ID).symlink_to(outside.parent)
    (folder / _OTHER).mkdir()
    (folder / _OTHER / "config.v2.json").symlink_to(outside)
    assert _names(tmp_path, _ID, _OTHER) == {}


def test_large_and_special_files_are_not_read(tmp_path: Path) -> None:
    """A pipe would block the broker, and a large file fill its memory."""
    path = _docker(tmp_path, "/web")
    with path.open("a") as file:
        file.write(" " * (1 << 20))
    assert _names(tmp_path) == {}
    path.unlink()
    os.mkfifo(path)
    assert _names(tmp_path) == {}


def test_a_request_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and in time: the broker has to load modes, too."""
    _docker(tmp_path, "/web")
    assert _names(tmp_path, *[_OTHER] * 32, _ID) == {}
    monkeypatch.setattr(container_state, "_BUDGET_SECONDS", -1.0)
    assert _names(tmp_path) == {}
