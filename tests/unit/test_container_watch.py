"""Names of containers that are gone before anybody asks for them."""

from __future__ import annotations

import json
import select
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.loaders import container_watch
from exporter.loaders.container_watch import ContainerWatch
from exporter.model.owner import ContainerName

_ID = "ab" * 32
_WEB = {_ID: ContainerName(container="web")}
_DOCKER = "var/lib/docker/containers"
_CONTAINERD = "run/containerd/io.containerd.runtime.v2.task"
_PODMAN = "var/lib/containers/storage/overlay-containers"


def _docker(root: Path, container_id: str = _ID) -> None:
    _replace(root / _DOCKER / container_id / "config.v2.json", {"Name": "/web"})


def _containerd(root: Path, container_id: str = _ID) -> None:
    _replace(root / _CONTAINERD / "default" / container_id / "config.json", {"annotations": {"nerdctl/name": "web"}})


def _podman(root: Path, container_id: str = _ID) -> None:
    _replace(root / _PODMAN / "volatile-containers.json", [{"id": container_id, "names": ["web"]}])


def _replace(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".tmp")
    new.write_text(json.dumps(content))
    new.rename(path)


def _watch(root: Path) -> ContainerWatch:
    """A watch that has been asked before, on a host whose runtimes have no container."""
    for folder in (_DOCKER, _CONTAINERD, _PODMAN):
        (root / folder).mkdir(parents=True)
    watch = ContainerWatch(str(root))
    assert watch.descriptors == []
    assert watch.names([_ID]) == {}
    assert len(watch.descriptors) == 1
    return watch


def _read(watch: ContainerWatch) -> None:
    assert select.select(watch.descriptors, [], [], 10)[0]
    watch.read_new()


@pytest.mark.parametrize("create", [_docker, _containerd, _podman])
def test_a_container_that_is_gone_keeps_its_name(tmp_path: Path, create: Callable[[Path], None]) -> None:
    """`docker run --rm` of a short command removes it before its processes are counted. containerd's namespace is new, too."""
    watch = _watch(tmp_path)
    create(tmp_path)
    _read(watch)
    shutil.rmtree(tmp_path)
    assert watch.names([_ID]) == _WEB
    assert watch.timeout is None


def test_a_name_is_read_when_it_is_written(tmp_path: Path) -> None:
    """The directory of a container is there before its file."""
    watch = _watch(tmp_path)
    (tmp_path / _DOCKER / _ID).mkdir()
    _read(watch)
    waits = [watch.timeout]
    _docker(tmp_path)
    watch.read_new()
    waits.append(watch.timeout)
    assert waits == [container_watch._AGAIN_SECONDS, None]
    shutil.rmtree(tmp_path / _DOCKER)
    assert watch.names([_ID]) == _WEB


def test_a_container_without_name_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker would look for it 20 times a second for ever."""
    monkeypatch.setattr(container_watch, "_EXPECTED_SECONDS", 0.0)
    watch = _watch(tmp_path)
    (tmp_path / _DOCKER / _ID).mkdir()
    _read(watch)
    assert watch.timeout is None
    assert watch.names([_ID]) == {}


def test_containers_that_nobody_can_name_do_not_keep_others_waiting(tmp_path: Path) -> None:
    """A round reads 32."""
    watch = _watch(tmp_path)
    for number in range(40):
        (tmp_path / _DOCKER / f"{number:064x}").mkdir()
    _docker(tmp_path)
    for _ in range(2):
        watch.read_new()
    shutil.rmtree(tmp_path / _DOCKER)
    assert watch.names([_ID]) == _WEB


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten, also if the file of Podman has more."""
    monkeypatch.setattr(container_watch, "_MAX_SEEN", 2)
    watch = _watch(tmp_path)
    ids = [f"{number:064x}" for number in range(4)]
    for last in range(1, 5):
        _replace(tmp_path / _PODMAN / "containers.json", [{"id": each, "names": ["web"]} for each in ids[:last]])
        _read(watch)
    shutil.rmtree(tmp_path / _PODMAN)
    assert list(watch.names(ids)) == ids[2:]


def test_runtimes_that_come_later_are_watched(tmp_path: Path) -> None:
    """Docker may be installed, or removed and installed again, while the exporter runs."""
    watch = ContainerWatch(str(tmp_path))
    for _ in range(2):
        (tmp_path / _DOCKER).mkdir(parents=True)
        assert watch.names([]) == {}
        _docker(tmp_path)
        _read(watch)
        shutil.rmtree(tmp_path / _DOCKER)
        watch.read_new()
    assert watch.names([_ID]) == _WEB


def test_without_inotify_only_what_lasts_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user may have as many instances as `fs.inotify.max_user_instances` says, and the broker must continue."""

    def none_left() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(container_watch, "Inotify", none_left)
    watch = ContainerWatch(str(tmp_path))
    _docker(tmp_path)
    assert watch.names([_ID]) == _WEB
    assert (watch.descriptors, watch.timeout) == ([], None)
    watch.read_new()
