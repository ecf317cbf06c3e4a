"""This machine once more, to install things on: what is written there goes to memory and is forgotten."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# /run stays empty: the systemd of the machine must not hear of it. The last command waits until its standard input is closed.
_MOUNT = """
mount -t tmpfs tmpfs "$1" && mkdir "$1"/upper "$1"/work "$1"/root &&
mount -t overlay overlay -o lowerdir=/,upperdir="$1"/upper,workdir="$1"/work "$1"/root &&
for each in proc sys dev; do mount --rbind /$each "$1"/root/$each || exit; done &&
echo mounted && exec cat >/dev/null
"""


@dataclass(frozen=True, slots=True)
class Machine:
    holder: int
    """PID of a process in the mount namespace that has it; everything goes when that ends."""
    folder: Path

    @property
    def root(self) -> Path:
        """Its files, as seen from here."""
        return Path(f"/proc/{self.holder}/root{self.folder}/root")

    def command(self, *words: str) -> list[str]:
        return ["nsenter", f"--target={self.holder}", "--mount", "chroot", f"{self.folder}/root", *words]

    def run(self, *words: str) -> str:
        """Run it there, and expect success; what it printed."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        result = subprocess.run(self.command(*words), env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def written(self) -> set[str]:
        """Paths of all files that were made or changed; marks of deleted ones (whiteouts) are left out."""
        upper = Path(f"/proc/{self.holder}/root{self.folder}/upper")
        return {str(path.relative_to(upper)) for path in upper.rglob("*") if path.is_symlink() or path.is_file()}


@contextmanager
def throwaway(folder: Path) -> Iterator[Machine]:
    """Skips where that can't be."""
    if os.geteuid() != 0:
        pytest.skip("a throw-away root takes root")
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c", _MOUNT, "sh", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() != "mounted\n":
                pytest.skip(f"no throw-away root here: {holder.communicate()[1].strip()}")
            yield Machine(holder.pid, folder)
        finally:
            holder.stdin.close()
            holder.wait(10)
