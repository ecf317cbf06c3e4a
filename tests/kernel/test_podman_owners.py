"""Containers of a real Podman have their owners. Skipped where Podman, crun or a static C library are missing, or containers cannot run."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from exporter.attribution.container_names import ContainerNames
from exporter.attribution.owners import Owners
from exporter.loaders.container_state import ContainerState
from exporter.model.owner import Owner

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
        source.write_text("#include <unistd.h>\nint main(void) { sleep(120); return 0; }\n")
        subprocess.run(["cc", "-static", "-o", str(self._rootfs / "wait"), str(source)], check=True, capture_output=True)

    def run(self, *arguments: str) -> str:
        storage = ["--root", f"{self.root}/var/lib/containers/storage", "--runroot", f"{self.root}/run/containers/storage"]
        command = ["podman", *storage, "--storage-driver", "vfs", "--runtime", "crun", "--cgroup-manager", "cgroupfs", *arguments]
        if Path("/sys/fs/cgroup/unified").is_dir():
            script = _V1_ONLY.format(spare=self._spare, controllers=" ".join(_CONTROLLERS), command=shlex.join(command))
            command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=self._environment)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
        return done.stdout.strip()

    def start(self, name: str, *options: str) -> str:
        """Start a container that waits, and return its id."""
        options = ("--detach", "--name", name, "--ulimit", "host", "--network", "none", *options)
        return self.run("run", *options, "--rootfs", str(self._rootfs), "/wait")

    def cgroup(self, container_id: str) -> bytes:
        """Return the path of its cgroup, in the hierarchy where it has one."""
        pid = json.loads(self.run("inspect", container_id))[0]["State"]["Pid"]
        paths = (line.partition(b":")[2].partition(b":")[2] for line in Path(f"/proc/{pid}/cgroup").read_bytes().splitlines())
        return next(path for path in paths if b"libpod" in path)


@pytest.fixture
def podman() -> Iterator[_Podman]:
    if os.geteuid():
        pytest.skip("needs root")
    if missing := [program for program in ("podman", "crun", "cc", "unshare") if shutil.which(program) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    before = _libpod_cgroups()
    root = Path(tempfile.mkdtemp(prefix="pm"))  # Podman refuses a runroot of more than 50 characters
    try:
        podman = _Podman(root)
        podman.start("probe")
    except (RuntimeError, subprocess.SubprocessError) as reason:
        _remove(root, _libpod_cgroups() - before)
        pytest.skip(f"no container can run here: {reason}")
    yield podman
    podman.run("rm", "--all", "--force", "--time", "0")
    _remove(root, _libpod_cgroups() - before)


def _libpod_cgroups() -> set[Path]:
    return {Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup") if "/libpod_parent" in folder}


def _remove(root: Path, cgroups: set[Path]) -> None:
    """Remove what Podman left, once its monitors (conmon) and their clean-up have exited."""
    deadline = time.monotonic() + 20
    while root.exists() or any(folder.exists() for folder in cgroups):
        shutil.rmtree(root, ignore_errors=True)
        for folder in sorted(cgroups, key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("options", [(), ("--rm",)])
def test_podman_containers_have_their_owners(podman: _Podman, options: Sequence[str]) -> None:
    """With and without `--rm`, which makes newer versions of Podman write another file."""
    state = ContainerState(str(podman.root))
    names = ContainerNames(str(podman.root / "pods"), str(podman.root / "containers"), state.names)
    owners = Owners("pod", names)
    for number in range(_COUNT):
        path = podman.cgroup(podman.start(f"web-{number}", *options))
        deadline = time.monotonic() + 5
        while (owner := owners.owner(path)) is None:
            assert time.monotonic() < deadline, path
            time.sleep(0.05)
        assert owner == Owner("container", container=f"web-{number}")
    names.close()
