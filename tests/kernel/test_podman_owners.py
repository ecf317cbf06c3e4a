"""Containers of a real Podman have their owners. Skipped where Podman, crun or a static C library are missing, or containers cannot run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from exporter.attribution.container_names import ContainerNames
from exporter.attribution.owners import Owners
from exporter.loaders.container_state import ContainerState
from exporter.model.owner import Owner
from tests.kernel.container_runtimes import Unavailable, names, new_root
from tests.kernel.programs import until

_COUNT = int(os.environ.get("PODMAN_CONTAINERS", "3"))
_CONTROLLERS = ("pids", "memory", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio", "systemd")
_V1_ONLY = """
set -e
mount --rbind /sys/fs/cgroup {spare}
mount -t tmpfs tmpfs /sys/fs/cgroup
for each in {controllers}; do mkdir /sys/fs/cgroup/$each; mount --bind {spare}/$each /sys/fs/cgroup/$each; done
exec {command}
"""
"""crun refuses hosts with both versions of cgroups, so it is shown v1 alone, in a mount namespace of its own."""


class _Podman:
    """Podman with a store of its own below `root`, at the places where that of the host would be."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._spare = root / "spare"
        self._rootfs = root / "rootfs"
        config = root / "containers.conf"
        config.write_text("[containers]\ndefault_ulimits = []\n")
        self._environment = os.environ | {"CONTAINERS_CONF": str(config)}
        for folder in (self._spare, self._rootfs):
            folder.mkdir()
        source = root / "wait.c"
        source.write_text("#include <unistd.h>\nint main(int count, char **words) { sleep(count > 1 ? 0 : 120); return 0; }\n")
        subprocess.run(["cc", "-static", "-o", str(self._rootfs / "wait"), str(source)], check=True, capture_output=True)

    def run(self, *arguments: str) -> str:
        storage = ["--root", f"{self.root}/var/lib/containers/storage", "--runroot", f"{self.root}/run/containers/storage"]
        command = ["podman", *storage, "--storage-driver", "vfs", "--runtime", "crun", "--cgroup-manager", "cgroupfs", *arguments]
        if Path("/sys/fs/cgroup/unified").is_dir():
            script = _V1_ONLY.format(spare=self._spare, controllers=" ".join(_CONTROLLERS), command=shlex.join(command))
            command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=self._environment)
        if done.returncode:
            raise Unavailable(done.stderr.strip().rpartition("\n")[2])
        return done.stdout.strip()

    def start(self, name: str, *options: str, program: Sequence[str] = ("/wait",)) -> str:
        """Start a container, by default one that waits, and return its id."""
        options = ("--detach", "--name", name, "--ulimit", "host", "--network", "none", *options)
        return self.run("run", *options, "--rootfs", str(self._rootfs), *program)

    def cgroup(self, container_id: str) -> bytes:
        """Return the path of its cgroup, in the hierarchy where it has one."""
        pid = json.loads(self.run("inspect", container_id))[0]["State"]["Pid"]
        paths = (line.partition(b":")[2].partition(b":")[2] for line in Path(f"/proc/{pid}/cgroup").read_bytes().splitlines())
        return next(path for path in paths if b"libpod" in path)


@pytest.fixture
def podman() -> Iterator[_Podman]:
    try:
        with new_root(["podman", "crun", "cc", "unshare"], "libpod_parent") as root:
            podman = _Podman(root)
            podman.start("probe")
            yield podman
            podman.run("rm", "--all", "--force", "--time", "0")
    except (Unavailable, subprocess.SubprocessError) as reason:
        pytest.skip(f"no container of Podman can run here (apt-get install podman crun): {reason}")


@pytest.mark.parametrize("options", [(), ("--rm",)])
def test_podman_containers_have_their_owners(podman: _Podman, options: Sequence[str]) -> None:
    """With and without `--rm`, which makes newer versions of Podman write another file."""
    state = ContainerState(str(podman.root))
    known = ContainerNames(str(podman.root / "pods"), str(podman.root / "containers"), state.names)
    owners = Owners("pod", known)
    for number in range(_COUNT):
        path = podman.cgroup(podman.start(f"web-{number}", *options))
        deadline = time.monotonic() + 5
        while (owner := owners.owner(path)) is None:
            assert time.monotonic() < deadline, path
            time.sleep(0.05)
        assert owner == Owner("container", container=f"web-{number}")
    known.close()


def test_podman_containers_that_are_removed_at_once_have_names(podman: _Podman) -> None:
    """With `--rm`, Podman forgets them before their processes are counted."""
    with names(podman.root) as known:
        ids = [podman.start(f"job-{number}", "--rm", program=["/wait", "0"]) for number in range(_COUNT)]
        assert not until(lambda: ContainerState(str(podman.root)).names(ids), lambda left: not left, 60)
        found = until(lambda: [known.find(each, "").container for each in ids], all)
        assert found == [f"job-{number}" for number in range(_COUNT)]
