"""A systemd that runs in a container, on a throw-away copy of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.programs import until
from tests.kernel.throwaway import Machine


@dataclass(frozen=True)
class Booted:
    """The container while it runs."""

    init: int
    """PID of its systemd."""

    def run(self, *words: str, seconds: float = 30) -> str:
        """Run a command inside; what it printed."""
        enter = ["nsenter", f"--target={self.init}", "--mount", "--pid", "--uts", "--ipc", "--cgroup"]
        return subprocess.run([*enter, *words], capture_output=True, text=True, timeout=seconds, check=False).stdout.strip()

    def systemctl(self, *words: str) -> str:
        """Ask its systemd; the answer."""
        return self.run("systemctl", "--no-pager", *words)


@contextmanager
def booted(machine: Machine, wants: str = "") -> Iterator[Booted]:
    """Boot it as a container in which only these units are wanted."""
    if shutil.which("systemd-nspawn") is None:
        pytest.skip("systemd-nspawn (package systemd-container) is not installed")
    target = f"[Unit]\nRequires=basic.target\nAfter=basic.target\nWants={wants}\nAllowIsolate=yes\n"
    (machine.root / "etc/systemd/system/test.target").write_text(target)
    nspawn = ["systemd-nspawn", "-q", "--boot", "-D", f"{machine.folder}/root", "--machine=shortproc-test", "--console=pipe"]
    nspawn += ["--link-journal=no", "--capability=CAP_BPF,CAP_PERFMON", "--system-call-filter=bpf"]
    if not Path("/run/systemd/system").exists():  # nobody to ask for a control group
        nspawn += ["--register=no", "--keep-unit"]
    nspawn += ["--", "--unit=test.target"]
    enter = ["nsenter", f"--target={machine.holder}", "--mount"]
    for each in ("dev", "proc", "sys"):  # it mounts its own
        subprocess.run([*enter, "umount", "--lazy", f"{machine.folder}/root/{each}"], check=True)
    with subprocess.Popen(
        [*enter, *nspawn], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as container:
        children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
        init: list[str] = []
        try:
            # nspawn starts helpers of its own first
            init = until(
                lambda: [pid for pid in children.read_text().split() if comm(pid) == "systemd"] if container.poll() is None else ["gone"],
                bool,
            )
            if init == ["gone"]:
                pytest.skip(f"systemd-nspawn can't run here: {container.communicate()[0].strip()}")
            yield Booted(int(init[0]))
        finally:
            if container.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(int(init[0]) if init else container.pid, signal.SIGKILL)
                try:
                    container.communicate(timeout=10)
                except subprocess.TimeoutExpired:
                    container.kill()
                    raise
            if "--keep-unit" in nspawn:
                remove_control_groups()


def comm(pid: str) -> str:
    """Its name; empty where it has gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def remove_control_groups() -> None:
    """Those that systemd-nspawn left, as far as nothing is in them."""
    groups = Path("/sys/fs/cgroup")
    for top in (each for name in ("payload", "supervisor") for pattern in (name, f"*/{name}") for each in groups.glob(pattern)):
        for each in [*sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True), top]:
            with suppress(OSError):
                each.rmdir()
