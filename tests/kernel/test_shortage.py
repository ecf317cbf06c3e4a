"""Where the host gives too little, or the exporter stands in the wrong place, one line says what is short and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.commands

CHECKOUT = Path(__file__).resolve().parents[2]
UID = 61_234
"""Of nobody else here: the limit of processes is for all of a user's together."""


def run(shell: str, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the exporter behind some shell command."""
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        ["bash", "-c", f'{shell} "$@"', "-", sys.executable, "-m", "exporter", *command],
        cwd=CHECKOUT,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
        **options,
    )


def line_of(mode: str, said: str) -> str:
    return next(line for line in said.splitlines() if line.startswith(mode))


@pytest.mark.parametrize("limit", [10, 16, 24])
def test_few_open_files(requires_bpf: None, limit: int) -> None:
    """The library then fails with all kinds of errno, of which EINVAL would send the reader to the verifier's log."""
    said = run(f"ulimit -n {limit}; exec", "doctor").stdout
    for mode in ("ebpf_core", "ebpf_bcc"):
        assert f"only {limit} open files are allowed" in line_of(mode, said) or "too many open files: raise the limit" in line_of(
            mode, said
        )


@pytest.mark.parametrize("arguments", [["--mode=scan"], ["snoop", "--mode=scan"], ["--mode=auto"]])
@pytest.mark.parametrize("limit", [1, 2])
def test_few_processes(nobody: int | None, arguments: list[str], limit: int) -> None:
    """A thread that cannot be started was a traceback."""
    if nobody is None:
        pytest.skip("only root can start it as a user who has no other processes")
    address = [] if "snoop" in arguments else ["--web.listen-address=127.0.0.1:0"]
    result = run(f"ulimit -u {limit}; exec", *arguments, *address, user=UID, group=UID, extra_groups=[])
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    assert "cannot start another process or thread: raise the limit of processes (ulimit -u, " in result.stderr.splitlines()[-1]


def test_a_user_namespace() -> None:
    """Its root has every capability in it and none over the kernel: every mode says so, and none blames a profile or a limit."""
    result = run("exec unshare --user --map-root-user", "doctor")
    if "unshare failed" in result.stderr:
        pytest.skip("user namespaces are not allowed here")
    for mode in ("ebpf_core", "ebpf_bcc", "netlink"):
        assert "from the host's user namespace" in line_of(mode, result.stdout) or "in the host's user namespace" in line_of(
            mode, result.stdout
        )
