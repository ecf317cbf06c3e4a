"""From paths of cgroups to owners with names."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.attribution import container_names
from exporter.attribution.container_names import ContainerNames
from exporter.attribution.owners import Owners
from exporter.model.owner import UNKNOWN, ContainerName, Owner
from tests.unit.kubelet_layout import FakeLogs, FakePod, deployment_pods

_ID = "ab" * 32


class _Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


class _NoNames:
    def find(self, container_id: str, pod_uid: str) -> ContainerName:
        return ContainerName()


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def logs(tmp_path: Path) -> FakeLogs:
    return FakeLogs(tmp_path)


@pytest.fixture
def names(logs: FakeLogs) -> Iterator[ContainerNames]:
    names = ContainerNames(str(logs.pods), str(logs.containers))
    yield names
    names.close()


def _wait_for(owners: Owners, path: bytes) -> Owner:
    deadline = time.monotonic() + 5
    while (owner := owners.owner(path)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return owner


def test_pods_that_are_removed_at_once_have_their_names(logs: FakeLogs, names: ContainerNames) -> None:
    """A pod of a cron job may be gone before the exporter looks; others never name pods of 10 s."""
    pods = deployment_pods(200)
    for pod in pods:
        logs.add(pod)
        logs.remove(pod)
    owners = Owners("pod", names)
    assert [_wait_for(owners, pod.path) for pod in pods] == [Owner("pod", "", pod.namespace, pod.name, "app") for pod in pods]


@pytest.mark.parametrize(("mode", "label"), [("pod", "web-7d9f8c6b5-x2k4d"), ("workload", "web"), ("none", "")])
def test_pods_are_folded_as_configured(logs: FakeLogs, names: ContainerNames, mode: str, label: str) -> None:
    """Series by pod are too many for some hosts (305,435 on one node, in another exporter)."""
    pod = FakePod("shop", "web-7d9f8c6b5-x2k4d")
    logs.add(pod)
    assert _wait_for(Owners(mode, names), pod.path) == Owner("pod", "", "shop", label, "app")  # type: ignore[arg-type]


def test_a_static_pod_keeps_its_name(logs: FakeLogs, names: ContainerNames) -> None:
    """Its name ends with the node's, which may look like what a controller adds."""
    pod = FakePod("kube-system", "etcd-node-1", uid="0123456789abcdef" * 2)
    logs.add(pod)
    assert _wait_for(Owners("workload", names), pod.path) == Owner("pod", "", "kube-system", "etcd-node-1", "app")


def test_a_pod_without_container_needs_its_pod_only(logs: FakeLogs, names: ContainerNames) -> None:
    """Processes in the pod's own cgroup, such as conmon, have no container."""
    pod = FakePod("shop", "web-0")
    logs.add(pod)
    path = pod.path.rpartition(b"/")[0]
    assert _wait_for(Owners("pod", names), path) == Owner("pod", "", "shop", "web-0", "")


def test_directories_that_come_later_are_found(tmp_path: Path) -> None:
    """Kubelet may be installed after the exporter has started."""
    names = ContainerNames(str(tmp_path / "pods"), str(tmp_path / "containers"))
    logs, pod = FakeLogs(tmp_path), FakePod("shop", "web-0")
    logs.add(pod)
    assert _wait_for(Owners("pod", names), pod.path) == Owner("pod", "", "shop", "web-0", "app")
    names.close()


def test_a_directory_that_is_made_again_is_watched_again(logs: FakeLogs, names: ContainerNames) -> None:
    """A reset of the node removes it; then the watch is gone."""
    for folder in (logs.pods, logs.containers):
        folder.rmdir()
    names.look_up()
    for folder in (logs.pods, logs.containers):
        folder.mkdir()
    pod = FakePod("shop", "web-0")
    logs.add(pod)
    names.look_up()
    assert names.find(pod.id, pod.uid) == ContainerName("shop", "web-0", "app")


def test_a_pod_that_the_runtime_names_is_known_for_its_other_cgroups(tmp_path: Path) -> None:
    """Where kubelet's logs cannot be read, no file of the runtime has the pod's own cgroup."""
    pod = FakePod("shop", "web-0")
    names = ContainerNames(str(tmp_path / "none"), str(tmp_path / "none"), lambda _: {pod.id: ContainerName("shop", "web-0", "app")})
    owners = Owners("pod", names)
    assert _wait_for(owners, pod.path) == Owner("pod", "", "shop", "web-0", "app")
    assert owners.owner(pod.path.rpartition(b"/")[0]) == Owner("pod", "", "shop", "web-0", "")
    names.close()


def test_names_that_were_cut_are_found(logs: FakeLogs, names: ContainerNames) -> None:
    """Kubelet cuts links at 251 characters, within the id; with even longer names the pod is known without its container."""
    owners = Owners("pod", names, clock := _Clock())
    cut, gone = FakePod("n" * 63, "p" * 100, "c" * 60), FakePod("n" * 63, "p" * 120, "c" * 63)
    for pod in (cut, gone):
        logs.add(pod)
        assert len(pod.link) == 255
    assert _wait_for(owners, cut.path).container == "c" * 60
    assert owners.owner(gone.path) is None
    clock.time = 10
    assert owners.owner(gone.path) == Owner("pod", "", gone.namespace, gone.name, "")


def test_files_that_are_no_names_are_ignored(logs: FakeLogs, names: ContainerNames) -> None:
    """Whatever stands in these directories, only names as Kubernetes allows them become labels."""
    for name in ("a_b", "A_B_" + "0" * 36, "a_b\x1b_" + "0" * 36, "a_b_c-" + "g" * 64 + ".log", "\udcff"):
        os.mkdir(os.fsencode(f"{logs.pods}/") + os.fsencode(name))  # noqa: PTH102
    names.look_up()
    assert names.find("", "0" * 36) == ContainerName()


def test_an_overflow_lists_again(logs: FakeLogs, names: ContainerNames, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel drops events when too many names come at once."""
    pod = FakePod("shop", "web-0")
    logs.add(pod)
    inotify = names._logs._inotify
    assert inotify is not None
    inotify.clear()
    monkeypatch.setattr(inotify, "_read", lambda: b"\xff\xff\xff\xff" + (0x4000).to_bytes(4, "little") + bytes(8))
    names.look_up()
    assert names.find(pod.id, pod.uid) == ContainerName("shop", "web-0", "app")


def test_without_inotify_the_directories_are_listed(logs: FakeLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user may have all inotify instances already."""

    def refuse(_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("exporter.kernel.inotify.Inotify.__init__", refuse)
    names = ContainerNames(str(logs.pods), str(logs.containers))
    pod = FakePod("shop", "web-0")
    logs.add(pod)
    assert _wait_for(Owners("pod", names), pod.path) == Owner("pod", "", "shop", "web-0", "app")
    names.close()


def test_an_unknown_container_is_waited_for_ten_seconds(clock: _Clock) -> None:
    """Names come after the start of a container; then the id, shortened, is better than nothing, and must not change any more."""
    owners = Owners("pod", _NoNames(), clock)
    path = f"/docker/{_ID}".encode()
    clock.time = 100
    assert owners.owner(path) is None
    clock.time = 109.9
    assert owners.owner(path) is None
    clock.time = 110
    assert owners.owner(path) == Owner("container", container="ab" * 6)
    assert Owners("pod", _NoNames(), clock).owner(FakePod("a", "b").path) is None


def test_what_needs_no_name_is_known_at_once() -> None:
    """Services must not wait for containers."""
    owners = Owners("pod", _NoNames())
    assert owners.owner(b"/system.slice/cron.service") == Owner("service", "cron.service")
    assert owners.owner(b"") == UNKNOWN


def test_users_can_not_forge_pods_or_fill_memory() -> None:
    """Each of 20,000 users, of two floods, may create cgroups with the names of pods; they stay users, in bounded memory."""
    owners = Owners("pod", _NoNames())

    def flood(first: int) -> set[Owner | None]:
        return {
            owners.owner(f"/user.slice/user-{uid}.slice/user@{uid}.service{FakePod('a', 'b').path.decode()}".encode())
            for uid in range(first, first + 10_000)
        }

    tracemalloc.start()
    assert flood(1000) == {Owner("session", "user@.service")}
    before = tracemalloc.get_traced_memory()[0]
    assert flood(50_000) == {Owner("session", "user@.service")}
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000
    assert before < 4_000_000


def test_waiting_containers_are_bounded() -> None:
    """Also a flood of containers without names must not fill the memory."""
    owners = Owners("pod", _NoNames())
    for number in range(10_000):
        owners.owner(f"/docker/{number:064x}".encode())
    assert len(owners._waiting) == 4096


@given(st.binary(max_size=100))
def test_no_bytes_raise(path: bytes) -> None:
    """Paths are chosen by users."""
    owner = Owners("workload", _NoNames()).owner(path)
    assert owner is None or all(label.isprintable() for label in owner)


def test_runtimes_are_asked_for_what_logs_do_not_name(logs: FakeLogs) -> None:
    """Docker's names are nowhere else; each name is asked for once, a few at a time."""
    asked: list[str] = []

    def runtime_state(ids: Sequence[str]) -> dict[str, ContainerName]:
        assert len(ids) <= container_names.MAX_ASKED
        asked.extend(ids)
        return {each: ContainerName(container="web\n" + each[-2:]) for each in ids}

    names = ContainerNames(str(logs.pods), str(logs.containers), runtime_state)
    owners = Owners("pod", names)
    paths = [f"/docker/{number:064x}".encode() for number in range(100)]
    for path in paths:
        owners.owner(path)
    found = [_wait_for(owners, path) for path in paths]
    assert found[3] == Owner("container", container="web\\x0a03")
    assert len(asked) == len(set(asked)) == 100
    names.close()


def test_containers_without_names_do_not_keep_others_waiting(logs: FakeLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round asks for a bounded number; those that were not found come last in the next."""
    monkeypatch.setattr(ContainerNames, "_start_thread", lambda _: None)
    asked: list[str] = []

    def runtime_state(ids: Sequence[str]) -> dict[str, ContainerName]:
        asked.extend(ids)
        return {}

    names = ContainerNames(str(logs.pods), str(logs.containers), runtime_state)
    wanted = [f"{number:064x}" for number in range(300)]
    for each in wanted:
        names.find(each, "")
    names.look_up()
    assert asked == wanted[:128]
    names.look_up()
    names.look_up()
    assert asked == wanted + wanted[: 3 * 128 - 300]
    names.close()


def test_a_runtime_that_fails_is_asked_again(logs: FakeLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker may be busy or gone; the thread must go on."""
    monkeypatch.setattr(container_names, "_INTERVAL_SECONDS", 0.01)
    answers: Iterator[KeyError | dict[str, ContainerName]]
    answers = iter([KeyError("no"), {}, {_ID: ContainerName("shop", "web-0", "app")}])

    def runtime_state(_: Sequence[str]) -> dict[str, ContainerName]:
        answer = next(answers)
        if isinstance(answer, KeyError):
            raise answer
        return answer

    names = ContainerNames(str(logs.pods), str(logs.containers), runtime_state)
    assert _wait_for(Owners("pod", names), f"/docker/{_ID}".encode()) == Owner("pod", "", "shop", "web-0", "app")
    names.close()


def test_the_thread_ends_when_nothing_is_wanted(logs: FakeLogs, names: ContainerNames, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most hosts have no containers, and a scan that nobody needs costs."""
    monkeypatch.setattr(container_names, "_WANTED_SECONDS", 0.0)
    names.find(_ID, "")
    deadline = time.monotonic() + 5
    while names._thread is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
